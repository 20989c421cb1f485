"""What is done to the inputs of the panel: noise, an attack, and a deformation that suits them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_mmix.evaluation import FGSM, Bounds, Condition, GaussianNoise, Loss, Rotation
from panel.tasks import Kind


@dataclass(frozen=True)
class Warp(Condition):
    """Time that runs faster and slower in turn: a series of shape (B, C, T) read at other times.

    Args:
        share: The standard deviation of the shift, as a share of the series' length, ≥ 0.
    """

    share: float
    family, axis, unit = "warp", "share", "of the length"

    def perturb(self, x: Tensor, loss: Loss, bounds: Bounds, rng: np.random.Generator) -> Tensor:  # noqa: ARG002
        """Each series is shifted by another half wave of a random height and phase."""
        length = x.shape[-1]
        times = np.linspace(0, 1, length)
        height, phase = rng.normal(0, self.share, (len(x), 1)), rng.uniform(0, 1, (len(x), 1))
        shifted = times + height * np.sin(np.pi * (times + phase))
        at = torch.from_numpy(shifted.clip(0, 1) * (length - 1)).to(x.dtype)[:, None]
        low = at.floor().long().clamp(max=length - 2).expand(x.shape)
        share = at - low
        return x.gather(-1, low) * (1 - share) + x.gather(-1, low + 1) * share


@dataclass(frozen=True)
class Missing(Condition):
    """Features of a table that are not known, and take their mean, which is 0.

    Args:
        share: How many of them, in [0, 1].
    """

    share: float
    family, axis, unit = "missing", "share", "of the features"

    def perturb(self, x: Tensor, loss: Loss, bounds: Bounds, rng: np.random.Generator) -> Tensor:  # noqa: ARG002
        """Each entry of (B, F) is left out by a coin of its own."""
        return x * torch.from_numpy(rng.random(x.shape) >= self.share)


def conditions(kind: Kind) -> dict[str, Condition]:
    """Conditions by the name of their score; strengths are fixed for a kind of data.

    Images have values within [0, 1]; series and tables are standardised.
    """
    if kind == "images":
        return {"noise": GaussianNoise(0.2), "FGSM": FGSM(0.03), "deformed": Rotation(30)}
    if kind == "series":
        return {"noise": GaussianNoise(0.2), "FGSM": FGSM(0.03), "deformed": Warp(0.05)}
    return {"noise": GaussianNoise(0.5), "FGSM": FGSM(0.1), "deformed": Missing(0.2)}
