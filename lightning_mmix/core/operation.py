"""The mixing operation: every sample interpolated with its partner."""

from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.kernels import interpolate_partners, inverse
from lightning_mmix.core.plan import MixPlan


def mix(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> Tensor:
    """Mix every sample of a batch with its partner: λ·h + (1 - λ)·h[π].

    This is Mix_λ of Verma et al. (2019), equation 1, on a whole batch. One tensor is allocated
    in the forward pass and one in the backward pass, whose gather goes by the inverse
    permutation. Differentiable in ``hidden`` as often as you like, though not in forward mode;
    works under ``torch.func``'s vmap and grad, autocast and ``torch.compile(fullgraph=True)``.
    Dtype, shape, device and memory format stay as they were.

    Args:
        hidden: Shape (B, ...), floating point or complex.
        lam: λ, 0-d, in [0, 1]: the weight of the sample itself. No gradient flows to it.
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


def check_plan(plan: MixPlan) -> None:
    """Look at the values of a plan that was made by hand.

    Args:
        plan: The plan.

    Raises:
        ValueError: If λ is out of range, or ``partner`` is no permutation (on the CPU).
    """
    _check_values(plan.lam, plan.partner)


def _mix(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> Tensor:
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
        one = [
            [x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True)]
            for i in range(info.batch_size)
        ]
        return torch.stack([_TraceableMix.apply(*each) for each in one]), 0


def _check(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> None:
    if hidden.is_nested or hidden.layout != torch.strided:
        kind = "a nested" if hidden.is_nested else f"a {hidden.layout}"
        raise TypeError(f"expected a dense hidden state, but got {kind} tensor")
    if not (hidden.is_floating_point() or hidden.is_complex()):
        raise TypeError(
            f"expected a floating-point hidden state, but got {hidden.dtype}; "
            "did you mean the layer that embeds it?"
        )
    if isinstance(lam, Tensor) and (lam.dim() != 0 or lam.requires_grad):
        raise ValueError(
            f"expected a 0-d lam without gradient, but got shape {tuple(lam.shape)}"
            f"{' with gradient' if lam.requires_grad else ''}"
        )
    if hidden.dim() == 0 or partner.shape != hidden.shape[:1]:
        raise ValueError(
            f"expected a hidden state of shape (B, ...) and a partner of shape (B,), "
            f"but got {tuple(hidden.shape)} and {tuple(partner.shape)}"
        )


def _check_values(lam: Tensor | float, partner: Tensor) -> None:
    # looking at values on an accelerator, or under a transform, would be a synchronisation
    if (not isinstance(lam, Tensor) or _is_readable(lam)) and not 0 <= float(lam) <= 1:
        raise ValueError(f"expected lam in [0, 1], but got {float(lam)}")
    size = len(partner)
    everyone = torch.arange(size, dtype=partner.dtype, device="cpu")
    if _is_readable(partner) and not torch.equal(partner.sort().values, everyone):
        raise ValueError(
            f"expected a permutation of range({size}) as partner, but got {partner.tolist()}"
        )


def _is_readable(tensor: Tensor) -> bool:
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return tensor.device.type == "cpu" and not is_wrapped
