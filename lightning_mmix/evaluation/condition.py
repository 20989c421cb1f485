"""What a condition is: something done to the inputs of a classifier, in the units of its data."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lightning_mmix.evaluation.arguments import Numbers, Pair, conform, expect, listed

Loss = Callable[[Tensor], Tensor]
Bounds = Pair


class Condition(ABC):
    """What is done to the inputs of a classifier before it is evaluated; never to its labels.

    One of your own needs ``family``, ``axis`` and ``perturb``. The arguments of a dataclass have to
    be of the types of its fields.

    Attributes:
        axis: The name of the argument that is the strength.
        unit: Of the strength.
        images_only: Whether inputs must be images, of shape (B, C, H, W).

    Example:
        >>> @dataclass(frozen=True)
        ... class Dimmer(Condition):
        ...     factor: float
        ...     family, axis = "dimmer", "factor"
        ...     def perturb(self, x, loss, bounds, rng):
        ...         return bounds[0] + self.factor * (x - bounds[0])
        >>> Dimmer(0.5).name
        'dimmer 0.5'
        >>> Dimmer("half")
        Traceback (most recent call last):
            ...
        ValueError: expected a number as factor, but got 'half'
    """

    axis: ClassVar[str]
    unit: ClassVar[str] = ""
    images_only: ClassVar[bool] = False
    _name: ClassVar[str] = "{} {:g}"

    def __post_init__(self) -> None:
        conform(self)

    @property
    @abstractmethod
    def family(self) -> str:
        """What stands over the curve that conditions of different strengths make."""

    @property
    def strength(self) -> float:
        """Where on that curve: ε, degrees, a factor, a deviation, a severity."""
        strength: float = getattr(self, self.axis)
        return strength

    @property
    def name(self) -> str:
        """The condition in words."""
        return self._name.format(self.family, self.strength)

    @abstractmethod
    def perturb(self, x: Tensor, loss: Loss, bounds: Bounds, rng: np.random.Generator) -> Tensor:
        """The batch under this condition.

        Args:
            x: Shape (B, ...), floating point, within ``bounds``; it stays as it is.
            loss: Shape (B, ...) to (B,): the loss of each sample, which depends on it alone.
            bounds: The least and the largest value of the data.
            rng: The only source of randomness.

        Returns:
            Shaped like ``x``, within ``bounds``.
        """


@dataclass(frozen=True)
class Units:
    """The units of the data, in which conditions are given: x·std + mean of what a network gets.

    Attributes:
        low: The least value of the data.
        high: The largest.
        mean: What was subtracted from the data before the network gets them, one number or one a
            channel.
        std: What they were divided by then.

    Raises:
        ValueError: If the range is empty, a mean not finite, or a std not above 0.

    Example:
        >>> units = Units(mean=0.5, std=0.25)
        >>> units.of_data(torch.tensor([[-2.0, 0.0, 2.0]]))
        tensor([[0.0000, 0.5000, 1.0000]])
        >>> units.of_network(torch.tensor([[0.0, 0.5, 0.75]]))
        tensor([[-2.,  0.,  1.]])
    """

    low: float = 0.0
    high: float = 1.0
    mean: Numbers = 0.0
    std: Numbers = 1.0

    def __post_init__(self) -> None:
        conform(self)
        expect(self.low < self.high, "a range with low < high", (self.low, self.high))
        expect(all(map(math.isfinite, listed(self.mean))), "a finite mean", self.mean)
        expect(all(0 < each < math.inf for each in listed(self.std)), "a finite std > 0", self.std)

    def of_data(self, x: Tensor) -> Tensor:
        """What a network gets, in the units of the data, at least in single precision.

        Raises:
            ValueError: If that lies outside of the data's range.
        """
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        data = wide * _like(self.std, wide) + _like(self.mean, wide)
        slack = 1e-3 * (self.high - self.low)
        if len(data) and (data.min() < self.low - slack or data.max() > self.high + slack):
            raise ValueError(
                f"the inputs lie in [{data.min():.3g}, {data.max():.3g}], outside of the data's "
                f"range [{self.low:g}, {self.high:g}]; give their range, or the mean and std that "
                "they were normalised by"
            )
        return data.clamp(self.low, self.high)

    def of_network(self, data: Tensor) -> Tensor:
        """Data as a network gets them."""
        return (data - _like(self.mean, data)) / _like(self.std, data)


def widen(x: Tensor) -> Tensor:
    """``x`` in at least float32, in which small steps are not rounded away.

    Raises:
        TypeError: If ``x`` is not floating point.
    """
    if not x.is_floating_point():
        raise TypeError(f"expected a floating-point x, but got {x.dtype}")
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def settle(values: Tensor, bounds: Bounds, dtype: torch.dtype) -> Tensor:
    """The values, clamped to the range of the data, in ``dtype``.

    Raises:
        ValueError: If ``bounds`` are no range.
    """
    low, high = bounds
    is_range = -math.inf < low < high < math.inf
    expect(is_range, "finite bounds (low, high) with low < high", bounds)
    return values.clamp(low, high).to(dtype)


def to_tensor(drawn: np.ndarray, like: Tensor) -> Tensor:
    """Numbers drawn by numpy, with the dtype and on the device of ``like``."""
    # cast first, for some devices have no float64
    return torch.from_numpy(drawn).to(like.dtype).to(like.device)


def _like(numbers: Numbers, x: Tensor) -> Tensor:
    """Numbers that broadcast along the channels of x."""
    values = torch.as_tensor(numbers, dtype=x.dtype, device=x.device)
    return values.view(-1, *[1] * (x.dim() - 2)) if values.dim() else values
