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
from lightning_mmix.cuts.rows import TOLERANCE, Rows, Watch
from lightning_mmix.cuts.signal import is_signal

_APART = 0.5  # rounding is far below, and what belongs to another sample is about 1


@dataclass(frozen=True)
class Seen:
    """What a forward pass showed of the rows.

    Attributes:
        layers: The rows of the input and of each layer's hidden states.
        outputs: Those of the network's outputs.
    """

    layers: Mapping[str, list[Rows]]
    outputs: list[Rows]

    @classmethod
    def of(cls, watch: Watch, inputs: Any, outputs: Iterable[Tensor]) -> "Seen":
        """What a watch saw, with the input and those outputs that may hold the batch."""
        first = next(filter(is_signal, tensors(inputs)), None)
        if first is not None and watch.size in first.shape[:2]:
            watch.keep(INPUT, first)
        held = [output for output in outputs if watch.size in output.shape[:2]]
        return cls(watch.rows, [Rows.of(output, watch.size) for output in held])

    @property
    def eps(self) -> float:
        """Of the coarsest rounding that there was."""
        every = [*self.outputs, *(rows for layer in self.layers.values() for rows in layer)]
        return max((rows.eps for rows in every), default=0.0)


def reasons(before: Seen, inputs: Any, size: int, run: Callable[[Any], Seen]) -> dict[str, str]:
    """Why layers can't be mixed, as their rows don't stay those of the batch.

    The inputs are moved on by one row, and the hidden states should move with them. They are judged
    only if the network's output moves, too, or has the same rows in some order; with noise it has
    not. If it does not move, time may come first in the inputs, so that they are turned.

    Args:
        before: What a pass with the inputs showed.
        inputs: Of the network.
        size: B, their number of rows.
        run: Makes a pass with other inputs; what it shows may be nothing.

    Returns:
        Layer → reason, for those that put out other samples' rows.
    """
    after = run(_moved_on(inputs, size))
    if _follows(before, after, size) or _follows(before, after, size, dim=1):
        return _refused(before, after)
    if any(tensor.shape[1:2] == (size,) for tensor in tensors(inputs)):
        turned = run(_moved_on(inputs, size, dim=1))
        if _follows(before, turned, size):
            return _refused(before, turned)
        if _follows(before, turned, size, dim=1):
            return _refused(before, turned, is_turned=bool(_pairs(before, turned, size)))
    # what is no tensor has not moved on
    is_shuffled = _is_all_tensors(inputs) and _is_shuffled(before, after, size)
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


def _follows(before: Seen, after: Seen, size: int, dim: int = 0) -> bool:
    """Whether all outputs that may have the batch along ``dim``, and tell, are moved on."""
    found = [
        one.deviation(other, max(before.eps, after.eps), dim)
        for one, other in _pairs(before, after, size, dim)
    ]
    known = [deviation for deviation in found if deviation is not None]
    return bool(known) and all(deviation < TOLERANCE for deviation in known)


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


def _refused(before: Seen, after: Seen, *, is_turned: bool = False) -> dict[str, str]:
    """Layer → reason; all layers, if time passes for the batch in the output, too."""
    if is_turned:
        return {name: _not_first(rows[0]) for name, rows in before.layers.items()}
    much = math.sqrt(max(before.eps, after.eps))  # so that rounding is small beside it
    found = {
        name: _reason(rows, after.layers.get(name, []), much)
        for name, rows in before.layers.items()
    }
    return {name: reason for name, reason in found.items() if reason}


def _reason(before: list[Rows], after: list[Rows], much: float) -> str:
    if len(before) != len(after):  # it runs another number of times
        return ""
    for one, other in zip(before, after, strict=True):
        deviation, turned = one.deviation(other, much), one.deviation(other, much, dim=1)
        if deviation is not None and deviation >= _APART:
            is_turned = turned is not None and turned < _APART
            return _not_first(one) if is_turned else "has its rows in another order than the batch"
    return ""


def _not_first(rows: Rows) -> str:
    return f"is not batch-first: {rows.shape}"


def _is_all_tensors(tree: Any) -> bool:
    parts = entries(tree)
    return isinstance(tree, Tensor) or (bool(parts) and all(_is_all_tensors(p) for _, p in parts))
