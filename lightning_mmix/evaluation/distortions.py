"""Distortions of images: the deformations of the paper, and common corruptions."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from typing_extensions import override

from lightning_mmix.evaluation.arguments import expect
from lightning_mmix.evaluation.condition import Bounds, Condition, Loss, settle, widen

Kind = Literal["gaussian_blur", "brightness", "contrast", "jpeg", "pixelate"]

_STRENGTHS: dict[Kind, tuple[float, float, float, float, float]] = {
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "jpeg": (80, 65, 58, 50, 40),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
}


class Distortion(Condition):
    """A condition of images, which are brought from the range of the data to [0, 1] and back."""

    images_only = True

    @override
    def perturb(self, x: Tensor, loss: Loss, bounds: Bounds, rng: np.random.Generator) -> Tensor:
        shape = tuple(x.shape)
        expect(len(shape) == 4, f"images of shape (B, C, H, W) for {self.name}", shape)
        low, high = bounds
        images = (widen(x) - low) / (high - low)
        return settle(self.distort(images, rng) * (high - low) + low, bounds, x.dtype)

    @abstractmethod
    def distort(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """The images distorted, all of them of shape (B, C, H, W), in [0, 1], at least float32."""


@dataclass(frozen=True)
class Rotation(Distortion):
    """Each image about its centre, by an angle of its own from U(-degrees, degrees).

    Like shear and zoom one of the novel deformations of Verma et al. (2019). Bilinear; what comes
    in from outside of the image is black, the lower bound of the data.

    Args:
        degrees: The largest angle, in [0, 180].

    Raises:
        ValueError: If it is out of range.

    Example:
        >>> turned = Rotation(45).distort(torch.ones(1, 1, 5, 5), np.random.default_rng(0))
        >>> turned[0, 0, 0, 0] < 1, turned[0, 0, 2, 2].round(decimals=3)
        (tensor(True), tensor(1.))
        >>> Rotation(45).name
        'rotation ±45°'
    """

    degrees: float
    family, axis, unit, _name = "rotation", "degrees", "°", "{} ±{:g}°"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.degrees <= 180, "degrees in [0, 180]", self.degrees)

    @override
    def distort(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        turned = torch.empty_like(images)
        for i, angle in enumerate(rng.uniform(-self.degrees, self.degrees, len(images)).tolist()):
            # no fill, not even of 0: it would darken the edges twice (pytorch/vision, issue 8083)
            turned[i] = F.rotate(images[i], angle, InterpolationMode.BILINEAR)
        return turned


@dataclass(frozen=True)
class Shear(Distortion):
    """Each image along its rows, by an angle of its own from U(-degrees, degrees).

    Bilinear; the row at the centre stays, and what comes in from outside is black.

    Args:
        degrees: The largest angle from the upright, in [0, 90).

    Raises:
        ValueError: If it is out of range.

    Example:
        >>> sheared = Shear(60).distort(torch.ones(1, 1, 5, 5), np.random.default_rng(0))
        >>> sheared[0, 0].mean(1) < 0.9
        tensor([ True, False, False, False,  True])
    """

    degrees: float
    family, axis, unit, _name = "shear", "degrees", "°", "{} ±{:g}°"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 <= self.degrees < 90, "degrees in [0, 90)", self.degrees)

    @override
    def distort(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        sheared = torch.empty_like(images)
        for i, angle in enumerate(rng.uniform(-self.degrees, self.degrees, len(images)).tolist()):
            sheared[i] = _affine(images[i], angle=angle)
        return sheared


@dataclass(frozen=True)
class Zoom(Distortion):
    """All images about their centres, by the same factor.

    Bilinear; what comes in from outside is black.

    Args:
        factor: The size of things relative to before: zooms in if > 1, out if in (0, 1).

    Raises:
        ValueError: If it is out of range.

    Example:
        >>> Zoom(0.5).distort(torch.ones(1, 1, 4, 4), np.random.default_rng(0)).round(decimals=3)
        tensor([[[[0., 0., 0., 0.],
                  [0., 1., 1., 0.],
                  [0., 1., 1., 0.],
                  [0., 0., 0., 0.]]]])
    """

    factor: float
    family, axis = "zoom", "factor"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 < self.factor < math.inf, "a finite factor > 0", self.factor)

    @override
    def distort(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        return _affine(images, scale=self.factor)


@dataclass(frozen=True)
class Corruption(Distortion):
    """A common corruption, as strong as in CIFAR-10-C (Hendrycks & Dietterich, 2019).

    | kind              | what the strength is                   | at severity 1 to 5          |
    | ----------------- | -------------------------------------- | --------------------------- |
    | ``gaussian_blur`` | the deviation σ of the blur, in pixels | 0.4, 0.6, 0.7, 0.8, 1       |
    | ``brightness``    | what is added to the largest channel   | 0.05, 0.1, 0.15, 0.2, 0.3   |
    | ``contrast``      | the share left of (x - mean)           | 0.75, 0.5, 0.4, 0.3, 0.15   |
    | ``jpeg``          | the quality of the compression         | 80, 65, 58, 50, 40          |
    | ``pixelate``      | the share left of each side            | 0.95, 0.9, 0.85, 0.75, 0.65 |

    Args:
        kind: Which one; ``"jpeg"`` wants 1 or 3 channels.
        severity: From 1 to 5.

    Raises:
        ValueError: If there is no such kind or severity.

    Example:
        >>> images = torch.tensor([[[[0.0, 1.0]]]])
        >>> Corruption("contrast", 2).distort(images, np.random.default_rng(0))
        tensor([[[[0.2500, 0.7500]]]])
        >>> Corruption("contrast", 6)
        Traceback (most recent call last):
            ...
        ValueError: expected a severity from 1 to 5, but got 6
    """

    kind: Kind
    severity: int
    axis, unit = "severity", "severity"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        expect(1 <= self.severity <= 5, "a severity from 1 to 5", self.severity)

    @property
    @override
    def family(self) -> str:
        return self.kind.replace("_", " ")

    @override
    def distort(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        strength = _STRENGTHS[self.kind][self.severity - 1]
        if self.kind == "gaussian_blur":
            return _blur(images, strength)
        if self.kind == "brightness":
            return _brighten(images, strength)
        if self.kind == "contrast":
            return images.mean((2, 3), keepdim=True).lerp(images, strength)
        if self.kind == "jpeg":
            return _compress(images, int(strength))
        return _pixelate(images, strength)


def _affine(images: Tensor, *, scale: float = 1.0, angle: float = 0.0) -> Tensor:
    bilinear = InterpolationMode.BILINEAR
    moved: Tensor = F.affine(images, 0.0, [0.0, 0.0], scale, [angle, 0.0], interpolation=bilinear)
    return moved


def _blur(images: Tensor, sigma: float) -> Tensor:
    # cut off at four deviations, as scipy does, but no wider than can be mirrored
    radii = [min(int(4 * sigma + 0.5), side - 1) for side in (images.shape[3], images.shape[2])]
    sides = [2 * radius + 1 for radius in radii]
    blurred: Tensor = F.gaussian_blur(images, sides, [sigma, sigma])
    return blurred


def _brighten(images: Tensor, added: float) -> Tensor:
    # the largest channel is the value of HSV: hue and saturation stay if all keep their ratio
    value = images.amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, images * (brighter / value), brighter)


def _compress(images: Tensor, quality: int) -> Tensor:
    channels = images.shape[1]
    expect(channels in (1, 3), "images of 1 or 3 channels for jpeg", channels)
    pixels = (images * 255).round().to("cpu", torch.uint8)
    compressed = torch.empty_like(pixels)
    for i, each in enumerate(pixels):
        # through Pillow, as torchvision's own encoder is deprecated
        compressed[i] = F.pil_to_tensor(F.jpeg(F.to_pil_image(each), quality))
    return compressed.to(images) / 255


def _pixelate(images: Tensor, share: float) -> Tensor:
    height, width = images.shape[2:]
    small = F.resize(images, [max(1, int(height * share)), max(1, int(width * share))])
    large: Tensor = F.resize(small, [height, width], InterpolationMode.NEAREST_EXACT)
    return large
