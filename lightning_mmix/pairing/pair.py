"""What a paired tensor carries, and the one value that others see of it."""

import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_mmix.core.kernels import interpolate
from lightning_mmix.pairing.step import Step
from lightning_mmix.watch.notes import NOTHING


class Kind(NamedTuple):
    """What is known of a paired tensor.

    Attributes:
        is_opaque: Whether both sides hang on one graph node, the output of an autograd.Function.
        is_scalar: Whether they were computed from numbers that are mixed already, as a loss is.
        is_data: Whether it is the target, or a copy of some of it, and not computed from it.
        has_rows: Whether it has a row for each sample, as far as functions show.
        is_state: Whether it is what a network makes of embedded labels, and no loss yet.
    """

    is_opaque: bool = False
    is_scalar: bool = False
    is_data: bool = False
    has_rows: bool = False
    is_state: bool = False


TARGET = Kind(is_data=True, has_rows=True)
COMPUTED = Kind()


class Pair:
    """What a paired tensor carries.

    Attributes:
        step: The step that it belongs to.
        kind: What is known of it.
        is_opaque: As in its kind; what is written into it may make it so later.
        is_mixed: Whether the tensor's own value is the mix of the sides.
        notes: Which other entries of the batch it was computed from, in a step that is watched.
        sides: What was computed from y, and what from y[partner].
    """

    is_opaque = is_mixed = False
    notes = NOTHING

    def __init__(self, first: Tensor, second: Tensor, step: Step, kind: Kind = COMPUTED) -> None:
        self.step = step
        self.kind = kind
        self.sides = (first, second)
        if kind.is_opaque:
            self.is_opaque = True

    @property
    def first(self) -> Tensor:
        """What was computed from y."""
        return self.sides[0]

    @property
    def second(self) -> Tensor:
        """What was computed from y[partner]."""
        return self.sides[1]

    def __getitem__(self, index: int) -> Tensor:
        return self.sides[index]

    def replace(self, second: Tensor) -> None:
        """Take another second side."""
        self.sides = (self.first, second)


class LatePair(Pair):
    """The pair of what was computed alone: its sides are, if someone asks.

    Most losses are only trained on, and Trainers scale, copy and detach each, and then look at the
    mix alone.

    Args:
        source: Of what the sides are computed.
        change: Makes one side of one of the source's, and of each of the others'.
        others: More of it.
    """

    is_mixed = True
    kind = COMPUTED
    _is_settled = False

    def __init__(self, source: Pair, change: Callable[..., Tensor], *others: Pair) -> None:
        self.step = source.step
        if source.notes or others:
            self.notes = NOTHING.union(source.notes, *(other.notes for other in others))
        self._source, self._others = source, others
        self._change = change
        self._has_graph = torch.is_grad_enabled()
        self.step.late.append(weakref.ref(self))

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """The sides, which are computed the first time."""
        self.settle()
        return self._sides

    @sides.setter
    def sides(self, sides: tuple[Tensor, Tensor]) -> None:
        self._is_settled, self._sides = True, sides

    def settle(self) -> None:
        """Compute the sides, unless they were."""
        late: list[LatePair] = []
        pair: Pair = self
        while isinstance(pair, LatePair) and not pair._is_settled:  # of a long chain, one by one
            late.append(pair)
            pair = pair._source
        for pair in reversed(late):
            first, second = zip(
                *(each.sides for each in (pair._source, *pair._others)), strict=True
            )
            with torch.set_grad_enabled(pair._has_graph):
                pair.sides = pair._change(*first), pair._change(*second)


def pair_of(tensor: Tensor) -> Pair | None:
    """The pair that a tensor carries as long as its step is not over."""
    pair: Pair | None = getattr(tensor, "pair", None)
    return None if pair is None or pair.step.closed else pair


def own_value(pair: Pair, *, is_scalar: bool = False) -> Tensor:
    """What code that knows nothing of pairs sees: the mix, or the first where there is none.

    Args:
        pair: The two sides.
        is_scalar: Whether they were computed from numbers that are mixed already, as a loss is:
            such a value is the mix also while gradients are off, so that what is logged is what
            was trained on.
    """
    first, second, step = pair.first, pair.second, pair.step
    pair.is_mixed = False
    if step.side is not None:
        return pair[step.side].clone()
    if not (first.is_floating_point() or first.is_complex()):
        return first.detach()
    # masked by the target, the sides may differ in shape: only what is made of them can be mixed
    can_mix = first.shape == second.shape and first.layout == torch.strided
    is_mix = step.is_mixing or (step.fired and is_scalar)
    if pair.kind.is_data or not is_mix or not can_mix:
        return first.clone()
    pair.is_mixed = step.formed = True
    return interpolate(first, second, step.lam)


def is_opaque(tensor: Tensor, pair: Pair) -> bool:
    """Whether both sides of a paired tensor hang on one graph node."""
    if pair.is_opaque or not tensor.requires_grad:
        return pair.is_opaque
    first, second = pair.sides
    return not (first.requires_grad or second.requires_grad)
