"""What a paired tensor carries, and the one value that others see of it."""

import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_mmix.core.kernels import interpolate
from lightning_mmix.pairing.step import Step


class Pair:
    """What a paired tensor carries.

    Attributes:
        step: The step that it belongs to.
        is_opaque: Whether both sides hang on one graph node, the output of an autograd.Function.
        is_mixed: Whether the tensor's own value is the mix of the sides.
    """

    def __init__(
        self, first: Tensor, second: Tensor, step: Step, *, is_opaque: bool = False
    ) -> None:
        self.step = step
        self.is_opaque = is_opaque
        self.is_mixed = False
        self._sides = (first, second)

    @property
    def first(self) -> Tensor:
        """What was computed from y."""
        return self[0]

    @property
    def second(self) -> Tensor:
        """What was computed from y[partner]."""
        return self[1]

    def __getitem__(self, index: int) -> Tensor:
        return self._sides[index]


class LatePair(Pair):
    """The pair of a number whose own value was computed alone: its sides are, if someone asks.

    Trainers scale, copy and detach each loss, and then look at the mix alone.
    """

    def __init__(self, source: Pair, change: Callable[[Tensor], Tensor]) -> None:
        self.step = source.step
        self.is_opaque = False
        self.is_mixed = True
        self._source = source
        self._change = change
        self._has_graph = torch.is_grad_enabled()
        self._is_settled = False
        self.step.late.append(weakref.ref(self))

    def __getitem__(self, index: int) -> Tensor:
        self.settle()
        return super().__getitem__(index)

    def settle(self) -> None:
        """Compute the sides, unless they were."""
        late: list[LatePair] = []
        pair: Pair = self
        while isinstance(pair, LatePair) and not pair._is_settled:  # of a long chain, one by one
            late.append(pair)
            pair = pair._source
        for pair in reversed(late):
            pair._is_settled = True
            with torch.set_grad_enabled(pair._has_graph):
                pair._sides = pair._change(pair._source[0]), pair._change(pair._source[1])


def pair_of(tensor: Tensor) -> Pair | None:
    """The pair that a tensor carries as long as its step is not over."""
    pair: Pair | None = getattr(tensor, "pair", None)
    return None if pair is None or pair.step.closed else pair


def own_value(pair: Pair, *, is_scalar: bool = False) -> Tensor:
    """What code that knows nothing of pairs sees: the mix, or the first where there is none.

    Which of them it is, the pair notes.

    Args:
        pair: The two sides.
        is_scalar: Whether they were computed from numbers that are mixed already, as a loss is:
            such a value is the mix also while gradients are off, so that what is logged is what
            was trained on.
    """
    first, second, step = pair.first, pair.second, pair.step
    pair.is_mixed = False
    if not (first.is_floating_point() or first.is_complex()):
        return first.detach()
    # masked by the target, the sides may differ in shape: only what is made of them can be mixed
    can_mix = first.shape == second.shape and first.layout == torch.strided
    if not (step.is_mixing or (step.fired and is_scalar)) or not can_mix:
        return first.clone()
    pair.is_mixed = True
    return interpolate(first, second, step.plan.lam)


def is_opaque(tensor: Tensor, pair: Pair) -> bool:
    """Whether both sides of a paired tensor hang on one graph node."""
    needs_grad = pair.first.requires_grad or pair.second.requires_grad
    return pair.is_opaque or (tensor.requires_grad and not needs_grad)
