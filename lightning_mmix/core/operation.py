"""The mixing operation: every sample interpolated with its partner."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.kernels import interpolate_partners, inverse, one_by_one, weigh_partners
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
    _check(hidden, lam, partner)
    if not torch.compiler.is_compiling():
        _check_values(lam, partner)
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
    _check(hidden, plan.lam, plan.partner)
    return _mix(hidden, plan.lam, plan.partner)


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
    _check(hidden, plan.lam, plan.partner)
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


def check_plan(plan: MixPlan) -> None:
    """Look at the values of a plan that was made by hand.

    Args:
        plan: The plan.

    Raises:
        ValueError: If λ is out of range, or ``partner`` is no permutation (on the CPU).
    """
    _check_values(plan.lam, plan.partner)


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
        return interpolate_partners(hidden, lam, partner)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # a permutation's adjoint is a gather by its inverse; autograd would scatter-add
        (partner,) = ctx.saved_tensors
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return _mix(grad, ctx.lam, inverse(partner)), None, None
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


def _check(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> None:
    if hidden.is_nested or hidden.layout != torch.strided:
        kind = "a nested" if hidden.is_nested else f"a {hidden.layout}"
        raise TypeError(f"expected a dense hidden state, but got {kind} tensor")
    if not (hidden.is_floating_point() or hidden.is_complex()):
        raise TypeError(
            f"expected a floating-point hidden state, but got {hidden.dtype}; "
            "did you mean the layer that embeds it?"
        )
    is_each = isinstance(lam, Tensor) and lam.dim() > 0
    if isinstance(lam, Tensor) and (lam.requires_grad or (is_each and lam.shape != partner.shape)):
        raise ValueError(
            f"expected a 0-d lam, or one for each sample, without gradient, but got shape "
            f"{tuple(lam.shape)}{' with gradient' if lam.requires_grad else ''}"
        )
    if hidden.dim() == 0 or partner.shape != hidden.shape[:1]:
        raise ValueError(
            f"expected a hidden state of shape (B, ...) and a partner of shape (B,), "
            f"but got {tuple(hidden.shape)} and {tuple(partner.shape)}"
        )


def _check_values(lam: Tensor | float, partner: Tensor) -> None:
    # looking at values on an accelerator, or under a transform, would be a synchronisation
    numbers = [lam] if not isinstance(lam, Tensor) else [0.0]
    if isinstance(lam, Tensor) and _is_readable(lam):
        numbers = lam.reshape(-1).tolist()
    if wrong := [number for number in numbers if not 0 <= number <= 1]:
        raise ValueError(f"expected lam in [0, 1], but got {wrong[0]}")
    size = len(partner)
    everyone = torch.arange(size, dtype=partner.dtype, device="cpu")
    if _is_readable(partner) and not torch.equal(partner.sort().values, everyone):
        raise ValueError(
            f"expected a permutation of range({size}) as partner, but got {partner.tolist()}"
        )


def _is_readable(tensor: Tensor) -> bool:
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return tensor.device.type == "cpu" and not is_wrapped
