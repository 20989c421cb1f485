"""The mix as one kernel of a GPU, in Triton, which comes with torch where torch has it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


def interpolate_rows(
    hidden: Tensor, lam: float, partner: Tensor, mixed: Tensor, *, adjoint: bool
) -> None:
    """Interpolate every sample with its partner in one pass through memory.

    Args:
        hidden: Shape (B, ...), real, of at most 32 bits, its samples one after the other in memory.
        lam: λ.
        partner: π, shape (B,), a permutation, which nobody looks at here: of another the samples
            with a partner that is no sample become NaN, and some of the adjoint stay as they were.
        mixed: Where to write, shaped and laid out like ``hidden``.
        adjoint: Whether π⁻¹ takes the place of π, which is not computed for that.
    """
    samples, size = len(hidden), hidden.numel() // len(hidden)
    blocks = triton.cdiv(size, _BLOCK)
    partner = partner.contiguous()
    mostly_own = lam >= 0.5
    weight = 1 - lam if mostly_own else lam
    sizes = (samples, size, blocks)
    with torch.cuda.device_of(hidden):  # type: ignore[no-untyped-call]
        _interpolate[samples * blocks,](
            hidden, partner, mixed, weight, *sizes, mostly_own, adjoint, _BLOCK
        )


@triton.jit  # type: ignore[untyped-decorator]
def _interpolate(  # type: ignore[no-untyped-def]
    hidden,
    partner,
    mixed,
    weight,
    samples,
    size,
    blocks,
    mostly_own: tl.constexpr,
    adjoint: tl.constexpr,
    block: tl.constexpr,
):
    here = tl.program_id(0)
    row = (here // blocks).to(tl.int64)
    other = tl.load(partner + row).to(tl.int64)
    columns = (here % blocks).to(tl.int64) * block + tl.arange(0, block)
    inside = (columns < size) & (other >= 0) & (other < samples)
    nan = float("nan")
    # with j = π(i), row j of the adjoint is λ·h_j + (1 - λ)·h_i, since i = π⁻¹(j)
    own = other if adjoint else row
    other = row if adjoint else other
    first = tl.load(hidden + own * size + columns, mask=inside, other=nan)
    second = tl.load(hidden + other * size + columns, mask=inside, other=nan)
    # exact for λ of 0 and of 1
    near = (first if mostly_own else second).to(tl.float32)
    far = (second if mostly_own else first).to(tl.float32)
    value = near + weight * (far - near)
    where = inside if adjoint else columns < size
    tl.store(mixed + own * size + columns, value.to(first.dtype), mask=where)
