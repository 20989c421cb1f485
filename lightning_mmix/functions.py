"""Torch's functions, told apart by what they do with an argument."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

Function = Callable[..., Any]

_ABOUT_ITSELF = frozenset(
    [
        "__array__",
        "__bool__",
        "__complex__",
        "__contains__",
        "__float__",
        "__format__",
        "__hash__",
        "__index__",
        "__int__",
        "__len__",
        "__repr__",
        "_is_view",
        "data_ptr",
        "dim",
        "element_size",
        "get_device",
        "has_names",
        "is_complex",
        "is_contiguous",
        "is_floating_point",
        "is_shared",
        "item",
        "ndimension",
        "nelement",
        "numel",
        "numpy",
        "register_hook",
        "register_post_accumulate_grad_hook",
        "requires_grad_",
        "retain_grad",
        "size",
        "storage",
        "storage_offset",
        "stride",
        "tolist",
        "untyped_storage",
    ]
)
_TENSOR_ATTRIBUTES = frozenset(["T", "mT", "H", "mH", "real", "imag", "data"])
_LIKE = frozenset(
    [
        "empty_like",
        "full_like",
        "new_empty",
        "new_empty_strided",
        "new_full",
        "new_ones",
        "new_zeros",
        "ones_like",
        "rand_like",
        "randint_like",
        "randn_like",
        "zeros_like",
    ]
)
_AS = frozenset(["expand_as", "reshape_as", "type_as", "view_as"])
_RANDOM = frozenset(
    [
        "alpha_dropout",
        "bernoulli",
        "bernoulli_",
        "cauchy_",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "exponential_",
        "feature_alpha_dropout",
        "geometric_",
        "gumbel_softmax",
        "log_normal_",
        "multinomial",
        "normal",
        "normal_",
        "poisson",
        "random_",
        "rrelu",
        "rrelu_",
        "scaled_dot_product_attention",
        "uniform_",
    ]
)
_RESHAPES_IN_PLACE = frozenset(["squeeze_", "unsqueeze_", "t_", "transpose_", "detach_", "__set__"])
_NOT_IN_PLACE = frozenset(["__init__", "__int__", "__index__", "__invert__", "__iter__"])
_ADDITIVE = frozenset(
    [
        "add",
        "sub",
        "neg",
        "radd",
        "rsub",
        "iadd",
        "isub",
        "mean",
        "sum",
        "clone",
        "detach",
        "to",
        "float",
        "double",
        "view",
        "reshape",
        "squeeze",
        "unsqueeze",
        "flatten",
        "contiguous",
        "view_as",
    ]
)
_FACTORS = frozenset(["mul", "rmul", "imul"])
_DIVISIONS = frozenset(["div", "truediv", "itruediv"])


def is_about_itself(func: Function) -> bool:
    """Whether a function asks for the tensor itself, or a Python number: shape, item."""
    if func.__name__ in ("__get__", "__set__"):
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        return attribute not in _TENSOR_ATTRIBUTES
    return func.__name__ in _ABOUT_ITSELF


def is_in_place(func: Function) -> bool:
    """Whether a function writes into its first argument."""
    name = func.__name__
    if name.startswith("__"):
        return name in ("__setitem__", "__set__") or (
            name.startswith("__i") and name not in _NOT_IN_PLACE
        )
    return name.endswith("_")


def reshapes_in_place(func: Function) -> bool:
    """Whether a function changes its first argument's shape or history in place, or all of it."""
    return func.__name__ in _RESHAPES_IN_PLACE


def shape_argument(func: Function) -> int | None:
    """The position of the argument of which no more than shape, dtype and device are looked at."""
    return 0 if func.__name__ in _LIKE else 1 if func.__name__ in _AS else None


def is_linear(func: Function, position: int) -> bool:
    """Whether a function is linear in the one paired argument that stands at ``position``."""
    name = func.__name__.strip("_")
    return name in _FACTORS or (name in _DIVISIONS and position == 0)


def is_additive(func: Function) -> bool:
    """Whether a function is linear in all its arguments at once."""
    return func.__name__.strip("_") in _ADDITIVE


def same_noise(func: Function) -> AbstractContextManager[Any]:
    """Give the generators back as they were after a first call of a random function."""
    if func.__name__ not in _RANDOM:
        return nullcontext()
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = [torch.cuda.current_device()] if in_use else []
    return torch.random.fork_rng(devices=devices)
