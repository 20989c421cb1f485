"""Torch's functions, told apart by what they do with an argument."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

Function = Callable[..., Any]

looked_up = lru_cache(maxsize=1024)  # each function is asked of several times in every step


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABOUT_ITSELF = _names("""
    __array__ __bool__ __complex__ __contains__ __float__ __format__ __hash__ __index__ __int__
    __len__ __repr__ _is_view data_ptr dim element_size get_device has_names is_complex
    is_contiguous is_floating_point is_shared item ndimension nelement numel numpy
    register_hook register_post_accumulate_grad_hook requires_grad_ retain_grad size storage
    storage_offset stride tolist untyped_storage
""")
_READS = _names("""
    __array__ __bool__ __complex__ __contains__ __float__ __index__ __int__ is_nonzero item numpy
    tolist
""")
_SIZES = _names("__len__ nelement numel size")
_TENSOR_ATTRIBUTES = _names("T mT H mH real imag data")
_LIKE = _names("""
    empty_like full_like new_empty new_empty_strided new_full new_ones new_zeros ones_like
    rand_like randint_like randn_like zeros_like
""")
_AS = _names("expand_as reshape_as type_as view_as")
_RANDOM = _names("""
    _sample_dirichlet _standard_gamma alpha_dropout bernoulli bernoulli_ binomial cauchy_ dropout
    dropout1d dropout2d dropout3d exponential_ feature_alpha_dropout feature_dropout
    fractional_max_pool2d fractional_max_pool3d geometric_ gru gumbel_softmax log_normal_ lstm
    multi_head_attention_forward multinomial native_dropout normal normal_ poisson random_ rnn_relu
    rnn_tanh rrelu rrelu_ scaled_dot_product_attention uniform_
""")
_KEEPS_STATISTICS = _names("batch_norm instance_norm")
_RESHAPES_IN_PLACE = _names(
    "as_strided_ detach_ squeeze_ swapaxes_ swapdims_ t_ transpose_ unsqueeze_"
)
_EXCHANGES_MEMORY = _names("__set__ resize_ resize_as_ set_")
_NOT_IN_PLACE = _names("__init__ __int__ __index__ __invert__ __iter__")
_ADDITIVE = _names("""
    add sub neg radd rsub iadd isub mean sum clone detach to float double view reshape squeeze
    unsqueeze flatten contiguous view_as stack cat concat hstack vstack setitem copy index_add
    scatter_add
""")
_RECEIVES = _names("all_reduce all_reduce_coalesced broadcast irecv recv reduce")
_CARRIES = _names("""
    bfloat16 broadcast_to cat chunk clone concat contiguous cpu cuda data deepcopy detach
    diagonal double
    expand expand_as flatten flip float gather getitem half hstack index_select mH mT H T
    masked_fill masked_select moveaxis movedim nan_to_num narrow permute ravel repeat
    repeat_interleave reshape reshape_as roll select split squeeze stack swapaxes swapdims t
    take_along_dim tile to transpose type type_as unbind unflatten unfold unsqueeze view view_as
    vstack where
""")
_MOVES_ROWS = _names("""
    flip flipud gather getitem index_copy index_fill index_put index_select masked_scatter roll
    rot90 scatter take_along_dim
""")
_JOINS = _names("cat concat concatenate hstack stack vstack")
_LOSES_ROWS = _names(
    "H T mH mT moveaxis movedim permute select swapaxes swapdims t transpose unbind"
)
_FACTORS = _names("mul rmul imul")
_DIVISIONS = _names("div truediv itruediv")


@looked_up
def is_about_itself(func: Function) -> bool:
    """Whether a function asks for the tensor itself, or a Python number: shape, item."""
    if func.__name__ in ("__get__", "__set__"):
        return _attribute(func) not in _TENSOR_ATTRIBUTES
    return func.__name__ in _ABOUT_ITSELF


@looked_up
def asks_own_value(func: Function) -> bool:
    """Whether a function asks for what both sides share, or for what only the own value has."""
    is_special = func.__name__ in ("__set__", "register_hook") or asks_size(func)
    return is_about_itself(func) and not is_special


@looked_up
def reads_value(func: Function) -> bool:
    """Whether a function makes a Python value, or an array, of what the tensor holds."""
    return func.__name__ in _READS


@looked_up
def reports_number(func: Function) -> bool:
    """Whether a function makes of a number what is usually logged, and not branched on."""
    return func.__name__ in ("__array__", "__float__", "item", "numpy", "tolist")


@looked_up
def carries(func: Function) -> bool:
    """Whether a function's result holds what its argument held, copied, cast or laid otherwise."""
    return _plain_name(func) in _CARRIES


@looked_up
def may_move_rows(func: Function) -> bool:
    """Whether a function may move the rows of its first argument, or change some of them alone."""
    return _plain_name(func) in _MOVES_ROWS


@looked_up
def embeds(func: Function) -> bool:
    """Whether a function looks up the vectors of indices."""
    return func.__name__ in ("embedding", "embedding_bag")


def lengths_of_input(func: Function, args: Any, kwargs: Any) -> Any:
    """What a function takes of how long the network's outputs are."""
    return (args[2:3] or kwargs.get("input_lengths")) if func.__name__ == "ctc_loss" else ()


@looked_up
def joins(func: Function) -> bool:
    """Whether a function puts tensors together."""
    return func.__name__ in _JOINS


def keeps_rows(func: Function, args: Any) -> bool:
    """Whether a result that is as long as the first argument has a row for each of its rows."""
    name = _plain_name(func)
    if name != "getitem":
        return name not in _LOSES_ROWS
    index = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
    return index is not None and not isinstance(index, int)


@looked_up
def is_in_place(func: Function) -> bool:
    """Whether a function writes into its first argument."""
    name = func.__name__
    if name.startswith("__"):
        return name in ("__setitem__", "__set__") or (
            name.startswith("__i") and name not in _NOT_IN_PLACE
        )
    return name.endswith("_")


def reshapes_in_place(func: Function) -> bool:
    """Whether a function changes its first argument's shape or history in place."""
    return func.__name__ in _RESHAPES_IN_PLACE


def exchanges_memory(func: Function) -> bool:
    """Whether a function gives its first argument other memory: ``data =``, set, resize."""
    return func.__name__ in _EXCHANGES_MEMORY


def keeps_statistics(func: Function) -> bool:
    """Whether a function updates running statistics that it is given."""
    return func.__name__ in _KEEPS_STATISTICS


@looked_up
def asks_size(func: Function) -> bool:
    """Whether a function asks for a tensor's shape."""
    name = func.__name__
    return name in _SIZES or (name == "__get__" and _attribute(func) == "shape")


@looked_up
def shape_argument(func: Function) -> int | None:
    """The position of the argument of which no more than shape, dtype and device are looked at."""
    return 0 if func.__name__ in _LIKE else 1 if func.__name__ in _AS else None


@looked_up
def is_collective(func: Function) -> bool:
    """Whether a function speaks with other processes, which may have nothing paired."""
    return str(getattr(func, "__module__", "")).startswith("torch.distributed")


def receives(func: Function) -> bool:
    """Whether a collective writes what it receives into its first argument."""
    return func.__name__ in _RECEIVES


def is_linear(func: Function, position: int) -> bool:
    """Whether a function is linear in the one paired argument that stands at ``position``."""
    name = func.__name__.strip("_")
    return name in _FACTORS or (name in _DIVISIONS and position == 0)


def is_additive(func: Function) -> bool:
    """Whether a function is linear in all its arguments at once."""
    return func.__name__.strip("_") in _ADDITIVE


@looked_up
def only_computes(func: Function) -> bool:
    """Whether all that a function does is to compute a result from its arguments' values."""
    is_special = is_in_place(func) or is_collective(func) or is_about_itself(func)
    is_derivative = func.__name__ == "backward" or func is torch.autograd.grad
    return not is_special and not is_derivative and shape_argument(func) is None


@looked_up
def is_pure(func: Function) -> bool:
    """Whether a function computes something new of its arguments' values, the same each time."""
    is_special = carries(func) or embeds(func) or keeps_statistics(func) or may_move_rows(func)
    return only_computes(func) and not is_special and func.__name__ not in _RANDOM


def with_noise_to_come(func: Function, args: Any, kwargs: Any) -> Any:
    """Call a function; if it is random, give the generators back as they were before."""
    if func.__name__ not in _RANDOM:
        return func(*args, **kwargs)
    with _same_noise(kwargs.get("generator")):
        return func(*args, **kwargs)


@contextmanager
def _same_noise(generator: torch.Generator | None) -> Iterator[None]:
    if generator is not None:
        state = generator.get_state()
        yield
        generator.set_state(state)
    else:
        in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if in_use else []):
            yield


def _plain_name(func: Function) -> str:
    name = _attribute(func) if func.__name__ == "__get__" else func.__name__
    return name.strip("_")


def _attribute(func: Function) -> str:
    return getattr(getattr(func, "__self__", None), "__name__", "")
