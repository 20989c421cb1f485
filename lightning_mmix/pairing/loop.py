"""Targets: borrowed from the batch as paired tensors, and the mixed loss in plain sight."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from lightning_mmix.core.kernels import interpolate
from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.operation import mix_by
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.pairing.arguments import is_paired
from lightning_mmix.pairing.pair import Pair
from lightning_mmix.pairing.step import Step
from lightning_mmix.pairing.tensor import become_paired


def borrow(step: Step, targets: Sequence[Tensor], value: Tensor | None = None) -> None:
    """Lend a step its batch: the very tensors change, until the step is closed.

    Args:
        step: The step; its plan says who is whose partner.
        targets: Each of shape (B, ...): they become paired.
        value: The input, of shape (B, ...). If the plan's layer is ``"input"`` its data is
            exchanged for the mixed data.

    Raises:
        ValueError: If a tensor is not as long as the plan, the input is needed and missing, or a
            target requires a gradient or is the input.
        TypeError: If the input to be mixed is not floating point.
    """
    if any(target is value for target in targets):
        raise ValueError("the target is the input as well; give the one or the other a .clone()")
    if any(target.requires_grad for target in targets):
        raise ValueError("expected a target without gradient, but got one that requires it")
    mixed = [_needed(value)] if step.plan.layer == INPUT else []
    _refuse_other_sizes([*targets, *mixed], step.plan.partner.shape[0])
    for tensor in mixed:
        _exchange(step, tensor)
    for target in targets:
        _pair(step, target)


def mixed_loss(
    criterion: Callable[[Any, Any], Tensor], prediction: Any, target: Any, plan: MixPlan | None
) -> Tensor:
    """λ·criterion(prediction, target) + (1 - λ)·criterion(prediction, target[partner]).

    The loss of Verma et al. (2019), equation 1, for any criterion, also one that is no linear
    function of its target.

    Args:
        criterion: Takes prediction and target and returns a loss of any shape.
        prediction: What the criterion takes; the network's output for mixed hidden states.
        target: A tensor of shape (B, ...), or a container of such tensors.
        plan: The plan that mixed the hidden states; None for the plain loss.

    Returns:
        The mixed loss, shaped like the criterion's.

    Example:
        >>> import torch
        >>> from torch import tensor
        >>> plan = MixPlan("input", lam=tensor(0.75), partner=tensor([1, 0]))
        >>> criterion = torch.nn.CrossEntropyLoss(weight=tensor([1.0, 3.0]))
        >>> mixed_loss(criterion, tensor([[0.0, 0.0], [2.0, 0.0]]), tensor([0, 1]), plan)
        tensor(1.4643)
    """
    # the callback's paired target knows both sides already
    if plan is None or is_paired(target):
        return criterion(prediction, target)

    def partners(leaf: Any) -> Any:
        return leaf[plan.partner.to(leaf.device)] if isinstance(leaf, Tensor) else leaf

    first = criterion(prediction, target)
    second = criterion(prediction, tree_map(partners, target))
    return interpolate(first, second, plan.lam)


def _needed(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the plan mixes the input, but none was given: input=<tensor>")
    return value


def _refuse_other_sizes(tensors: list[Tensor], size: int) -> None:
    for tensor in tensors:
        if tensor.shape[:1] != (size,):
            raise ValueError(
                f"expected a tensor of shape ({size}, ...) for a plan of {size} samples, "
                f"but got {tuple(tensor.shape)}"
            )


def _exchange(step: Step, value: Tensor) -> None:
    mixed = mix_by(step.plan, value.detach())
    step.lend(value, data=value.detach())
    value.data = mixed
    step.fired = True


def _pair(step: Step, target: Tensor) -> None:
    first = target.detach()
    second = first.index_select(0, step.plan.partner.to(target.device))
    if target.is_floating_point() or target.is_complex():
        step.lend(target, data=first)
        target.data = interpolate(first, second, step.plan.lam)
    else:
        step.lend(target)
    become_paired(target, Pair(first, second, step))
