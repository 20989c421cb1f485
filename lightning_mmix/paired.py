"""The paired tensor: it carries two, so that the loss forks while the network runs once."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.functions import (
    Function,
    asks_own_value,
    asks_size,
    exchanges_memory,
    is_about_itself,
    is_additive,
    is_collective,
    is_in_place,
    is_linear,
    keeps_statistics,
    only_computes,
    reshapes_in_place,
    with_noise_to_come,
)
from lightning_mmix.refusals import (
    LOSS_OUTSIDE_GRAPH,
    OTHER_SIZES,
    beside_custom_function,
    in_place,
    of_unequal_length,
    under_transform,
)
from lightning_mmix.shared import change_of_number, with_shared_softmax
from lightning_mmix.sides import (
    LatePair,
    Pair,
    are_scalars,
    communicate,
    have_other_shapes,
    hooked,
    is_opaque,
    like,
    looks_at_shapes_only,
    on_own_value,
    ordinary,
    own_value,
    pair_of,
    paired_in,
    side,
    tensors_in,
)
from lightning_mmix.step import Step, is_inside_function, shares_memory


class Paired(Tensor):
    """A tensor that carries two: every torch function of it runs on both and is paired again.

    Its own value, which code that does not know this class sees, is the mix λ·first +
    (1 - λ)·second with its graph if it is floating point, and the first if it is not. As long as
    the drawn layer has not run, λ counts as 1. A value formed while gradients are switched off is
    its first, and remembers its second. Python numbers come from the own value.
    """

    pair: Pair

    @classmethod
    def __torch_function__(
        cls, func: Function, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run ``func`` on the first and on the second of every paired argument."""
        if not torch.compiler.is_compiling() and asks_own_value(func):
            return on_own_value(func, args, kwargs or {})
        return _dispatch(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return ordinary(self).__reduce_ex__(protocol)


def become_paired(tensor: Tensor, pair: Pair) -> None:
    """Give an ordinary tensor, in place, the class and the two sides of a paired one."""
    tensor.__class__ = Paired
    tensor.pair = pair  # type: ignore[attr-defined]  # it is paired now
    pair.step.track(tensor)


def is_paired(value: Any) -> bool:
    """Whether a value is, or holds, a paired tensor of a step that is not over."""
    return any(pair_of(tensor) is not None for tensor in tensors_in(value))


# fullgraph=True raises with the reason
@torch.compiler.disable(reason=LOSS_OUTSIDE_GRAPH)  # type: ignore[no-untyped-call,untyped-decorator]
def _dispatch(func: Function, args: Any, kwargs: Any) -> Any:
    change = change_of_number(func, args, kwargs)
    if change is not None:
        return _change(change, func, args)
    found = paired_in(args, kwargs)
    if not found:
        return on_own_value(func, args, kwargs)
    step = found[0][1].step
    if not only_computes(func):
        answer = _answer(step, func, args, kwargs)
        if answer is not NotImplemented:
            return answer
    _refuse_transforms(func, args, kwargs)
    if is_in_place(func) or kwargs.get("out") is not None:
        return _write(step, func, args, kwargs)
    return _fork(step, *with_shared_softmax(func, args, kwargs))


def _answer(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    answer = _differentiate(step, func, args, kwargs)
    return _ask(step, func, args, kwargs) if answer is NotImplemented else answer


def _ask(_step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    """Answer what is asked about the tensor itself, or of other processes."""
    if is_collective(func):
        return communicate(func, args, kwargs)
    if func is Tensor.register_hook and not is_opaque(args[0], args[0].pair):
        return hooked(args[0], *args[1:], **kwargs)
    if asks_size(func) and have_other_shapes(args[0]):
        warnings.warn(OTHER_SIZES, stacklevel=4)
    if func.__name__ == "__set__" and is_about_itself(func):
        return on_own_value(func, (args[0], *ordinary(args[1:])), kwargs)
    if is_about_itself(func) or looks_at_shapes_only(func, args, kwargs):
        return on_own_value(func, args, kwargs)
    return NotImplemented


def _differentiate(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    """Take gradients of the mix, unless they are part of a loss themselves."""
    if func in (Tensor.backward, torch.autograd.backward):
        step.went_backward = True
        # not by way of on_own_value: an autograd.Function's backward still forks
        return func(*ordinary(args), **{key: ordinary(kwargs[key]) for key in kwargs})
    if func is not torch.autograd.grad:
        return NotImplemented
    step.went_backward = True
    if not kwargs.get("create_graph") and any(map(step.owns, tensors_in(args[1:2]))):
        return func(*ordinary(args), **kwargs)
    with_graph = {**kwargs, "retain_graph": True}  # both sides hang on one network
    first, second = func(*side(args, 0), **with_graph), func(*side(args, 1), **kwargs)
    return _zip(first, second, step)


def _change(change: Callable[[Tensor], Tensor], func: Function, args: Any) -> Tensor:
    _refuse_transforms(func, args, {})
    own: Tensor = on_own_value(change, args[:1], {})
    become_paired(own, LatePair(args[0].pair, change))
    return own


def _fork(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():  # the sides alone are computed with
        own, others = side((args, kwargs), 0), side((args, kwargs), 1)
        found = paired_in(args, kwargs)
        opaque = any(is_opaque(tensor, pair) for tensor, pair in found)
    first = with_noise_to_come(func, *own)
    if not tensors_in(first):
        return on_own_value(func, args, kwargs)
    if keeps_statistics(func):  # which are the first's
        others = tuple(_copy_of_state(step, other) for other in others[0]), others[1]
    second = func(*others[0], **others[1])
    if opaque and any(tensor.requires_grad for tensor in tensors_in(first)):
        _refuse_nonlinear(func, args)
    return _zip(first, second, step, opaque=opaque, scalar=are_scalars(found))


def _write(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    written = args[0] if args else None
    if not isinstance(written, Tensor) or "out" in kwargs:
        raise in_place(func, "into an argument that is not its first")
    if exchanges_memory(func):
        raise in_place(func, "by exchanging its memory")
    if (pair := pair_of(written)) is not None:
        step.settle()
        if reshapes_in_place(func):
            on_own_value(func, args, kwargs)
        _on_both(func, args, kwargs)
        _refresh(written, pair)
    elif step.owns(written):
        # a running mean of losses, not a count of labels
        mixed = are_scalars(paired_in(args, kwargs))
        func(*(ordinary(args) if mixed else side(args, 0)), **side(kwargs, 0))
    else:
        _write_ordinary(step, func, args, kwargs)
    return written


def _write_ordinary(step: Step, func: Function, args: Any, kwargs: Any) -> None:
    written, *others = args
    if written._is_view() or shares_memory(written):
        raise in_place(func, "into memory that other tensors may share")
    with torch.enable_grad():  # under no_grad the values change, but the history stays
        pair = Pair(written.clone(), written.clone(), step)
    _on_both(func, (pair, *others), kwargs)
    _refresh(written, pair)
    become_paired(written, pair)


def _on_both(func: Function, args: Any, kwargs: Any) -> None:
    with_noise_to_come(func, side(args, 0), side(kwargs, 0))
    func(*side(args, 1), **side(kwargs, 1))


def _refresh(own: Tensor, pair: Pair) -> None:
    # the own value of an integer shares its memory with the first, unless it was ordinary before
    if own.data_ptr() != pair.first.data_ptr():
        on_own_value(Tensor.copy_, (own, own_value(pair)), {})


def _zip(first: Any, second: Any, step: Step, *, opaque: bool = False, scalar: bool = False) -> Any:
    """Pair two results, which may be trees of tensors."""
    if first is second:
        return first
    if isinstance(first, Tensor):
        pair = Pair(first, second, step, is_opaque=opaque)
        own = own_value(pair, is_scalar=scalar)
        become_paired(own, pair)
        return own
    together = partial(_zip, step=step, opaque=opaque, scalar=scalar)
    if isinstance(first, Mapping):
        return {key: together(first[key], second[key]) for key in first}
    if isinstance(first, tuple | list):
        if len(first) != len(second):
            raise of_unequal_length(first, second)
        return like(first, list(map(together, first, second)))
    return first


def _copy_of_state(step: Step, value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and step.owns(value) else value


def _refuse_transforms(func: Function, args: Any, kwargs: Any) -> None:
    if torch._C._are_functorch_transforms_active():
        raise under_transform(func)
    # a paired input of an autograd.Function would get one gradient for both sides
    if is_inside_function() and func.__name__ not in ("clone", "detach"):
        if any(tensor.requires_grad for tensor, _ in paired_in(args, kwargs)):
            raise beside_custom_function(func)


def _refuse_nonlinear(func: Function, args: Any) -> None:
    positions = [i for i, each in enumerate(args) if is_paired(each)]
    if not (is_additive(func) or (len(positions) == 1 and is_linear(func, positions[0]))):
        raise beside_custom_function(func)
