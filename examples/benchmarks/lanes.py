"""Lanes: ways to train the same network that run side by side in one process, step by step."""

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, inf
from random import Random
from statistics import median, quantiles
from time import perf_counter
from typing import Any, NoReturn

import torch
from greenlet import getcurrent, greenlet

Lane = Callable[[], Any]
"""Carries out one training step each time that it is called."""

NEVER = 10**9
"""More steps than anyone waits for."""

FEW = 6
"""The fewest rounds that a spread is told of."""

_CLOSED_LATER: list[Callable[[], object]] = []


class Loader:
    """A data loader without an end, which waits before each step until it is its turn.

    Args:
        batch: What it yields, the same one for ever.
    """

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Any]:
        while True:
            parent = getcurrent().parent
            assert parent is not None
            parent.switch()
            yield self.batch

    def __len__(self) -> int:
        return NEVER


class FrameworkLane:
    """A framework's own training loop, held up before each step.

    Args:
        fit: Trains for ever on a :class:`Loader` that it is given.
        batch: The batch of all steps.
    """

    def __init__(self, fit: Callable[[Loader], Any], batch: Any) -> None:
        self._loop = greenlet(lambda: self._never_ends(fit, batch))
        close_later(self.close)

    def __call__(self) -> None:
        """Carry out one step (the first time, all that comes before the first step)."""
        self._loop.switch()

    def close(self) -> None:
        """End the fit, wherever it is."""
        self._loop.throw()

    @staticmethod
    def _never_ends(fit: Callable[[Loader], Any], batch: Any) -> NoReturn:
        fit(Loader(batch))
        raise RuntimeError("expected a fit that goes on, but it ended")


def close_later(close: Callable[[], object]) -> None:
    """Have something called by :func:`close_all`, which ends what a lane holds on to."""
    _CLOSED_LATER.append(close)


def close_all() -> None:
    """End the fits of all lanes, and give back their memory."""
    while _CLOSED_LATER:
        _CLOSED_LATER.pop()()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Effort:
    """How long a race goes on.

    Attributes:
        rounds: How often each lane is timed, at most.
        seconds: After how many seconds that ends, if there were a few rounds.
        turn: The seconds that a turn of a lane takes at least: a device that works behind the
            host's back is kept busy, as it is in a training.
    """

    rounds: int
    seconds: float = inf
    turn: float = 0.0

    def rounds_in_time(self) -> Iterator[int]:
        """The numbers of the rounds, as long as there is time for another one."""
        start = perf_counter()
        for number in range(self.rounds):
            if number >= FEW and perf_counter() - start > self.seconds:
                return
            yield number

    def steps(self, lane: Lane, least: int) -> int:
        """How many steps of a lane make a turn."""
        return max(least, ceil(self.turn / timed(lane))) if self.turn else least


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles about it."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        """The spread of two or more values."""
        low, _, high = quantiles(values, n=4, method="inclusive")
        return Spread(median(values), low, high)


@dataclass(frozen=True)
class Course:
    """The steps of a lane, each with those of its base just before and just after it.

    Attributes:
        lane: Seconds for a step, round by round.
        base: Seconds for a step of the base, the mean of the two neighbours.
    """

    lane: list[float]
    base: list[float]

    @staticmethod
    def together(courses: "list[Course]") -> "Course":
        """The rounds of several lanes as those of one."""
        return Course([s for c in courses for s in c.lane], [s for c in courses for s in c.base])

    @property
    def ratio(self) -> Spread:
        """How often a step of the base goes into one of the lane."""
        return Spread.of([mine / its for mine, its in zip(self.lane, self.base, strict=True)])

    @property
    def added(self) -> Spread:
        """The seconds that a step of the lane takes longer than one of the base."""
        return Spread.of(self.differences)

    @property
    def differences(self) -> list[float]:
        """The same, round by round."""
        return [mine - its for mine, its in zip(self.lane, self.base, strict=True)]


def race(
    base: Lane, lanes: Mapping[str, Lane], effort: Effort, *, warm: int = 5, steps: int = 1
) -> dict[str, Course]:
    """Time the lanes in turn, in another order in each round, with the base between them.

    On a machine that others use, too, the speed changes within a second; what is next to each
    other can be compared.

    Args:
        base: What the lanes are compared with.
        lanes: By name.
        effort: How long that goes on.
        warm: The steps of each lane before that.
        steps: The steps of a lane in each of its turns, at least.

    Returns:
        The course of each lane.
    """
    for lane in (base, *lanes.values()):
        for _ in range(warm):
            lane()
    steps = effort.steps(base, steps)
    names, chance = list(lanes), Random(0)
    courses = {name: Course([], []) for name in names}
    for _ in effort.rounds_in_time():
        chance.shuffle(names)
        before = timed(base, steps)
        for name in names:
            courses[name].lane.append(timed(lanes[name], steps))
            after = timed(base, steps)
            courses[name].base.append((before + after) / 2)
            before = after
    return courses


def timed(lane: Lane, steps: int = 1) -> float:
    """The seconds that a lane takes for a step, all of the device's work included."""
    _wait()
    start = perf_counter()
    for _ in range(steps):
        lane()
    _wait()
    return (perf_counter() - start) / steps


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
