"""The paired tensor: it carries two, so that the loss forks while the network runs once."""

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.pairing.arguments import (
    are_floating,
    are_scalars,
    communicate,
    have_other_shapes,
    hooked,
    like,
    looks_at_shapes_only,
    mixes,
    on_both_sides,
    on_own_value,
    ordinary,
    paired_in,
    side,
    tensors_in,
)
from lightning_mmix.pairing.functions import (
    Function,
    asks_own_value,
    asks_size,
    exchanges_memory,
    is_about_itself,
    is_collective,
    is_in_place,
    keeps_statistics,
    only_computes,
    reshapes_in_place,
    with_noise_to_come,
)
from lightning_mmix.pairing.pair import LatePair, Pair, is_opaque, own_value, pair_of
from lightning_mmix.pairing.refusals import (
    LOSS_OUTSIDE_GRAPH,
    OTHER_SIZES,
    in_place,
    of_unequal_length,
    refuse_nonlinear,
    refuse_transforms,
)
from lightning_mmix.pairing.shortcuts import change_of_number, with_shared_softmax
from lightning_mmix.pairing.step import Step, shares_memory, shares_storage


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
    refuse_transforms(func, args, kwargs)
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
    step.gave_paired = True
    with_graph = {**kwargs, "retain_graph": True}  # both sides hang on one network
    first, second = func(*side(args, 0), **with_graph), func(*side(args, 1), **kwargs)
    return _zip(first, second, step)


def _change(change: Callable[[Tensor], Tensor], func: Function, args: Any) -> Tensor:
    refuse_transforms(func, args, {})
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
        refuse_nonlinear(func, args)
    return _zip(first, second, step, opaque=opaque, scalar=are_scalars(found))


def _write(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    written = args[0] if args else None
    if not isinstance(written, Tensor) or "out" in kwargs:
        raise in_place(func, "into an argument that is not its first")
    if exchanges_memory(func):
        raise in_place(func, "by exchanging its memory")
    if (pair := pair_of(written)) is not None:
        _write_paired(pair, func, args, kwargs)
    elif step.owns(written):
        # a running mean of losses or a gradient step, not a count of labels
        found = paired_in(args, kwargs)
        is_mix = are_scalars(found) or (step.trains(written) and are_floating(found))
        own = mixes if is_mix else partial(side, index=0)
        func(*own(args), **own(kwargs))
    else:
        _write_ordinary(step, func, args, kwargs)
    return written


def _write_paired(pair: Pair, func: Function, args: Any, kwargs: Any) -> None:
    pair.step.settle()
    written, *others = args
    found = paired_in(args, kwargs)
    if any(is_opaque(*each) for each in found):
        refuse_nonlinear(func, args, by_mixes=True)
        on_own_value(func, (written, *mixes(others)), mixes(kwargs))
        pair.is_opaque = True
        return
    if reshapes_in_place(func):
        on_own_value(func, args, kwargs)
    on_both_sides(func, args, kwargs)
    for tensor in pair.step.tracked():
        other = pair_of(tensor)
        if other is pair or (other is not None and _is_alias(tensor, other, pair)):
            _refresh(tensor, other)


def _is_alias(tensor: Tensor, pair: Pair, other: Pair) -> bool:
    return shares_storage(pair.first, other.first) and not is_opaque(tensor, pair)


def _write_ordinary(step: Step, func: Function, args: Any, kwargs: Any) -> None:
    written, *others = args
    if written._is_view() or shares_memory(written):
        raise in_place(func, "into memory that other tensors may share")
    found = paired_in(others, kwargs)
    opaque = any(is_opaque(*each) for each in found)
    if opaque:
        refuse_nonlinear(func, args)
    with torch.enable_grad():  # under no_grad the values change, but the history stays
        pair = Pair(written.clone(), written.clone(), step, is_opaque=opaque)
    on_both_sides(func, (pair, *others), kwargs)
    pair.is_mixed = are_scalars(found)
    _refresh(written, pair)
    become_paired(written, pair)


def _refresh(own: Tensor, pair: Pair) -> None:
    # the own value of an integer shares its memory with the first, unless it was ordinary before
    if own.data_ptr() != pair.first.data_ptr():
        value = own_value(pair, is_scalar=pair.is_mixed)
        on_own_value(Tensor.copy_, (own, value), {})


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
