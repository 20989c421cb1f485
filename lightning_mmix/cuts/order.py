"""The order of the rows: whether layers put out those of the batch, as they stand there."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.trees import entries, mapped, tensors
from lightning_mmix.cuts.recording import Watch
from lightning_mmix.cuts.rows import TOLERANCE, Rows, folds
from lightning_mmix.cuts.signal import is_signal
from lightning_mmix.cuts.sites import TURN_BATCH, Why, not_first

_APART = 0.5  # rounding is far below, and what belongs to another sample is about 1


@dataclass(frozen=True)
class Seen:
    """What a forward pass showed of the rows.

    Attributes:
        layers: The rows of the input and of each layer's hidden states.
        outputs: Those of the network's outputs.
        totals: The outputs that are one number, as a loss is.
        seconds: The outputs that have the rows first, along their second dimension, if that is of
            another size.
    """

    layers: Mapping[str, list[Rows]]
    outputs: list[Rows]
    totals: list[float]
    seconds: list[Rows]

    @classmethod
    def of(cls, watch: Watch, first: Tensor | None, outputs: Iterable[Tensor]) -> "Seen":
        """What a watch saw, with the input and those outputs that may hold the batch."""
        size, every = watch.size, list(outputs)
        if first is not None and size in first.shape[:2]:
            watch.keep(INPUT, first)
        held = [output for output in every if size in output.shape[:2]]
        if not held:
            held = [fold for output in every for fold in folds(output, size) or ()]
        totals = [float(output.detach().abs()) for output in every if not output.dim()]
        turned = [o for o in every if o.shape[:1] == (size,) and _has_second(o, size)]
        seconds = [Rows.of(output, output.shape[1], dim=1) for output in turned]
        return cls(watch.rows, [Rows.of(output, size) for output in held], totals, seconds)

    @property
    def eps(self) -> float:
        """Of the coarsest rounding that there was."""
        every = [*self.outputs, *(rows for layer in self.layers.values() for rows in layer)]
        return max((rows.eps for rows in every), default=0.0)


_SORT = "if forward sorts the batch, do that in on_after_batch_transfer"
NOTHING = Seen({}, [], [], [])


def reasons(before: Seen, inputs: Any, size: int, run: Callable[[Any], Seen]) -> dict[str, Why]:
    """Why layers can't be mixed, as their rows don't stay those of the batch.

    The inputs are moved on by one row, and the hidden states should move with them. They are judged
    only if the network's output moves, too, or has the same rows in some order, or is a loss that
    stays the same; with noise it is not so. If it is not so, time may come first in the inputs,
    and they are moved on along their second dimension.

    Args:
        before: What a pass with the inputs showed.
        inputs: Of the network.
        size: B, their number of rows.
        run: Makes a pass with other inputs; what it shows may be nothing.

    Returns:
        Layer → reason, for those that put out other samples' rows.
    """
    moved = _moved_on(inputs, size)
    after = NOTHING if moved is inputs else run(moved)
    # what has other rows, as the nodes of graphs, has not moved on
    is_moved = all(t.shape[:1] == (size,) for t in tensors(inputs) if is_signal(t))
    if _stays(before, after, size) or (is_moved and _is_same_loss(before, after)):
        return _refused(before, after)
    if any(tensor.shape[1:2] == (size,) for tensor in tensors(inputs)):
        turned = run(_moved_on(inputs, size, dim=1))
        if _follows(before, turned, size) or _is_same_loss(before, turned):
            return _refused(before, turned)
        if _follows(before, turned, size, dim=1):
            return _refused(before, turned, size if _pairs(before, turned, size) else None)
    elif before.seconds and _moves_second(before, run(_second_moved_on(inputs, size))):
        return _refused(before, after, before.seconds[0].shape[1])
    is_shuffled = _is_all_rows(inputs, size) and _is_shuffled(before, after, size)
    return _refused(before, after) if is_shuffled else {}


@contextmanager
def other_noise(outputs: Iterable[Tensor]) -> Iterator[None]:
    """Draw some random numbers where there are outputs, so that noise is not what it was."""
    for output in outputs:
        torch.rand(7, device=output.device)
    yield


def _moved_on(inputs: Any, size: int, dim: int = 0) -> Any:
    """The inputs, the batch moved on by one: along ``dim`` if it may be there, else in front."""
    order = torch.arange(size).roll(1)

    def move(tensor: Tensor) -> Tensor:
        if dim == 1 and tensor.shape[1:2] == (size,):
            return tensor[:, order]
        return tensor[order] if tensor.shape[:1] == (size,) else tensor

    return mapped(inputs, move)


def _second_moved_on(inputs: Any, size: int) -> Any:
    """The inputs moved on by one along the second dimension, if samples should stand there."""
    return mapped(inputs, lambda t: t.roll(1, 1) if t.shape[:1] == (size,) and t.dim() > 1 else t)


def _has_second(tensor: Tensor, size: int) -> bool:
    return tensor.dim() > 1 and tensor.numel() > 0 and tensor.shape[1] not in (1, size)


def _moves_second(before: Seen, after: Seen) -> bool:
    """Whether all outputs have moved on along their second dimension, of whatever size."""
    if len(before.seconds) != len(after.seconds):
        return False
    eps = max(before.eps, after.eps)
    pairs = zip(before.seconds, after.seconds, strict=True)
    found = [one.deviation(other, eps) for one, other in pairs]
    return all(deviation is not None and deviation < TOLERANCE for deviation in found)


def _follows(before: Seen, after: Seen, size: int, dim: int = 0) -> bool:
    """Whether all outputs that may have the batch along ``dim``, and tell, are moved on."""
    found = [
        one.deviation(other, max(before.eps, after.eps), dim)
        for one, other in _pairs(before, after, size, dim)
    ]
    known = [deviation for deviation in found if deviation is not None]
    return bool(known) and all(deviation < TOLERANCE for deviation in known)


def _stays(before: Seen, after: Seen, size: int) -> bool:
    """Whether the outputs move with the batch, wherever they have it."""
    return _follows(before, after, size) or _follows(before, after, size, dim=1)


def _is_same_loss(before: Seen, after: Seen) -> bool:
    if before.outputs or not before.totals or len(before.totals) != len(after.totals):
        return False
    eps = max(before.eps, after.eps)
    pairs = zip(before.totals, after.totals, strict=True)
    return all(math.isclose(one, other, rel_tol=math.sqrt(eps)) for one, other in pairs)


def _is_shuffled(before: Seen, after: Seen, size: int) -> bool:
    pairs = _pairs(before, after, size)
    eps = max(before.eps, after.eps)
    return bool(pairs) and all(one.are_shuffled(other, eps) for one, other in pairs)


def _pairs(before: Seen, after: Seen, size: int, dim: int = 0) -> list[tuple[Rows, Rows]]:
    """The outputs that may have the batch along ``dim``, before and after."""
    if len(before.outputs) != len(after.outputs):
        return []
    pairs = zip(before.outputs, after.outputs, strict=True)
    return [pair for pair in pairs if pair[0].shape[dim : dim + 1] == (size,)]


def _refused(before: Seen, after: Seen, turned: int | None = None) -> dict[str, Why]:
    """Layer → why; all layers, if time passes for the batch, of that size, in the output, too."""
    if turned is not None:
        first = {name: rows[0].shape for name, rows in before.layers.items()}
        return {name: Why(not_first(first[name], turned).reason, TURN_BATCH) for name in first}
    much = math.sqrt(max(before.eps, after.eps))  # so that rounding is small beside it
    found = {
        name: _why(rows, after.layers.get(name, []), much) for name, rows in before.layers.items()
    }
    return {name: why for name, why in found.items() if why is not None}


def _why(before: list[Rows], after: list[Rows], much: float) -> Why | None:
    if len(before) != len(after):  # it runs another number of times
        return None
    for one, other in zip(before, after, strict=True):
        deviation, turned = one.deviation(other, much), one.deviation(other, much, dim=1)
        if deviation is not None and deviation >= _APART:
            is_turned = turned is not None and turned < _APART
            another = Why("has its rows in another order than the batch", _SORT)
            return not_first(one.shape, one.shape[1]) if is_turned else another
    return None


def _is_all_rows(tree: Any, size: int) -> bool:
    """Whether there is nothing that has not moved on."""
    if isinstance(tree, Tensor):
        return tree.shape[:1] == (size,)
    parts = entries(tree)
    return bool(parts) and all(_is_all_rows(part, size) for _, part in parts)
