"""Partners: whose target it is, where a step changes its rows before the layer has run."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.pairing.arguments import tensors_in
from lightning_mmix.pairing.pair import Pair, pair_of
from lightning_mmix.watch.functions import Function, joins, keeps_rows, may_move_rows


def keeps_samples(func: Function, args: Any, result: Any, found: list[tuple[Tensor, Pair]]) -> bool:
    """Whether a function's result has a row for each sample, as the target has.

    Args:
        func: The function.
        args: Its arguments.
        result: What it made of the first sides.
        found: The paired tensors among its arguments.
    """
    step = found[0][1].step
    if not isinstance(result, Tensor) or result.shape[:1] != step.plan.partner.shape:
        return False
    is_of_rows = any(pair.kind.has_rows for _, pair in found)
    return joins(func) or (is_of_rows and keeps_rows(func, args))


def of_partners(
    func: Function, args: Any, first: Tensor, second: Tensor, partner: Tensor
) -> Tensor:
    """The second side of a result that has a row for each sample, before the layer has run.

    A step may flip some of the samples, sort them, or normalise each target by its own input. The
    partner's target is then what was made of the partner's, and not what the same function makes
    of it in the sample's place: rows of the first side, permuted. Where the function has followed
    the permutation, along whichever dimensions, or does not depend on it, its result stays.

    Args:
        func: The function.
        args: Its arguments.
        first: What it made of the first sides, of shape (B, ...).
        second: What it made of the second ones.
        partner: Shape (B,), int64.
    """
    if first.requires_grad or first.layout is not torch.strided or first.shape != second.shape:
        return second
    if not (may_move_rows(func) or joins(func) or _is_beside_rows(args, first)):
        return second
    return _chosen(first, second, partner)


def rows_of(tensor: Tensor, partner: Tensor, dim: int = 0) -> Tensor:
    """A tensor with the partner's row in the place of each, along ``dim``."""
    return tensor.index_select(dim, partner.to(tensor.device))


def choose_alike(func: Function, args: Any, first: Tensor, second: Tensor) -> bool:
    """Whether both sides choose the same of what is ordinary and has a row for each sample.

    Args:
        func: The function.
        args: Its arguments.
        first: What it chose by the first sides.
        second: What it chose by the second ones.
    """
    chosen = args[0] if may_move_rows(func) and args else None
    if not isinstance(chosen, Tensor) or pair_of(chosen) is not None or chosen.requires_grad:
        return False
    return chosen.shape[:1] == first.shape[:1] and bool(torch.equal(first, second))


def give_partners_rows(pair: Pair) -> None:
    """Give the second side of what was written into the partner's rows, if the layer has not run.

    Of the target it is the partner's rows of the first side, also while it is written row by row;
    of what was computed it is so if the write has not followed the permutation.

    Args:
        pair: After the write to both sides.
    """
    if pair.step.fired or not pair.kind.has_rows or pair.second.requires_grad:
        return
    partner = pair.step.plan.partner
    if pair.kind.is_data:
        rows = rows_of(pair.first, partner)
    else:
        rows = _chosen(pair.first, pair.second, partner)
    layout = zip(pair.second.shape, pair.second.stride(), strict=True)
    if any(size > 1 and stride == 0 for size, stride in layout):  # an expanded view
        pair.replace(rows)
    else:  # views of it follow
        pair.second.copy_(rows)


def _chosen(first: Tensor, second: Tensor, partner: Tensor) -> Tensor:
    has_followed = torch.stack([_are_close(second, each) for each in _permuted(first, partner)])
    # decided where the values lie: to look at them would wait for a GPU
    return torch.where(has_followed.any(), second, rows_of(first, partner))


def _is_beside_rows(args: Any, first: Tensor) -> bool:
    """Whether something ordinary with a row for each sample takes part."""
    return any(
        tensor.shape[:1] == first.shape[:1] and pair_of(tensor) is None
        for tensor in tensors_in(args)
    )


def _permuted(first: Tensor, partner: Tensor) -> Iterator[Tensor]:
    dims = [dim for dim, size in enumerate(first.shape) if size == len(partner)]
    for count in range(len(dims) + 1):
        for some in combinations(dims, count):
            permuted = first
            for dim in some:
                permuted = rows_of(permuted, partner, dim)
            yield permuted


def _are_close(one: Tensor, other: Tensor) -> Tensor:
    are_same = (one == other) | ((one != one) & (other != other))  # noqa: PLR0124 - of NaN
    if not (one.is_floating_point() or one.is_complex()):
        return are_same.all()
    # up to rounding, on the scale of a column's values, which may all be tiny
    size = other.abs().nan_to_num(0, 0, 0)
    least = 4 * torch.finfo(one.dtype).eps * size.amax(0)
    return (are_same | ((one - other).abs() <= 1e-5 * size + least)).all()
