"""Lending: what a step borrows of its batch, and how that changes until the step is over."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.operation import mix_by, paste_by, pasted_by
from lightning_mmix.core.paste import Space, mask_of, paste, paste_where
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.core.space import Channels, input_space, positions, space_dims, space_of
from lightning_mmix.core.trees import describe
from lightning_mmix.pairing.pair import TARGET, Pair
from lightning_mmix.pairing.partners import rows_of
from lightning_mmix.pairing.refusals import refuse_target
from lightning_mmix.pairing.step import Step
from lightning_mmix.pairing.tensor import become_paired

_UNKNOWN = Channels()


def borrow(
    step: Step,
    targets: Sequence[Tensor],
    value: Tensor | None = None,
    channels: Channels = _UNKNOWN,
) -> None:
    """Lend a step its batch: the very tensors change, until the step is closed.

    If the plan's layer is ``"input"`` the data of the input is exchanged for the mixed data.
    Targets become paired; but those that have a value for each position of the input, as masks,
    are pasted as the plan's box says, and with own labels all stay as they are.

    Args:
        step: The step; its plan says who is whose partner.
        targets: Each of shape (B, ...).
        value: The input, of shape (B, ...).
        channels: What is known of the channels of the input.

    Raises:
        ValueError: If a tensor is not as long as the plan, the input is needed and missing, or has
            no space for a box, or a target requires a gradient, is compressed or nested, or is the
            input.
        TypeError: If the input to be mixed is not floating point.
    """
    plan, size = step.plan, step.plan.partner.shape[0]
    for target in targets:
        refuse_target(target, value)
        _refuse_other_size(target, size)
    if plan.box is not None or plan.layer == INPUT:
        _take_input(step, value, channels)
    if plan.lam.ndim == 0:
        lend = _pair if plan.box is None else _lend
        for target in targets:
            lend(step, target)


class Pasting:
    """Gives the hidden states of a layer their partners' positions.

    Args:
        name: The layer's.
        step: The step, whose plan has a box.
        edges: Of the box, beside the partners.
        channels: What is known of the channels of the layer's output.
        is_traced: Whether in a graph, which is to serve for any box.

    Attributes:
        space: The sizes of the space of what was pasted, None before.
    """

    def __init__(
        self, name: str, step: Step, edges: Tensor, channels: Channels, *, is_traced: bool
    ) -> None:
        self.space: Space | None = None
        self._name = name
        self._step = step
        self._edges = edges
        self._channels = channels
        self._is_traced = is_traced

    def __call__(self, hidden: Tensor, dim: int) -> Tensor:
        """Paste a hidden state with the samples along ``dim``."""
        rows = hidden.transpose(0, dim) if dim else hidden
        dims = space_dims(rows, self._channels, f"layer {self._name!r} puts out")
        space = space_of(rows, dims)
        if self.space is not None and space != self.space:
            raise ValueError(
                f"layer {self._name!r} puts out hidden states with {self.space} and {space} "
                "positions, which a box cuts into different shares; mix another layer"
            )
        if self._step.pastes:
            _refuse_other_positions(self._name, space, self._step.input_space)
        self.space = space
        edges = self._edges if self._is_traced else None
        pasted = paste_by(self._step.plan, rows, dims, edges)
        return pasted.transpose(0, dim) if dim else pasted

    def of_states(self, module: nn.Module) -> Callable[[Tensor, int], Tensor] | None:
        """How to paste the last states of a recurrent layer, after its sequence; None of others.

        They belong to the last position, or to the first one if they came from the other side, and
        come from whoever that position does.
        """
        if not isinstance(module, nn.RNNBase):
            return None

        return partial(self._paste_states, num_directions=2 if module.bidirectional else 1)

    def _paste_states(self, states: Tensor, dim: int, num_directions: int) -> Tensor:
        rows, plan = states.transpose(0, dim), self._step.plan
        mask = mask_of(self._edges.to(states.device), self.space or ())
        ends = torch.stack([mask[-1], mask[0]][:num_directions])
        ends = ends.repeat(rows.shape[1] // num_directions)
        return paste_where(rows, ends, plan.partner.to(states.device), (1,)).transpose(0, dim)


def pasted_as(plan: MixPlan, target: Tensor) -> Tensor | None:
    """A target with its partner's values in the box of a plan whose layer has run.

    Args:
        plan: With a region.
        target: Shape (B, ...).

    Returns:
        None if it has no value for each position of the input, so that it is to be paired.

    Raises:
        ValueError: If the layer has other positions than the target.
    """
    known = None if plan.region is None else plan.region.input_space
    dims = positions(target, known)
    if not dims or plan.region is None:
        return None
    _refuse_other_positions(plan.layer, plan.region.space, known)
    return target if plan.region.is_lent else paste(target, plan.region, plan.partner, dims)


def refuse_no_positions(target: Tensor, space: Space | None) -> None:
    """Refuse a target of more than two dimensions that has no value for each of the positions.

    Args:
        target: Shape (B, ...).
        space: The sizes of the input's space; None if they aren't known.

    Raises:
        ValueError: If it is so: a box can't be pasted into it, and may have to be.
    """
    if target.dim() < 3 or positions(target, space):
        return
    known = "is not recognised: input=<key, index or path>" if space is None else f"has {space}"
    raise ValueError(
        f"expected a target with a value for each position of the input, which {known}, but got "
        f"{describe(target)}; bring both to one size, or use kind='mixup'"
    )


def _refuse_other_positions(name: str, space: Space, input_space: Space | None) -> None:
    if space != input_space:
        raise ValueError(
            f"layer {name!r} puts out {space} positions, and the target, which takes its partner's "
            f"values in the same box, has {input_space}; mix layers=['input'] or a layer with as "
            "many, or use kind='mixup'"
        )


def _refuse_other_size(tensor: Tensor, size: int) -> None:
    if tensor.ndim == 0 or tensor.shape[0] != size:
        raise ValueError(
            f"expected a tensor of shape ({size}, ...) for a plan of {size} samples, "
            f"but got {tuple(tensor.shape)}"
        )


def _take_input(step: Step, value: Tensor | None, channels: Channels) -> None:
    """Learn its space for a box, and exchange its data if it is to be mixed."""
    is_mixed = step.plan.layer == INPUT
    if value is None:
        if is_mixed:
            raise ValueError("the plan mixes the input, but none was given: input=<tensor>")
        return
    if is_mixed:
        _refuse_other_size(value, step.plan.partner.shape[0])
    if step.plan.box is not None:
        step.input_space = _input_space(step, value, channels)
    if is_mixed:
        _exchange(step, value, channels)


def _input_space(step: Step, value: Tensor, channels: Channels) -> Space | None:
    if step.plan.layer == INPUT:
        return space_of(value, space_dims(value, channels, "the input is"))
    return input_space(value, channels)


def _exchange(step: Step, value: Tensor, channels: Channels) -> None:
    if step.plan.kind == "cutmix":
        dims = space_dims(value, channels, "the input is")
        mixed = paste_by(step.plan, value.detach(), dims)
        step.space = step.input_space
    else:
        mixed = mix_by(step.plan, value.detach())
    step.exchange(value, mixed)
    step.fired = True


def _lend(step: Step, target: Tensor) -> None:
    refuse_no_positions(target, step.input_space)
    if dims := positions(target, step.input_space):
        _paste(step, target, dims)
    else:
        _pair(step, target)


def _paste(step: Step, target: Tensor, dims: tuple[int, ...]) -> None:
    step.exchange(target, pasted_by(step.plan, target.detach(), dims))
    step.pastes = True


def _pair(step: Step, target: Tensor) -> None:
    first, partner = target.detach(), step.plan.partner
    second = first.index_select(0, partner) if first.is_cpu else rows_of(first, partner)
    if step.side:
        step.exchange(target, second)
    else:
        step.lent.append((target, type(target), None))
    become_paired(target, Pair(first, second, step, TARGET))
    step.pairs = True
