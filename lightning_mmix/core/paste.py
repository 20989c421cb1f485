"""CutMix's arithmetic: a box of positions that every sample takes from its partner."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.kernels import gathered, gathered_into, inverse, one_by_one

Space = tuple[int, ...]  # the sizes of one to three dimensions

# edges are whole numbers of 2⁻³⁰ of a size, so that a graph, on whatever device, rounds as we do
_BITS = 30
_HALF = 1 << (_BITS - 1)


@dataclass(frozen=True)
class Region:
    """The positions that a sample takes from its partner, in a space of known sizes.

    Attributes:
        space: (N_1, ..., N_D), D in 1 to 3.
        bounds: Of each dimension the first position of the box, and the one behind its last.
        is_inside: Whether the partner's positions are those inside the box, or those outside.
        nominal: The λ that was drawn; NaN if it isn't known.
        input_space: The sizes of space of the batch's input, if they are known.
        is_lent: Whether targets with these positions are pasted in the batch itself.
    """

    space: Space
    bounds: tuple[tuple[int, int], ...]
    is_inside: bool = True
    nominal: float = math.nan
    input_space: Space | None = None
    is_lent: bool = False

    @property
    def lam(self) -> float:
        """The real λ, in [0, 1]: the share of the positions that stay the sample's own."""
        share = math.prod(high - low for low, high in self.bounds) / math.prod(self.space)
        return 1 - share if self.is_inside else share


def region(lam: float, centre: Sequence[float], space: Sequence[int]) -> Region:
    """The box of CutMix in a space (Yun et al., 2019, section 3.1), in whole positions.

    Its sides are (1 - λ)^(1/D) of those of the space, around the centre, clipped at the border and
    rounded to nearest. Where it covers more than half, what lies outside comes from the partner:
    to exchange the names of sample and partner, with a random one, makes the same set of mixed
    batches, and the sample itself stays the dominant one, as by the fold of λ.

    Args:
        lam: The nominal λ, in [0, 1].
        centre: In [0, 1), relative to the sizes; at least D numbers.
        space: (N_1, ..., N_D), D in 1 to 3.

    Example:
        >>> region(0.75, [0.5, 0.5], [8, 4]).bounds
        ((2, 6), (1, 3))
    """
    edges = _edges(lam, centre, len(space))
    bounds = tuple(
        (_position(low, size), _position(high, size))
        for (low, high), size in zip(edges, space, strict=True)
    )
    covered = math.prod(high - low for low, high in bounds)
    return Region(tuple(space), bounds, is_inside=2 * covered <= math.prod(space), nominal=lam)


def edges_of(lam: float, centre: Sequence[float]) -> Tensor:
    """The edges of a box in spaces of one, two and three dimensions, for :func:`mask_of`.

    Args:
        lam: The nominal λ, in [0, 1].
        centre: Three numbers in [0, 1).

    Returns:
        Shape (3, 3, 2), int64: of D = 1, 2, 3, of each dimension, the lower and the upper one.
    """
    rows = [_edges(lam, centre, dims) + [(0, 0)] * (3 - dims) for dims in (1, 2, 3)]
    return torch.tensor(rows, device="cpu")


def mask_of(edges: Tensor, space: Sequence[int]) -> Tensor:
    """Which positions come from the partner, for a graph, which is to serve for any box.

    Args:
        edges: Shape (3, 3, 2), as :func:`edges_of` gives them.
        space: (N_1, ..., N_D), D in 1 to 3.

    Returns:
        Shape (N_1, ..., N_D), boolean: as :func:`region` has it.
    """
    bounds = [
        _position(edges[len(space) - 1, dim], size).unbind() for dim, size in enumerate(space)
    ]
    inside = _inside(bounds, space, edges.device)
    return inside ^ (2 * inside.sum() > inside.numel())


def paste(hidden: Tensor, region: Region, partner: Tensor, dims: Sequence[int]) -> Tensor:
    """Give every sample of a batch its partner's positions in a region.

    This is equation 1 of Yun et al. (2019), with one box for the batch. One tensor is allocated in
    the forward pass and one in the backward pass, which pastes by the inverse permutation.
    Differentiable in ``hidden`` as often as you like, though not in forward mode. Dtype, shape,
    device and memory format stay as they were.

    Args:
        hidden: Shape (B, ...), of any dtype.
        region: Which positions.
        partner: π, shape (B,): a permutation of ``range(B)``.
        dims: The dimensions of ``hidden`` that are its space, of the region's sizes.

    Returns:
        The pasted batch, shaped like ``hidden``.
    """
    partner = partner.to(hidden.device, non_blocking=True)
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        inside = _inside(region.bounds, region.space, hidden.device)
        return paste_where(hidden, inside ^ (not region.is_inside), partner, dims)
    pasted: Tensor = _Paste.apply(hidden, region, partner, tuple(dims))
    return pasted


def paste_where(hidden: Tensor, mask: Tensor, partner: Tensor, dims: Sequence[int]) -> Tensor:
    """:func:`paste` by a mask, which a graph can take from outside.

    Args:
        hidden: Shape (B, ...), of any dtype.
        mask: Boolean, of the sizes of ``dims``: which positions come from the partner.
        partner: π, shape (B,): a permutation of ``range(B)``.
        dims: The dimensions of ``hidden`` that are its space.

    Returns:
        The pasted batch, shaped like ``hidden``.
    """
    shape = [size if dim in dims else 1 for dim, size in enumerate(hidden.shape)]
    pasted: Tensor = _PasteWhere.apply(hidden, mask.reshape(shape), partner)
    return pasted


class _Paste(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, region: Region, partner: Tensor, dims: tuple[int, ...]
    ) -> Tensor:
        ctx.region, ctx.dims = region, dims
        ctx.save_for_backward(partner)
        return _pasted(hidden, region, partner, dims)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (partner,) = ctx.saved_tensors
        return paste(grad, ctx.region, inverse(partner), ctx.dims), None, None, None


class _PasteWhere(torch.autograd.Function):
    @staticmethod
    def forward(hidden: Tensor, mask: Tensor, partner: Tensor) -> Tensor:
        return torch.where(mask, gathered(hidden, partner), hidden)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        mask, partner = ctx.saved_tensors
        return _PasteWhere.apply(grad, mask, inverse(partner)), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return one_by_one(_PasteWhere, info.batch_size, in_dims, inputs)


def _pasted(hidden: Tensor, region: Region, partner: Tensor, dims: tuple[int, ...]) -> Tensor:
    box = [slice(None)] * hidden.dim()
    for dim, bounds in zip(dims, region.bounds, strict=True):
        box[dim] = slice(*bounds)
    own = hidden[tuple(box)]
    if not region.is_inside:
        pasted = gathered_into(torch.empty_like(hidden), hidden, partner)
        pasted[tuple(box)] = own
        return pasted
    pasted = hidden.clone()
    if own.numel():
        gathered_into(pasted[tuple(box)], own, partner)
    return pasted


def _edges(lam: float, centre: Sequence[float], dims: int) -> list[tuple[int, int]]:
    half = (1 - lam) ** (1 / dims) / 2
    ends = [(max(0.0, at - half), min(1.0, at + half)) for at in centre[:dims]]
    return [(round(low * 2**_BITS), round(high * 2**_BITS)) for low, high in ends]


def _position(edge: Any, size: int) -> Any:
    """The position that lies nearest to an edge; a number's, or a tensor's."""
    return (edge * size + _HALF) >> _BITS


def _inside(bounds: Sequence[Any], space: Sequence[int], device: torch.device) -> Tensor:
    inside = torch.ones((), dtype=torch.bool, device=device)
    for low, high in bounds:
        at = torch.arange(space[inside.dim()], device=device)
        inside = inside[..., None] & ((at >= low) & (at < high))
    return inside
