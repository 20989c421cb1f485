"""Differences between two ways to train, run for run, and what can be said of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10, nan, sqrt
from typing import Literal

Verdict = Literal["better", "worse", "no difference"]

_ROUNDING = 1e-6  # of a score in single precision, and some more


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, with a confidence interval.

    Attributes:
        mean: Of the differences.
        half_width: Of the interval around it; infinite for a single pair.
        pairs: How many pairs there were.
    """

    mean: float
    half_width: float
    pairs: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero, and has a width at all to judge by."""
        return abs(self.mean) > self.half_width > 0

    def verdict(self, *, higher_is_better: bool) -> Verdict:
        """What it says, if more is better, or if less is."""
        if not self.is_clear:
            return "no difference"
        return "better" if (self.mean > 0) == higher_is_better else "worse"


def paired_difference(
    values: Sequence[float], base: Sequence[float], confidence: float = 0.95
) -> Difference:
    """The difference of two ways to train, each pair of runs with the same seed.

    The interval is Student's, mean ± t·s/√n with n - 1 degrees of freedom: it takes differences
    to be normally distributed, and is wide for few seeds as it has to be.

    Args:
        values: A score in n runs.
        base: The same score of the other way, in the same order of seeds.
        confidence: Of the interval, in (0, 1).

    Returns:
        values minus base.

    Raises:
        ValueError: If there are no or unequally many runs.

    Example:
        >>> paired_difference([0.93, 0.95, 0.94], [0.91, 0.92, 0.92]).is_clear
        True
    """
    from scipy.stats import t  # noqa: PLC0415 - of the report extra

    if not values or len(values) != len(base):
        raise ValueError(f"expected pairs of runs, but got {len(values)} and {len(base)}")
    differences = [a - b for a, b in zip(values, base, strict=True)]
    pairs = len(differences)
    if pairs == 1:
        return Difference(differences[0], float("inf"), 1)
    mean, deviation = mean_and_deviation(differences)
    if deviation < _ROUNDING * max(map(abs, (*values, *base))):
        deviation = 0.0  # a width of rounding errors would make any difference a clear one
    factor = float(t.ppf((1 + confidence) / 2, pairs - 1))
    return Difference(mean, factor * deviation / sqrt(pairs), pairs)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean of one or more values, and their standard deviation, with n - 1; NaN of one.

    By hand, for the NLL of a run may be NaN or infinite, which the statistics module refuses.

    Example:
        >>> mean_and_deviation([1.0, 3.0])
        (2.0, 1.4142135623730951)
    """
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, nan
    return mean, sqrt(sum((each - mean) * (each - mean) for each in values) / (len(values) - 1))


def digits_for(values: Iterable[float]) -> int:
    """How many digits behind the point show values: two above 1, three from 0.01 on, or more.

    Example:
        >>> [digits_for([value]) for value in (12.0, 0.5, 0.0012)]
        [2, 3, 5]
    """
    largest = max((abs(value) for value in values if isfinite(value)), default=0.0)
    if largest > 1:
        return 2
    return 3 if largest >= 0.01 or not largest else 2 - floor(log10(largest))
