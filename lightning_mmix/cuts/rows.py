"""The rows of the hidden states: whether they stay those of the batch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_mmix.core.layers import takes_hooks
from lightning_mmix.core.trees import mapped, tensors
from lightning_mmix.cuts.signal import is_signal
from lightning_mmix.pairing.gates import changed

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


class Watch:
    """Watches the rows of layers, within a context, during one forward pass.

    Args:
        modules: The layers, by name.
        size: B, the number of samples.

    Attributes:
        size: The same.
        rows: Those of the hidden states that each layer has put out.
    """

    def __init__(self, modules: Mapping[str, nn.Module], size: int) -> None:
        self.rows: dict[str, list[Rows]] = {}
        self._modules = modules
        self.size = size
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "Watch":
        for name, module in self._modules.items():
            if takes_hooks(module):
                hook = _Hook(self, name)
                # first, where a gate will stand
                handle = module.register_forward_hook(hook, prepend=True, with_kwargs=True)
                self._handles.append(handle)
        return self

    def __exit__(self, *_error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def note(self, name: str, module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Note what a layer puts out, before an in-place operation changes it.

        Returns:
            What it puts out from now on.
        """

        def keep(state: Tensor, dim: int) -> Tensor:
            self.keep(name, state, dim)
            return state

        return changed(module, output, self.size, keep)

    def keep(self, name: str, state: Tensor, dim: int = 0) -> None:
        """Keep the rows of a hidden state."""
        self.rows.setdefault(name, []).append(Rows.of(state, self.size, dim))


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


def deviation(found: list[Tensor], before: list[Tensor], order: Tensor) -> float | None:
    """How far outputs are from those before in an order, in units of the distance to go.

    Returns:
        The largest of them; None if the shapes are others.
    """
    if [value.shape for value in found] != [value.shape for value in before]:
        return None
    pairs = [pair for pair in zip(found, before, strict=True) if are_telling(pair[1], order)]
    return max(_distance(f, b[order]) / _distance(b, b[order]) for f, b in pairs)


def are_telling(before: Tensor, order: Tensor) -> bool:
    """Whether the rows of an output differ, and by much more than rounding."""
    if before.shape[:1] != order.shape:
        return False
    much = math.sqrt(torch.finfo(before.dtype).eps) * float(before.abs().max())
    return _distance(before, before[order]) > much


@dataclass(frozen=True)
class _Hook:
    """The forward hook of one layer."""

    watch: Watch
    name: str

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        return self.watch.note(self.name, module, (args, kwargs), output)


def _norms(tensor: Tensor, dim: int) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(tensor.movedim(dim, 0).flatten(1), dim=1)
    return norms


def _distance(one: Tensor, other: Tensor) -> float:
    exact = torch.complex128 if one.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(one.cpu().to(exact) - other.cpu().to(exact)))
