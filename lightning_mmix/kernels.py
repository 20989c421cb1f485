"""The arithmetic of a mix: λ·h + (1 - λ)·h[π] in one fresh buffer, as fast as memory allows."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LARGE = 2**22  # bytes of a tensor
_SHORT, _LONG = 2**10, 2**18  # bytes of a sample
# elsewhere embedding_bag has no vectorised code
_HAS_FAST_BAGS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def interpolate(first: Tensor, second: Tensor, lam: Tensor | float) -> Tensor:
    """λ·first + (1 - λ)·second, differentiable in both; λ keeps its precision in half types."""
    number = _number(lam)
    if number is not None:
        return torch.lerp(second, first, number)
    # a tensor must have the dtype of what it weighs, and half precision would round it
    wide = torch.promote_types(first.dtype, torch.float32)
    weight = torch.as_tensor(lam).to(first.device, wide, non_blocking=True)
    mixed = torch.lerp(second.to(wide), first.to(wide), weight)
    # torch.compile of torch 2.11 loses the gradient of a tensor that an operation hands through
    return mixed if wide == first.dtype else mixed.to(first.dtype)


def interpolate_partners(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> Tensor:
    """Interpolate every sample with its partner; not differentiable, and nothing is checked.

    Args:
        hidden: Shape (B, ...).
        lam: λ, 0-d.
        partner: π, shape (B,), on the device of ``hidden``.

    Returns:
        A fresh tensor with the shape and the strides of ``hidden``.
    """
    number = _number(lam)
    if number is None:
        # what comes first gives its strides to the result
        return interpolate(hidden.index_select(0, partner), hidden, 1 - lam)
    if hidden.device.type == "cpu" and hidden.numel() * hidden.element_size() >= _LARGE:
        mixed = _in_one_pass(hidden, number, partner)
        if mixed is not None:
            return mixed
    # what comes out is no view, for the next layer may write into it
    mixed = torch.empty_like(hidden)
    if hidden.is_contiguous():
        torch.index_select(hidden, 0, partner, out=mixed)
    else:  # a gather keeps no memory format, so it works on the dimensions as they lie in memory
        order = _order(hidden)
        lying, out = hidden.permute(order), mixed.permute(order)
        torch.index_select(lying, order.index(0), partner, out=out)
    return mixed.lerp_(hidden, number)


def _in_one_pass(hidden: Tensor, lam: float, partner: Tensor) -> Tensor | None:
    """What a gather and a lerp do in two passes through memory, if its samples lie in rows."""
    order = _order(hidden)
    lying = hidden.permute(order)
    if order[0] != 0 or not lying.is_contiguous():
        return None
    row = hidden.numel() * hidden.element_size() // len(hidden)
    if row >= _LONG:
        return _by_rows(hidden, lam, partner)
    if row >= _SHORT and hidden.dtype == torch.float32 and _HAS_FAST_BAGS:
        mixed = _by_bags(lying.flatten(1), lam, partner)
        return mixed.as_strided_(hidden.shape, hidden.stride())
    return None


def _order(hidden: Tensor) -> list[int]:
    return sorted(range(hidden.dim()), key=hidden.stride, reverse=True)


def _by_rows(hidden: Tensor, lam: float, partner: Tensor) -> Tensor:
    mixed = torch.empty_like(hidden)
    rows = hidden.unbind()
    for row, own, other in zip(mixed.unbind(), rows, partner.tolist(), strict=True):
        torch.lerp(rows[other], own, lam, out=row)
    return mixed


def _by_bags(hidden: Tensor, lam: float, partner: Tensor) -> Tensor:
    # the one kernel of torch's that gathers and weighs in one pass: two rows to a bag
    everyone = torch.arange(len(hidden), device=partner.device)  # whatever the default device is
    bags = torch.stack([everyone, partner], 1)
    weights = hidden.new_tensor([lam, 1 - lam]).repeat(len(hidden), 1)
    return F.embedding_bag(bags, hidden, mode="sum", per_sample_weights=weights)


def _number(lam: Tensor | float) -> float | None:
    # exact in half precision, and without a kernel; but a graph has tensors only
    if torch.compiler.is_compiling():
        return None
    if isinstance(lam, Tensor) and lam.device.type != "cpu":
        return None
    return float(lam)
