"""Writes in place: of what is paired, and into it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.pairing.arguments import (
    are_floating,
    are_scalars,
    mixes,
    on_both_sides,
    on_own_value,
    paired_in,
    side,
)
from lightning_mmix.pairing.pair import Kind, Pair, is_opaque, own_value, pair_of
from lightning_mmix.pairing.partners import give_partners_rows, keeps_samples
from lightning_mmix.pairing.refusals import in_place, refuse_nonlinear
from lightning_mmix.pairing.step import Step, shares_memory, shares_storage
from lightning_mmix.watch.functions import Function, exchanges_memory, reshapes_in_place


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
