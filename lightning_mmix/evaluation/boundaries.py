"""Boundaries: what a classifier makes of the space between its samples."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmix.core.layers import INPUT, select
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.core.trees import describe
from lightning_mmix.engine.loop import mixing
from lightning_mmix.evaluation.arguments import naming_predictor
from lightning_mmix.evaluation.predictions import (
    Predictor,
    device_of,
    evaluating,
    predictor_of,
)
from lightning_mmix.metrics.samples import Form, counted, log_probabilities, samples
from lightning_mmix.pairing.gates import Gates

Extent = tuple[float, float, float, float]


@dataclass(frozen=True)
class Interpolation:
    """Probabilities on the way between samples of different classes, means over the pairs.

    Attributes:
        lam: Shape (L,): λ, the weight of the sample itself.
        confidence: Shape (L,): max_c p_c.
        own: Shape (L,): p of the sample's class.
        partner: Shape (L,): p of its partner's class.

    Example:
        >>> points = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
        >>> found = interpolate_between(nn.Identity(), (points, torch.tensor([0, 1])), steps=3)
        >>> found.lam, found.own
        (tensor([0.0000, 0.5000, 1.0000]), tensor([0.0180, 0.5000, 0.9820]))
    """

    lam: Tensor
    confidence: Tensor
    own: Tensor
    partner: Tensor


@torch.no_grad()
def interpolate_between(
    model: nn.Module | Predictor, batch: Any, layer: str = INPUT, *, steps: int = 11
) -> Interpolation:
    """Interpolate the hidden states, or inputs, of samples of different classes.

    Every sample is paired with one of another class, and λ·h + (1 - λ)·h' goes on from the layer,
    as in training. The paths of a network trained on such states are those that it has seen.

    Args:
        model: Any classifier that puts out logits, or a :class:`Predictor` of it; it
            runs in evaluation mode.
        batch: As in training: with labels of shape (B,), of at least two classes.
        layer: The name of a layer, or ``"input"``.
        steps: L ≥ 2, evenly from λ = 0 to 1.

    Returns:
        Means over the pairs, on the CPU. A class of more than half of the samples has pairs
        within itself, which don't count.

    Raises:
        ValueError: If there is no such layer, only one class, or fewer than two steps.

    Example:
        >>> points = torch.tensor([[4.0, 0.0], [0.0, 4.0]])
        >>> found = interpolate_between(nn.Identity(), (points, torch.tensor([0, 1])), steps=3)
        >>> found.confidence
        tensor([0.9820, 0.5000, 0.9820])
    """
    if steps < 2:
        raise ValueError(f"expected steps ≥ 2, but got {steps}")
    predictor = predictor_of(model)
    with naming_predictor(model):
        network, target = predictor.model, predictor.target(batch)
        x = predictor.input(batch) if layer == INPUT else None
    taken = predictor.form, predictor.ignore_index
    partner, pairs = _paired(target, predictor.ignore_index)
    lams, rows = torch.linspace(0, 1, steps), []
    gates = Gates(network, [] if layer == INPUT else select(network, [layer]))
    try:
        with evaluating(network):
            for lam in lams:
                with mixing(gates, MixPlan(layer, lam, partner), input=x):
                    log_probs, labels = samples(predictor(batch), target, *taken)
                found = _chances(log_probs, labels, labels[pairs])
                rows.append(found[:, labels != labels[pairs]].mean(1).cpu())
    finally:
        gates.remove()
    return Interpolation(lams, *torch.stack(rows, 1))


def _paired(target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """A partner for each sample; and where the partners of those that count are among them."""
    kept = counted(target, ignore_index)
    pairs = other_class(target[kept] if target.dim() == 1 else target)
    partner = torch.arange(len(target), device=target.device)
    partner[kept] = partner[kept][pairs]
    return partner, pairs


def _chances(log_probs: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """The probabilities of the likeliest class, of one's own and of the partner's."""
    probs = log_probs.exp()
    of = (probs.gather(1, labels[:, None])[:, 0] for labels in (own, other))
    return torch.stack([probs.max(1).values, *of])


def other_class(target: Tensor) -> Tensor:
    """A partner of another class for each sample, or for as many as there can be.

    Args:
        target: Shape (B,), int64.

    Returns:
        Shape (B,): a permutation.

    Raises:
        ValueError: If there is only one class.

    Example:
        >>> other_class(torch.tensor([0, 0, 1, 1]))
        tensor([2, 3, 0, 1])
    """
    largest = max(Counter(target.tolist()).values(), default=0) if target.dim() == 1 else 0
    if target.dim() != 1 or largest == len(target):
        alike = " of one class" if target.dim() == 1 else ""
        raise ValueError(
            "expected labels of shape (B,) and at least two classes, but got "
            f"{describe(target)}{alike}"
        )
    order = target.argsort(stable=True)
    # sorted by class, a shift by the size of the largest class leaves every other class
    partner = torch.empty_like(order)
    partner[order] = order.roll(-largest)
    return partner


@torch.no_grad()
def probabilities_on_grid(
    model: nn.Module, extent: Extent, resolution: int = 200, *, form: Form = "logits"
) -> Tensor:
    """The probabilities that a classifier of points in the plane gives to a grid of them.

    Args:
        model: Takes points of shape (N, 2) to predictions of shape (N, C); in evaluation mode.
        extent: (x0, x1, y0, y1).
        resolution: R, points on each side, the ends included.
        form: Whether predictions are ``"logits"`` or ``"probabilities"``.

    Returns:
        Shape (R, R, C), on the CPU: rows go up in y, columns in x.

    Example:
        >>> grid = probabilities_on_grid(nn.Identity(), (0.0, 2.0, 0.0, 1.0), resolution=3)
        >>> grid.shape, grid[0, :, 0]
        (torch.Size([3, 3, 2]), tensor([0.5000, 0.7311, 0.8808]))
    """
    x0, x1, y0, y1 = extent
    ys, xs = torch.linspace(y0, y1, resolution), torch.linspace(x0, x1, resolution)
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    points = torch.stack([x, y], -1).view(-1, 2).to(device_of(model))
    with evaluating(model):
        probs = log_probabilities(model(points), form).exp()
    return probs.view(resolution, resolution, -1).cpu()


def share_below(probabilities: Tensor, confidence: float = 0.9) -> float:
    """The share of a grid in which max_c p_c is below a confidence, in [0, 1].

    Args:
        probabilities: Shape (..., C).
        confidence: In [0, 1].

    Example:
        >>> share_below(torch.tensor([[[0.95, 0.05], [0.6, 0.4]]]))
        0.5
    """
    return float((probabilities.max(-1).values < confidence).float().mean())
