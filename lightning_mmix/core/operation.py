"""The mixing operation: every sample interpolated with its partner."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.checks import check, check_values
from lightning_mmix.core.kernels import (
    interpolate_few,
    interpolate_partners,
    inverse,
    is_small,
    one_by_one,
    weigh_partners,
)
from lightning_mmix.core.paste import mask_of, paste, paste_where
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.core.space import space_of


def mix(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> Tensor:
    """Mix every sample of a batch with its partner: λ·h + (1 - λ)·h[π].

    This is Mix_λ of Verma et al. (2019), equation 1, on a whole batch. One tensor is allocated
    in the forward pass and one in the backward pass, whose gather goes by the inverse
    permutation. Differentiable in ``hidden`` as often as you like, though not in forward mode;
    works under ``torch.func``'s vmap and grad, autocast and ``torch.compile(fullgraph=True)``.
    Dtype, shape, device and memory format stay as they were.

    Args:
        hidden: Shape (B, ...), floating point or complex.
        lam: λ, 0-d or of shape (B,), in [0, 1]: the weight of the sample itself, the same for all
            or its own. No gradient flows to it.
        partner: π, shape (B,): a permutation of ``range(B)``.

    Returns:
        The mixed batch, shaped like ``hidden``.

    Raises:
        TypeError: If ``hidden`` is integer, boolean, sparse or nested.
        ValueError: If a shape does not fit, λ is out of range or requires a gradient, or
            ``partner`` is no permutation (values are only looked at on the CPU, in eager mode).

    Example:
        >>> mix(torch.tensor([[0.0], [1.0]]), 0.75, torch.tensor([1, 0]))
        tensor([[0.2500],
                [0.7500]])
    """
    check(hidden, lam, partner)
    if not torch.compiler.is_compiling():
        check_values(lam, partner)
    return _mix(hidden, lam, partner)


def mix_by(plan: MixPlan, hidden: Tensor) -> Tensor:
    """:func:`mix` as a plan says, whose values are taken as they are.

    Args:
        plan: The plan.
        hidden: Shape (B, ...), floating point or complex.

    Returns:
        The mixed batch, shaped like ``hidden``.

    Raises:
        TypeError: If ``hidden`` is integer, boolean, sparse or nested.
        ValueError: If a shape does not fit.
    """
    check(hidden, plan.lam, plan.partner)
    return _mix(hidden, plan.lam, plan.partner)


def mixed_quickly(plan: MixPlan, hidden: Tensor, weight: float | Tensor | None) -> Tensor | None:
    """:func:`mix_by` of what most layers put out, outside of graphs.

    Args:
        plan: The plan.
        hidden: Any tensor.
        weight: λ of the plan as a number, or in single precision one for each sample, if it is on
            the CPU.

    Returns:
        The mixed batch; None if ``hidden`` is no floating-point batch in ordinary memory, or of
        another size.
    """
    is_dense = hidden.layout is torch.strided and not hidden.is_nested
    if not (is_dense and hidden.is_floating_point() and hidden.shape[:1] == plan.partner.shape):
        return None
    if weight is None or torch._C._are_functorch_transforms_active():
        return _mix(hidden, plan.lam, plan.partner)
    partner = plan.partner.to(hidden.device)
    if isinstance(weight, Tensor):
        return _each_quickly(plan, hidden, weight, partner)
    if not hidden.requires_grad and is_small(hidden):
        return interpolate_few(hidden, weight, partner, adjoint=False)
    return _Mix.apply(hidden, weight, partner)  # type: ignore[no-any-return]


def _each_quickly(plan: MixPlan, hidden: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    if hidden.dtype is not torch.float32 or not is_small(hidden):
        return _mix(hidden, plan.lam, partner)
    own = weight.view(-1, *[1] * (hidden.ndim - 1))
    if not hidden.requires_grad:
        return hidden.index_select(0, partner).lerp_(hidden, own)
    return _MixEachOfFew.apply(hidden, own, partner)  # type: ignore[no-any-return]


def paste_by(
    plan: MixPlan, hidden: Tensor, dims: Sequence[int], edges: Tensor | None = None
) -> Tensor:
    """:func:`~lightning_mmix.core.paste.paste` as a plan says.

    Args:
        plan: The plan, with a box.
        hidden: Shape (B, ...), floating point or complex.
        dims: The dimensions of ``hidden`` that are its space.
        edges: Those of the box, for a graph.

    Returns:
        The pasted batch, shaped like ``hidden``.

    Raises:
        TypeError: If ``hidden`` is integer, boolean, sparse or nested.
        ValueError: If a shape does not fit.
    """
    check(hidden, plan.lam, plan.partner)
    if edges is None:
        return pasted_by(plan, hidden, dims)
    mask = mask_of(edges.to(hidden.device), space_of(hidden, dims))
    return paste_where(hidden, mask, plan.partner.to(hidden.device), dims)


def pasted_by(plan: MixPlan, target: Tensor, dims: Sequence[int]) -> Tensor:
    """A target of any dtype, pasted as a plan says.

    Args:
        plan: The plan, with a box.
        target: Shape (B, ...).
        dims: The dimensions of ``target`` that are its space.
    """
    return paste(target, plan.region_in(space_of(target, dims)), plan.partner, dims)


def _mix(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> Tensor:
    if isinstance(lam, Tensor) and lam.dim():
        return _mix_each(hidden, lam, partner)
    is_traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    function = _TraceableMix if is_traced else _Mix
    mixed: Tensor = function.apply(hidden, lam, partner.to(hidden.device))
    return mixed


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, lam: Tensor | float, partner: Tensor) -> Tensor:
        ctx.lam = lam
        ctx.save_for_backward(partner)
        if type(lam) is float and is_small(hidden):
            return interpolate_few(hidden, lam, partner, adjoint=False)
        return interpolate_partners(hidden, lam, partner)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # a permutation's adjoint is a gather by its inverse; autograd would scatter-add
        (partner,) = ctx.saved_tensors
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return _mix(grad, ctx.lam, inverse(partner)), None, None
        if type(ctx.lam) is float and is_small(grad):
            return interpolate_few(grad, ctx.lam, partner, adjoint=True), None, None
        return interpolate_partners(grad, ctx.lam, partner, adjoint=True), None, None


class _TraceableMix(torch.autograd.Function):
    """The same for torch.func and torch.compile; its context apart doubles the time of a call."""

    backward = _Mix.backward

    @staticmethod
    def forward(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> Tensor:
        return interpolate_partners(hidden, lam, partner)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        _, ctx.lam, partner = inputs
        ctx.save_for_backward(partner)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        if in_dims[1:] == (None, None):
            return _TraceableMix.apply(inputs[0].movedim(in_dims[0], 1), *inputs[1:]), 1
        return one_by_one(_TraceableMix, info.batch_size, in_dims, inputs)


def _mix_each(hidden: Tensor, lam: Tensor, partner: Tensor) -> Tensor:
    lam = lam.to(hidden.device, non_blocking=hidden.device.type != "cpu")
    mixed: Tensor = _MixEach.apply(hidden, lam, 1 - lam, partner.to(hidden.device))
    return mixed


class _MixEach(torch.autograd.Function):
    """A weight for each sample: a·h + b·h[π], whose adjoint is a·g + b[π⁻¹]·g[π⁻¹]."""

    @staticmethod
    def forward(hidden: Tensor, own: Tensor, others: Tensor, partner: Tensor) -> Tensor:
        return weigh_partners(hidden, own, others, partner)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        own, others, partner = ctx.saved_tensors
        back = inverse(partner)
        return _MixEach.apply(grad, own, others[back], back), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return one_by_one(_MixEach, info.batch_size, in_dims, inputs)


class _MixEachOfFew(torch.autograd.Function):
    """The same for small hidden states on a CPU, outside of graphs, in few calls."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, own: Tensor, partner: Tensor) -> Tensor:
        ctx.save_for_backward(own, partner)
        return hidden.index_select(0, partner).lerp_(hidden, own)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        own, partner = ctx.saved_tensors
        if torch.is_grad_enabled():
            own, back = own.flatten(), inverse(partner)
            return _MixEach.apply(grad, own, (1 - own)[back], back), None, None
        others = torch.addcmul(grad, grad, own, value=-1)
        mixed = torch.empty_like(grad).index_copy_(0, partner, others)
        return mixed.addcmul_(grad, own), None, None
