"""The arithmetic of a mix: λ·h + (1 - λ)·h[π] in one fresh buffer, as fast as memory allows."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALL, _LARGE = 2**16, 2**22  # bytes of a tensor
_SHORT, _LONG = 2**10, 2**18  # bytes of a sample
_REAL = (torch.float32, torch.bfloat16, torch.float16)
_INDICES = (torch.int32, torch.int64)
# elsewhere embedding_bag has no vectorised code
_HAS_FAST_BAGS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def interpolate(first: Tensor, second: Tensor, lam: Tensor | float) -> Tensor:
    """λ·first + (1 - λ)·second, differentiable in both; λ keeps its precision in half types."""
    number = _number(lam)
    if number is not None:
        return torch.lerp(second, first, number)
    # a tensor must have the dtype of what it weighs, and half precision would round it
    wide = torch.promote_types(first.dtype, torch.float32)
    # what a GPU sends without waiting, the CPU would read before it has come
    is_read_later = first.device.type != "cpu"
    weight = torch.as_tensor(lam, dtype=wide).to(first.device, non_blocking=is_read_later)
    mixed = torch.lerp(second.to(wide), first.to(wide), weight)
    # torch.compile of torch 2.11 loses the gradient of a tensor that an operation hands through
    return mixed if wide == first.dtype else mixed.to(first.dtype)


def inverse(partner: Tensor) -> Tensor:
    """π⁻¹, shape (B,), of a permutation π, shape (B,)."""
    if torch.compiler.is_compiling():  # which would make two kernels of what follows
        return torch.argsort(partner)
    everyone = torch.arange(partner.shape[0], device=partner.device)
    return torch.empty_like(everyone).scatter(0, partner.long(), everyone)


def gathered(hidden: Tensor, partner: Tensor) -> Tensor:
    """h[π], which lies in memory as ``hidden`` does, for graphs."""
    if hidden.is_contiguous():
        return hidden.index_select(0, partner)
    order = _order(hidden)
    back = sorted(range(len(order)), key=order.__getitem__)
    return hidden.permute(order).index_select(order.index(0), partner).permute(back)


def gathered_into(out: Tensor, hidden: Tensor, partner: Tensor) -> Tensor:
    """h[π], written into ``out``, which is shaped like ``hidden``."""
    # a gather keeps no memory format, so it works on the dimensions as they lie in memory
    order = _order(hidden)
    lying = hidden.permute(order)
    torch.index_select(lying, order.index(0), partner, out=out.permute(order))
    return out


def is_small(hidden: Tensor) -> bool:
    """Whether calls count, and not memory."""
    return hidden.is_cpu and hidden.nbytes <= _SMALL and hidden.is_contiguous()


def interpolate_few(hidden: Tensor, lam: float, partner: Tensor, *, adjoint: bool) -> Tensor:
    """:func:`interpolate_partners` of what :func:`is_small`, in few calls."""
    # to put each row in its place is slower than to take it from there, but needs no inverse
    if adjoint:
        mixed = torch.empty_like(hidden).index_copy_(0, partner.long(), hidden)
    else:
        mixed = hidden.index_select(0, partner)
    return mixed.lerp_(hidden, lam)


def interpolate_partners(
    hidden: Tensor, lam: Tensor | float, partner: Tensor, *, adjoint: bool = False
) -> Tensor:
    """Interpolate every sample with its partner; not differentiable, and nothing is checked.

    Args:
        hidden: Shape (B, ...).
        lam: λ, 0-d.
        partner: π, shape (B,), on the device of ``hidden``.
        adjoint: Whether π⁻¹ takes the place of π, as it does for gradients.

    Returns:
        A fresh tensor with the shape and the strides of ``hidden``.
    """
    number = _number(lam)
    if number is not None and is_small(hidden):
        return interpolate_few(hidden, number, partner, adjoint=adjoint)
    if number is not None and hidden.is_cuda:
        mixed = _in_one_kernel(hidden, number, partner, adjoint=adjoint)
        if mixed is not None:
            return mixed
    if adjoint:
        partner = inverse(partner)
    if number is None:
        return interpolate(hidden, gathered(hidden, partner), lam)
    mixed = _in_one_pass(hidden, number, partner)
    return _in_two_passes(hidden, number, partner) if mixed is None else mixed


def weigh_partners(hidden: Tensor, own: Tensor, others: Tensor, partner: Tensor) -> Tensor:
    """own·h + others·h[π] with a weight for each sample; not differentiable.

    Args:
        hidden: Shape (B, ...).
        own: Shape (B,), on the device of ``hidden``.
        others: Shape (B,), on the device of ``hidden``.
        partner: π, shape (B,), on the device of ``hidden``.

    Returns:
        A fresh tensor with the shape and the strides of ``hidden``.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)  # half precision would round weights
    shape = (-1, *[1] * (hidden.dim() - 1))
    own, others = (weight.to(wide).reshape(shape) for weight in (own, others))
    weighed = gathered(hidden, partner).to(wide) * others
    return torch.addcmul(weighed, hidden.to(wide), own).to(hidden.dtype)


def one_by_one(
    function: type[torch.autograd.Function],
    size: int,
    in_dims: tuple[int | None, ...],
    inputs: tuple[Any, ...],
) -> tuple[Tensor, int]:
    """What a function makes of each of what vmap gives it, stacked along dimension 0."""
    each = [
        [x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True)]
        for i in range(size)
    ]
    return torch.stack([function.apply(*one) for one in each]), 0


def _in_one_kernel(hidden: Tensor, lam: float, partner: Tensor, *, adjoint: bool) -> Tensor | None:
    """What a gather and a lerp do on a GPU, where its samples lie in rows."""
    if type(hidden) is not Tensor or not _is_plain(hidden):
        return None
    # a partner of another type is refused by torch
    if hidden.dtype not in _REAL or _row(hidden) < _SHORT or partner.dtype not in _INDICES:
        return None
    kernel = _gpu_kernel(hidden.device)
    if kernel is None:
        return None
    mixed = torch.empty_like(hidden)
    kernel(hidden, lam, partner, mixed, adjoint=adjoint)
    return mixed


@cache
def _gpu_kernel(device: torch.device) -> Callable[..., None] | None:
    try:
        from lightning_mmix.core.fused import interpolate_rows  # noqa: PLC0415 - where Triton is there

        sample = torch.zeros(2, 256, device=device, dtype=torch.float32)
        partner = torch.zeros(2, device=device, dtype=torch.int64)
        interpolate_rows(sample, 1.0, partner, torch.empty_like(sample), adjoint=False)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # Triton misses itself, a C compiler, or a GPU that it knows
        return None
    return interpolate_rows


def _in_one_pass(hidden: Tensor, lam: float, partner: Tensor) -> Tensor | None:
    """What a gather and a lerp do on a CPU, where large samples lie in rows."""
    if hidden.device.type != "cpu" or hidden.numel() * hidden.element_size() < _LARGE:
        return None
    row = _row(hidden)
    if row >= _LONG:
        return _by_rows(hidden, lam, partner)
    if row >= _SHORT and hidden.dtype == torch.float32 and _HAS_FAST_BAGS:
        mixed = _by_bags(hidden.permute(_order(hidden)).flatten(1), lam, partner)
        return mixed.as_strided_(hidden.shape, hidden.stride())
    return None


def _in_two_passes(hidden: Tensor, lam: float, partner: Tensor) -> Tensor:
    # what comes out is no view, for the next layer may write into it
    if hidden.is_contiguous():
        mixed = hidden.index_select(0, partner)
    else:
        mixed = gathered_into(torch.empty_like(hidden), hidden, partner)
    return mixed.lerp_(hidden, lam)


def _is_plain(hidden: Tensor) -> bool:
    """Whether the memory of a tensor says all about it, and no mode or transform listens."""
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor(hidden)
    is_heard = is_wrapped or torch._C._len_torch_dispatch_stack() > 0
    return not (is_heard or hidden.is_neg() or hidden._is_zerotensor())


def _row(hidden: Tensor) -> int:
    """The bytes of a sample, or 0 if the samples do not lie one after the other."""
    order = _order(hidden)
    is_in_rows = order[0] == 0 and hidden.permute(order).is_contiguous()
    return hidden.numel() * hidden.element_size() // max(1, len(hidden)) if is_in_rows else 0


def _order(hidden: Tensor) -> list[int]:
    order: list[int] = []
    for dim in range(hidden.dim()):
        place = len(order)  # torch.compile sorts no symbols, but compares them
        while place and hidden.stride(order[place - 1]) < hidden.stride(dim):
            place -= 1
        order.insert(place, dim)
    return order


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
