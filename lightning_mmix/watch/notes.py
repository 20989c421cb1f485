"""Notes: what was noticed in a step, and where."""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_mmix.watch.functions import Function
from lightning_mmix.watch.places import Place, current_place, is_in_metric


@dataclass(frozen=True)
class Note:
    """What a function did, and where it was called.

    Attributes:
        operation: The name of the function.
        place: The line of the user's code.
        entry: The path of an entry of the batch that took part, or :data:`METRIC`; empty if none
            did.
    """

    operation: str
    place: Place
    entry: str = ""

    def __str__(self) -> str:
        return f"{self.operation} at {self.place}"


NOTHING: frozenset[Note] = frozenset()
METRIC = "<metric>"  # stands for an entry of the batch where a metric has counted own labels


class _Step(Protocol):
    fired: bool

    def owns(self, tensor: Tensor) -> bool: ...


class Notes:
    """What is noticed in a step.

    Attributes:
        size: B, the number of samples.
        step: The step.
        inputs: The paths of the batch's input.
        reads: Python values and arrays that were taken of the target, and would be others of the
            partner's.
        moves: What put the rows of an entry into another order before the layer ran.
        meetings: What took entries along with the target into a value of which the gradient was
            taken.
        has_moved_target: Whether the target's rows were put into another order before that, too.

    Example:
        >>> notes = Notes(size=2)
        >>> notes.read(Tensor.tolist, [0, 1], [1, 0])
        >>> [note.operation for note in notes.reads]
        ['tolist']
    """

    def __init__(self, size: int, inputs: Iterable[str] = ()) -> None:
        self.size = size
        self.inputs = frozenset(inputs)
        self.step: _Step | None = None
        self.reads: set[Note] = set()
        self.moves: set[Note] = set()
        self.meetings: set[Note] = set()
        self.has_moved_target = False
        self.lent: list[weakref.ref[Tensor]] = []

    @property
    def has_fired(self) -> bool:
        """Whether the step's layer has run."""
        return self.step is not None and self.step.fired

    def owns(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter, buffer or metric state of the model."""
        return self.step is not None and self.step.owns(tensor)

    def read(self, func: Function, first: Any, second: Any) -> None:
        """Note that a value is taken of the first of two sides, if the second has another."""
        if _differ(first, second) and not is_in_metric():
            self.reads.add(Note(_name(func), current_place()))

    def moved(
        self, func: Function, before: Tensor, after: Tensor, entries: Iterable[str] = ()
    ) -> None:
        """Note that a function has put rows into another order, if it has, and the layer not run.

        Args:
            func: The function.
            before: What it took, with rows.
            after: What it gave.
            entries: Those of the batch whose rows they are; none if they are the target's.
        """
        if self.has_fired or not self._have_moved(before, after):
            return
        if not entries:
            self.has_moved_target = True
        self.moves |= self.meeting(func, entries)

    def meeting(self, func: Function, entries: Iterable[str]) -> frozenset[Note]:
        """What is to be kept of a function that took entries of the batch along with the target."""
        place = current_place()
        return frozenset(Note(_name(func), place, entry) for entry in entries)

    def _have_moved(self, before: Tensor, after: Tensor) -> bool:
        if before.ndim != after.ndim or not before.shape[:1] == after.shape[:1] == (self.size,):
            return False
        old, new = _sums(before), _sums(after)
        return not torch.equal(old, new) and torch.equal(old.sort().values, new.sort().values)


def _sums(rows: Tensor) -> Tensor:
    values = rows.detach().cpu()
    numbers = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    flat = numbers.reshape(len(rows), -1).double()
    # weighted by their places: other for a row that is flipped, and the same for one that is moved
    return (flat * torch.arange(1, flat.shape[1] + 1).cos()).sum(1)


def _differ(first: Any, second: Any) -> bool:
    if not isinstance(first, Tensor):
        return bool(first != second)
    return first.shape != second.shape or not torch.equal(first, second)


def _name(func: Function) -> str:
    owner = getattr(getattr(func, "__self__", None), "__name__", "")
    return f".{owner}" if func.__name__ in ("__get__", "__set__") else func.__name__.strip("_")
