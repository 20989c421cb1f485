"""The rows of the hidden states: whether they stay those of the batch."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.trees import mapped, tensors
from lightning_mmix.cuts.signal import is_signal

TOLERANCE = 0.01  # of a deviation of the output, which is about 0 if that follows
_PLACES = 1000


@dataclass(frozen=True)
class Rows:
    """A tensor's rows, at about a thousand places of each.

    Attributes:
        values: Of shape (B, places); or (B, B, places), if its next dimension might be the batch.
        shape: That of the tensor.
        eps: Of its rounding.
    """

    values: Tensor
    shape: tuple[int, ...]
    eps: float

    @classmethod
    def of(cls, tensor: Tensor, size: int, dim: int = 0) -> "Rows":
        """The rows of a tensor of which ``dim`` is the batch, or might be for all one knows."""
        shape, eps = tuple(tensor.shape), torch.finfo(tensor.dtype).eps
        if tensor.layout is not torch.strided:  # such as sparse; that does not tell
            return cls(torch.empty(size, 0), shape, eps)
        first = tensor.detach().movedim(dim, 0)
        if first.is_complex():
            first = torch.view_as_real(first.resolve_conj())
        kept = 2 if first.shape[1:2] == (size,) else 1
        flat = first.unsqueeze(kept).flatten(kept)
        step = flat[0].numel() // _PLACES | 1  # odd, so that it goes round all channels
        # a copy, since an operation in place may change the tensor
        return cls(flat[..., ::step].cpu().to(torch.float64, copy=True), shape, eps)

    def deviation(self, after: "Rows", least: float, dim: int = 0) -> float | None:
        """How far one of the rows is at most from these, moved on by one.

        Args:
            after: The rows of a pass with the batch moved on.
            least: How far apart rows have to be to tell, as a share of their length.
            dim: Along which they should have moved.

        Returns:
            The distance, in units of that between the rows. None if they don't tell.
        """
        if dim > self.values.dim() - 2 or after.values.shape != self.values.shape:
            return None
        moved = self.values.roll(1, dim)
        distance = _norms(self.values - moved, dim).square().mean().sqrt()
        if not distance > least * _norms(moved, dim).square().mean().sqrt():
            return None
        return float(_norms(after.values - moved, dim).max() / distance)

    def differ(self, other: "Rows") -> bool:
        """Whether these rows are not those of another pass, by more than rounding."""
        if self.values.shape != other.values.shape:
            return True
        # what a layer takes has more effect, even in half precision
        much = self.eps**0.75 * float(self.values.abs().nan_to_num(0, 0, 0).max())
        return not torch.allclose(self.values, other.values, rtol=0, atol=much, equal_nan=True)

    def are_shuffled(self, after: "Rows", least: float) -> bool:
        """Whether ``after`` has the same rows, in whatever order, if they tell."""
        if self.deviation(after, least) is None:
            return False
        found, rows = after.values.flatten(1), self.values.flatten(1)
        # not by a matrix product, in which small distances are lost
        apart = torch.cdist(found, rows, compute_mode="donot_use_mm_for_euclid_dist")
        nearest, order = apart.min(1)
        is_same = nearest.max() < TOLERANCE * apart.square().mean().sqrt()
        return bool(is_same) and len(set(order.tolist())) == len(order)


def few_rows(inputs: Any, size: int, count: int) -> Any:
    """The inputs cut down to a few rows, of different lengths if there are some.

    Equal lengths would not show that a network sorts by them. Of each length, class or number of
    tokens the first row is preferred.

    Args:
        inputs: Of a network.
        size: Their number of rows.
        count: How many to take.
    """
    whole = [t for t in tensors(inputs) if t.shape[:1] == (size,) and t.layout is torch.strided]
    facts = [t for t in whole if not is_signal(t)]
    lengths = [(t if t.dim() == 1 else (t != 0).flatten(1).sum(1)).tolist() for t in facts]
    first = {kind: row for row, kind in reversed(list(enumerate(zip(*lengths, strict=True))))}
    others = [row for row in range(size) if row not in set(first.values())]
    rows = torch.tensor(sorted([*sorted(first.values()), *others][:count]))
    return mapped(inputs, lambda t: t[rows] if t.shape[:1] == (size,) else t)


def folds(output: Tensor, size: int) -> tuple[Tensor, Tensor] | None:
    """An output of several rows for each sample, with a dimension for the samples.

    Returns:
        It as (B, k, ...), if those of one sample stand together, and as (k, B, ...), if the batch
        is repeated; None if it has not a multiple of B rows, or another dimension may be B.
    """
    times, others = divmod(len(output), size) if output.dim() else (0, 0)
    if times < 2 or others or output.shape[1:2] == (size,):
        return None
    inner = output.shape[1:]
    return output.reshape(size, times, *inner), output.reshape(times, size, *inner)


def deviation(found: list[Tensor], before: list[Tensor], order: Tensor) -> float | None:
    """How far outputs are from those before in an order, in units of the distance to go.

    Returns:
        The largest of them; None if the shapes are others, or no rows tell.
    """
    if [value.shape for value in found] != [value.shape for value in before]:
        return None
    apart = [
        [_distance(f, b[order]) / _distance(b, b[order]) for f, b in pairs if _is_telling(b, order)]
        for pairs in map(zip, _readings(found, order), _readings(before, order))
    ]
    return max(map(min, filter(None, apart)), default=None)


def are_telling(outputs: list[Tensor], order: Tensor) -> bool:
    """Whether the rows of some output differ, and by much more than rounding."""
    return any(_is_telling(each, order) for ways in _readings(outputs, order) for each in ways)


def _readings(outputs: list[Tensor], order: Tensor) -> list[list[Tensor]]:
    """The ways to read each output by samples; of several rows for each only if all are so."""
    if any(output.shape[:1] == order.shape for output in outputs):
        return [[output] for output in outputs]
    both = [folds(output, len(order)) for output in outputs]
    return [[one, other.transpose(0, 1)] for one, other in filter(None, both)]


def _is_telling(before: Tensor, order: Tensor) -> bool:
    if before.shape[:1] != order.shape:
        return False
    much = math.sqrt(torch.finfo(before.dtype).eps) * float(before.abs().max())
    return _distance(before, before[order]) > much


def _norms(tensor: Tensor, dim: int) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(tensor.movedim(dim, 0).flatten(1), dim=1)
    return norms


def _distance(one: Tensor, other: Tensor) -> float:
    exact = torch.complex128 if one.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(one.cpu().to(exact) - other.cpu().to(exact)))
