"""The doors for a loop of one's own: a step within a context, and the mixed loss in plain sight."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lightning_mmix.core.checks import check_values
from lightning_mmix.core.kernels import interpolate
from lightning_mmix.core.layers import select
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.pairing.arguments import is_paired
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.lending import pasted_as
from lightning_mmix.pairing.refusals import idle_layer
from lightning_mmix.pairing.step import Step

_NOT_MIXED = (
    "nothing was mixed; name one that runs, or if the model is compiled make its gates before the "
    "loop, gates = Gates(model, layers), and use mixing(gates, plan, y)"
)


@contextmanager
def mixing(
    model: nn.Module | Gates,
    plan: MixPlan | None,
    target: Tensor | None = None,
    *,
    input: Tensor | None = None,  # noqa: A002 - the word of the callback's argument
) -> Iterator[Tensor | None]:
    """Carry out a plan on a model, in a plain PyTorch loop.

    Within the context the plan's layer is mixed, and what is computed from the yielded target is
    mixed with it. Take the loss inside, and its gradient too: layers that run again for activation
    checkpointing must mix again, and a custom autograd.Function must find the target as it was.

    Args:
        model: Any module. If it is compiled, its :class:`Gates`, made once for all steps: compiled
            code does not look at hooks that come later.
        plan: What to do; None to do nothing.
        target: Shape (B, ...); it becomes a paired tensor until the context ends. With own labels
            it stays as it is, and with a box, if it has a value for each position of the input, as
            a mask, it takes the partner's values in the same box.
        input: The input, needed if the plan's layer is ``"input"``: until the context ends it holds
            the mixed data. With a box also needed for targets that have its positions.

    Yields:
        The target, paired.

    Raises:
        ValueError: If there is no such layer, no input where one is needed, a batch of another
            size than the plan's, or a box and no space for it; if a target was pasted and the layer
            did not run.

    Example:
        >>> import torch
        >>> model, x = nn.Sequential(nn.ReLU()), torch.tensor([[0.0], [1.0]])
        >>> plan = MixPlan("0", torch.tensor(0.75), torch.tensor([1, 0]))
        >>> with mixing(model, plan, target=x.clone()) as y:
        ...     hidden = model(x)
        ...     loss = (hidden - y).abs().mean()
        >>> hidden.tolist(), loss  # 0.75 · 0.25 of the own target, and 0.25 · 0.75 of the partner's
        ([[0.25], [0.75]], tensor(0.3750))
    """
    if plan is None:
        yield target
        return
    check_values(plan.lam, plan.partner)
    name = plan.layer
    gates = (
        model if isinstance(model, Gates) else Gates(model, select(model, [name]), lasting=False)
    )
    try:
        step = gates.arm(Step(plan, gates.model), [] if target is None else [target], input)
        yield target
        if step.pastes and not step.fired:
            raise idle_layer(step)
        if not step.fired:
            warnings.warn(f"layer {name!r} did not run, so {_NOT_MIXED}", stacklevel=3)
    finally:
        gates.disarm()
        if gates is not model:
            gates.remove()


def mixed_loss(
    criterion: Callable[[Any, Any], Tensor], prediction: Any, target: Any, plan: MixPlan | None
) -> Tensor:
    """λ·criterion(prediction, target) + (1 - λ)·criterion(prediction, target[partner]).

    The loss of Verma et al. (2019), equation 1, for any criterion, also one that is no linear
    function of its target. With own labels it is the criterion of the sample's own target. With a
    box, a target with a value for each position of the input takes the partner's in the box.

    Args:
        criterion: Takes prediction and target and returns a loss of any shape.
        prediction: What the criterion takes; the network's output for mixed hidden states.
        target: A tensor of shape (B, ...), or a container of such tensors.
        plan: The plan that mixed the hidden states; None for the plain loss. That of a box as its
            layer was mixed.

    Returns:
        The mixed loss, shaped like the criterion's.

    Raises:
        ValueError: If the plan has a box and its layer hasn't run, or has other positions than a
            target that is pasted.

    Example:
        >>> import torch
        >>> from torch import tensor
        >>> plan = MixPlan("input", lam=tensor(0.75), partner=tensor([1, 0]))
        >>> criterion = torch.nn.CrossEntropyLoss(weight=tensor([1.0, 3.0]))
        >>> mixed_loss(criterion, tensor([[0.0, 0.0], [2.0, 0.0]]), tensor([0, 1]), plan)
        tensor(1.4643)
    """
    # the callback's paired target knows both sides already
    if plan is None or plan.labels == "own" or is_paired(target):
        return criterion(prediction, target)
    if plan.kind == "cutmix" and plan.region is None:
        raise ValueError(
            "expected the plan of a box as its layer was mixed, whose λ is the real one, but got "
            "it as it was drawn; take the callback's plan, or use the target of mixing(model, "
            "plan, y)"
        )
    if plan.box is None and isinstance(target, Tensor):  # most are; a tree takes its time
        first = criterion(prediction, target)
        return interpolate(first, criterion(prediction, _partners(plan, target, None)), plan.lam)
    pasted = tree_map(partial(_pasted, plan), target)
    first = criterion(prediction, tree_map(_own, target, pasted))
    if all(each is not None for each in tree_leaves(pasted)):
        return first
    second = criterion(prediction, tree_map(partial(_partners, plan), target, pasted))
    return interpolate(first, second, plan.lam)


def refuse_unmixed(step: Step) -> None:
    """Refuse a step that is over, and mixed a hidden state and no loss, or a target alone.

    Raises:
        ValueError: If it is so.
    """
    if step.pastes and not step.fired:
        raise idle_layer(step)
    is_mixed = step.formed or step.went_backward or not torch.is_grad_enabled()
    if step.pairs and step.fired and not is_mixed:
        raise ValueError(
            f"the hidden state of layer {step.plan.layer!r} was mixed, but no loss was taken of "
            "the target within the context, so labels are not mixed; take it before the context "
            "ends, of the very target that it yields"
        )


def _pasted(plan: MixPlan, leaf: Any) -> Any:
    """A target that takes its partner's values in a box, or what is no tensor; None of others."""
    return pasted_as(plan, leaf) if isinstance(leaf, Tensor) else leaf


def _own(leaf: Any, pasted: Any) -> Any:
    return leaf if pasted is None else pasted


def _partners(plan: MixPlan, leaf: Any, pasted: Any) -> Any:
    is_paired = isinstance(leaf, Tensor) and pasted is None
    return leaf[plan.partner.to(leaf.device)] if is_paired else pasted
