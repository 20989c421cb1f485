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

    Example:
        >>> Difference(-0.25, 0.125, 5).verdict(higher_is_better=False)
        'better'
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

    def shown(self, places: int, unit: str = "") -> str:
        """The mean with so many digits behind the point, and the interval in brackets.

        Example:
            >>> print(*Difference(-0.129, 0.067, 5).shown(2).split())  # at no-break spaces, too
            -0.13 (-0.20 to -0.06)
        """
        mean = number(self.mean, places, "+") + unit
        if self.pairs == 1 or not isfinite(self.mean):
            return mean
        if not self.half_width:
            return f"{mean} (the same with every seed)"
        ends = (self.mean - self.half_width, self.mean + self.half_width)
        low, high = (number(end, places, "+") for end in ends)
        return f"{mean} ({low}\xa0to\xa0{high})"


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
    if not values or len(values) != len(base):
        raise ValueError(f"expected pairs of runs, but got {len(values)} and {len(base)}")
    differences = [a - b for a, b in zip(values, base, strict=True)]
    pairs = len(differences)
    if pairs == 1:
        return Difference(differences[0], float("inf"), 1)
    mean, deviation = mean_and_deviation(differences)
    if deviation < _ROUNDING * max(map(abs, (*values, *base))):
        deviation = 0.0  # a width of rounding errors would make any difference a clear one
    return Difference(mean, reach(pairs, confidence) * deviation, pairs)


def reach(pairs: int, confidence: float = 0.95) -> float:
    """How many standard deviations an interval reaches to each side of the mean of 2 or more pairs.

    Example:
        >>> [round(reach(pairs), 1) for pairs in (2, 5, 10)]
        [9.0, 1.2, 0.7]
    """
    from scipy.stats import t  # noqa: PLC0415 - of the report extra

    return float(t.ppf((1 + confidence) / 2, pairs - 1)) / sqrt(pairs)


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


def places_for(values: Sequence[float], difference: Difference) -> int:
    """How many digits behind the point show values, and a clear difference as more than zero.

    Example:
        >>> [places_for([5.0], Difference(mean, 0.001, 3)) for mean in (-0.5, 0.003)]
        [2, 5]
    """
    places = digits_for(values)
    is_lost = difference.is_clear and abs(difference.mean) < 10**-places
    return digits_for([difference.mean]) if is_lost else places


def number(value: float, places: int, sign: Literal["", "+"] = "") -> str:
    """A number with so many digits behind the point; zero without a sign.

    Example:
        >>> number(2.5, 2, "+"), number(-0.001, 2), number(0.001, 2, "+")
        ('+2.50', '0.00', '0.00')
    """
    text = f"{value:{sign}.{places}f}"
    return text if float(text) else text.lstrip("+-")
