"""The standard conditions of a report: clean, attacked, noisy, distorted, from weak to strong."""

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from torch import Tensor
from typing_extensions import override

from lightning_mmix.evaluation.arguments import expect, expect_types, listed
from lightning_mmix.evaluation.attacks import FGSM, PGD
from lightning_mmix.evaluation.condition import Bounds, Condition, Loss, settle, to_tensor, widen
from lightning_mmix.evaluation.distortions import Corruption, Kind, Rotation, Shear, Zoom


def standard_conditions(
    bounds: Bounds, *, images: bool, fast: bool = False, std: float = math.inf
) -> list[Condition]:
    """The conditions of a report, the clean data first, each family from weak to strong.

    Args:
        bounds: The least and the largest value of the data; each ε and deviation is a multiple
            of the distance between them, or of four standard deviations if that is less.
        images: Whether the data are images, which can be distorted too.
        fast: Whether a handful of them will do.
        std: The standard deviation of the data, if outliers may make their range a wide one.

    Raises:
        ValueError: If ``bounds`` are no range, or another argument is out of range.

    Example:
        >>> [each.name for each in standard_conditions((0, 1), images=True, fast=True)]
        ['clean', 'FGSM 0.01', 'FGSM 0.03', 'FGSM 0.1', 'rotation ±20°', 'rotation ±40°']
    """
    given = {"bounds": bounds, "images": images, "fast": fast, "std": std}
    expect_types(standard_conditions, given.items())
    low, high = listed(bounds)
    expect(std >= 0, "a std ≥ 0", std)
    expect(0 < high - low < math.inf, "finite bounds (low, high) with low < high", bounds)
    extent = min(high - low, 4 * std)
    if fast:
        few = [FGSM(extent * eps) for eps in (0.01, 0.03, 0.1)]
        return [Clean(), *few, *(Rotation(degrees) for degrees in (20, 40) if images)]
    conditions: list[Condition] = [
        Clean(),
        *(FGSM(extent * eps) for eps in (0.01, 0.03, 0.06, 0.1, 0.2)),
        *(PGD(extent * eps) for eps in (0.03, 0.1)),
        *(PGD(extent * eps, "l2") for eps in (0.25, 0.5, 1.0)),
        *(GaussianNoise(extent * std) for std in (0.05, 0.1, 0.2)),
    ]
    distortions: list[Condition] = [
        *(Rotation(degrees) for degrees in (20, 40, 60)),
        *(Shear(degrees) for degrees in (20, 40, 60)),
        *(Zoom(factor) for factor in (0.6, 0.8, 1.2, 1.4)),
        *(Corruption(kind, 3) for kind in get_args(Kind)),
    ]
    return conditions + distortions if images else conditions


@dataclass(frozen=True)
class Clean(Condition):
    """The data as they are.

    Example:
        >>> Clean().name, Clean().strength
        ('clean', 0.0)
    """

    family = name = "clean"
    strength = 0.0

    @override
    def perturb(self, x: Tensor, loss: Loss, bounds: Bounds, rng: np.random.Generator) -> Tensor:
        return x


@dataclass(frozen=True)
class GaussianNoise(Condition):
    """Independent Gaussian noise on every entry.

    Args:
        std: Its standard deviation, ≥ 0, in the units of the data.

    Raises:
        ValueError: If it is out of range.

    Example:
        >>> import torch
        >>> x, rng = torch.full((1000,), 0.5), np.random.default_rng(0)
        >>> noisy = GaussianNoise(0.1).perturb(x, lambda x: x, (0, 1), rng)
        >>> round(float(noisy.std()), 2), GaussianNoise(0.1).name
        (0.1, 'Gaussian noise 0.1')
    """

    std: float
    family, axis, unit = "Gaussian noise", "std", "std"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.std < math.inf, "a finite std ≥ 0", self.std)

    @override
    def perturb(self, x: Tensor, loss: Loss, bounds: Bounds, rng: np.random.Generator) -> Tensor:
        wide = widen(x)
        noise = to_tensor(rng.standard_normal(x.shape), wide)
        return settle(wide + self.std * noise, bounds, x.dtype)
