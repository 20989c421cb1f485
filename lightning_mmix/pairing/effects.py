"""Effects: what a call does beside its result: it writes, hooks, or takes gradients."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_mmix.pairing.arguments import (
    are_floating,
    are_scalars,
    mixes,
    notes_of,
    on_both_sides,
    on_own_value,
    ordinary,
    paired_in,
    side,
    tensors_in,
)
from lightning_mmix.pairing.pair import Kind, LatePair, Pair, is_opaque, own_value, pair_of
from lightning_mmix.pairing.partners import give_partners_rows, keeps_samples
from lightning_mmix.pairing.refusals import in_place, refuse_nonlinear
from lightning_mmix.pairing.step import Step, become_ordinary, shares_memory, shares_storage
from lightning_mmix.watch.functions import Function, exchanges_memory, receives, reshapes_in_place
from lightning_mmix.watch.watched import plain, watch_metric


def write(step: Step, func: Function, args: Any, kwargs: Any) -> Pair | None:
    """Call a function that writes into its first argument, for both sides.

    Args:
        step: The step.
        func: The function.
        args: Its arguments.
        kwargs: Its arguments by keyword.

    Returns:
        What the first argument has to carry, if it was ordinary and is so no more.

    Raises:
        ValueError: If the write can't be done for both sides.
    """
    written = args[0] if args else None
    if not isinstance(written, Tensor) or "out" in kwargs:
        raise in_place(func, "into out=", "leave out= away")
    if exchanges_memory(func):
        raise in_place(func, "by exchanging its memory", "make a new tensor")
    if (pair := pair_of(written)) is not None:
        _write_paired(pair, func, args, kwargs)
    elif step.owns(written):
        # a running mean of losses or a gradient step, not a count of labels
        found = paired_in(args, kwargs)
        is_mix = are_scalars(found) or (step.trains(written) and are_floating(found))
        own = mixes if is_mix else partial(side, index=0)
        func(*own(args), **own(kwargs))
    else:
        return _write_ordinary(step, func, args, kwargs)
    return None


def backward(
    loss: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> bool:
    """Take the gradient of a mixed loss, if that is all; tell whether it was."""
    pair: Pair | None = getattr(loss, "pair", None)
    is_all = gradient is None and inputs is None and torch.is_grad_enabled()
    if pair is None or pair.step.closed or pair.step.notes is not None or not is_all:
        return False
    pair.step.went_backward = True
    # its class alone, since the backward pass of an autograd.Function still forks
    kind, loss.__class__ = loss.__class__, Tensor
    try:
        torch.autograd.backward(loss, None, retain_graph, create_graph)
    finally:
        if not pair.step.closed:  # a hook may have ended the step, and made it ordinary
            loss.__class__ = kind
    return True


def differentiate(
    step: Step, func: Function, args: Any, kwargs: Any, join: Callable[[Any, Any], Any]
) -> Any:
    """Take gradients of the mix, unless they are part of a loss themselves.

    Args:
        step: The step.
        func: The function; of another than a derivative nothing is made.
        args: Its arguments.
        kwargs: Its arguments by keyword.
        join: Pairs the gradients of both sides.
    """
    is_backward = func in (Tensor.backward, torch.autograd.backward)
    if not is_backward and func is not torch.autograd.grad:
        return NotImplemented
    step.went_backward = True
    if step.notes is not None:
        step.notes.meetings |= notes_of(paired_in(args[:1]))
    if is_backward:  # not by way of on_own_value: an autograd.Function's backward still forks
        return func(*ordinary(args[:1]), *mixes(args[1:]), **mixes(kwargs))
    if not kwargs.get("create_graph") and any(map(step.owns, tensors_in(args[1:2]))):
        return func(*ordinary(args[:2]), *mixes(args[2:]), **mixes(kwargs))
    step.gave_paired = True
    with_graph = {**kwargs, "retain_graph": True}  # both sides hang on one network
    first, second = func(*side(args, 0), **with_graph), func(*side(args, 1), **kwargs)
    return join(first, second)


def mix_gradients(step: Step, optimizer: Optimizer) -> None:
    """Leave an optimizer the mix of each gradient that was put there paired."""
    if step.went_backward and not step.gave_paired:
        return  # none was made by hand
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and pair_of(parameter.grad) is not None:
                parameter.grad = mixes(parameter.grad)
                step.went_backward = True


def communicate(func: Function, args: Any, kwargs: Any) -> Any:
    """Call a collective once, with own values; what it writes into is ordinary from then on."""
    written = args[:1] or kwargs.get("tensor")
    answer = on_own_value(func, ordinary(args), {key: ordinary(kwargs[key]) for key in kwargs})
    if receives(func):
        for tensor, _ in paired_in(written):
            become_ordinary(tensor)
    return answer


def hooked(tensor: Tensor, hook: Callable[[Tensor], Any]) -> "Handles":
    """Call a hook with each gradient that a paired tensor gets, on whichever way."""
    handles = [side(tensor, index).register_hook(hook) for index in (0, 1)]
    if isinstance(pair_of(tensor), LatePair):  # whose own value was computed beside them
        handles.append(on_own_value(Tensor.register_hook, (tensor, hook), {}))
    return Handles(handles)


class Handles(tuple[RemovableHandle, ...]):
    """The handles of one hook on several tensors."""

    __slots__ = ()

    def remove(self) -> None:
        """Take the hook off all of them."""
        for handle in self:
            handle.remove()


def count_own(func: Function, args: Any, kwargs: Any) -> Any:
    """Run a function of a metric on own labels, and watch what it gives."""
    counted = func(*plain(side(args, 0)), **plain(side(kwargs, 0)))
    for _, pair in paired_in(args, kwargs):
        if pair.step.notes is not None:
            watch_metric(pair.step.notes, counted)
    return counted


def copies_of_states(step: Step, args: Any) -> tuple[Any, ...]:
    """Arguments with a copy of each state of the model, for a function that writes into them."""
    are_states = [isinstance(each, Tensor) and step.owns(each) for each in args]
    return tuple(
        each.clone() if is_state else each for each, is_state in zip(args, are_states, strict=True)
    )


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
    if reshapes_in_place(func):
        pair.kind = pair.kind._replace(has_rows=keeps_samples(func, args, pair.first, found))
    for tensor, other in _aliases(pair):
        if not reshapes_in_place(func):
            give_partners_rows(other)
        _refresh(tensor, other)


def _aliases(pair: Pair) -> Iterator[tuple[Tensor, Pair]]:
    """The paired tensors that lie on the memory of a pair, its own one as well."""
    for tensor in pair.step.tracked():
        other = pair_of(tensor)
        if other is pair or (other is not None and _is_alias(tensor, other, pair)):
            yield tensor, other


def _is_alias(tensor: Tensor, pair: Pair, other: Pair) -> bool:
    return shares_storage(pair.first, other.first) and not is_opaque(tensor, pair)


def _write_ordinary(step: Step, func: Function, args: Any, kwargs: Any) -> Pair:
    written, *others = args
    if written._is_view() or shares_memory(written):
        raise in_place(
            func, "into memory that other tensors may share", "write into a .clone(), or anew"
        )
    found = paired_in(others, kwargs)
    opaque = any(is_opaque(*each) for each in found)
    if opaque:
        refuse_nonlinear(func, args)
    rows = written.shape[:1] == step.plan.partner.shape
    with torch.enable_grad():  # under no_grad the values change, but the history stays
        pair = Pair(written.clone(), written.clone(), step, Kind(opaque, has_rows=rows))
    on_both_sides(func, (pair, *others), kwargs)
    pair.is_mixed = are_scalars(found)
    _refresh(written, pair)
    return pair


def _refresh(own: Tensor, pair: Pair) -> None:
    # the own value of an integer shares its memory with the first, unless it was ordinary before
    if own.data_ptr() != pair.first.data_ptr():
        value = own_value(pair, is_scalar=pair.is_mixed)
        on_own_value(Tensor.copy_, (own, value), {})
