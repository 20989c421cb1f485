"""The schedule: how strongly and how often batches are mixed, in the course of a training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

Scheduled = float | Mapping[int, float]
_HALF = 0.5  # of the training: what is recommended, see examples/panel


@dataclass(frozen=True)
class Schedule:
    """When batches are mixed, and how strongly.

    Attributes:
        alpha: α, finite and ≥ 0, or a mapping from the epoch where it begins to hold; 0 means no
            mixing.
        prob: The probability in [0, 1] that a batch is mixed, or such a mapping.
        stop: The share of the training, in [0, 1], after which nothing is mixed. None is half of
            it, or all where its length is not known, or where ``settle`` or a mapping says when.
        settle: The share of the training, in [0, 1], at whose end a batch is mixed only while the
            network is over-confident; with ``stop`` that goes on until then.

    Raises:
        ValueError: If one of them is out of range, a mapping has no epoch 0, or ``stop`` comes
            before ``settle`` begins.
    """

    alpha: Scheduled = 1.0
    prob: Scheduled = 1.0
    stop: float | None = None
    settle: float = 0.0

    def __post_init__(self) -> None:
        for alpha in _values("alpha", self.alpha):
            if not 0 <= alpha < math.inf:
                raise ValueError(f"expected a finite alpha ≥ 0, but got {alpha}")
        _refuse_no_shares("prob", _values("prob", self.prob))
        _refuse_no_shares("stop", [self._stop])
        _refuse_no_shares("settle", [self.settle])
        if self.settle > 0 and self._stop <= 1 - self.settle:
            raise ValueError(
                f"settle={self.settle} looks at the training from {1 - self.settle:.0%} on, but "
                f"stop={self.stop} ends the mixing by then; give a later stop, or leave one out"
            )

    @cached_property
    def never_mixes(self) -> bool:
        """Whether no batch can ever be mixed."""
        strengths = _values("alpha", self.alpha), _values("prob", self.prob), [self._stop]
        return not all(any(values) for values in strengths)

    @cached_property
    def needs_length(self) -> bool:
        """Whether it depends on how much of the training is done."""
        return self._stop < 1 or self.settle > 0

    @cached_property
    def needs_epoch(self) -> bool:
        """Whether it depends on the epoch."""
        return isinstance(self.alpha, Mapping) or isinstance(self.prob, Mapping)

    @cached_property
    def is_constant(self) -> bool:
        """Whether all of the training is mixed alike."""
        return not self.needs_length and not self.needs_epoch

    def at(self, epoch: int, done: float | None, gap: float | None) -> tuple[float, float]:
        """α and the probability that a batch is mixed.

        Args:
            epoch: The epoch, ≥ 0.
            done: The share of the training that is done, in [0, 1]; None if that is not known.
            gap: Mean confidence minus accuracy of the last validation; None if there was none.

        Raises:
            ValueError: If ``done`` is needed and not known.
        """
        alpha, prob = _at(self.alpha, epoch), _at(self.prob, epoch)
        if self.needs_length and (done is not None or not self._is_by_default):
            done = _known(done)
            is_settled = gap is not None and gap <= 0  # of no samples it is NaN
            if done >= self._stop or (self.settles(done) and is_settled):
                prob = 0.0
        return alpha, prob

    @cached_property
    def _is_by_default(self) -> bool:
        """Whether nothing was said of when to mix."""
        return self.stop is None and self.settle == 0 and not self.needs_epoch

    @cached_property
    def _stop(self) -> float:
        if self.stop is not None:
            return self.stop
        return _HALF if self._is_by_default else 1.0

    def told(self, done: float | None) -> str:
        """In words, until when batches are mixed; empty where the user said to the end."""
        if done is None or not self.needs_length:
            return "mixed throughout" if self.stop is None else ""
        if done >= self._stop:
            return f"nothing is mixed any more, after {self._stop:.0%} of the training"
        until = f"until {self._stop:.0%} of the training" if self._stop < 1 else "to the end"
        if self.settle > 0:
            until += f", from {1 - self.settle:.0%} on only while over-confident"
        return f"mixed {until}"

    def settles(self, done: float) -> bool:
        """Whether mixing depends on confidence when this share of the training is done."""
        return self.settle > 0 and done >= 1 - self.settle


def share_of(epoch: int, of: int | None) -> float | None:
    """The share of a training that is done when an epoch begins; None if its length is not known.

    Args:
        epoch: The epoch, counted from 0.
        of: How many there are.

    Raises:
        ValueError: If there is no such epoch.

    Example:
        >>> share_of(1, of=4)
        0.25
    """
    if not (isinstance(epoch, int) and epoch >= 0):
        raise ValueError(f"epochs count from 0: expected a whole number ≥ 0, but got {epoch!r}")
    if of is None:
        return None
    if not (isinstance(of, int) and of > 0):
        raise ValueError(f"expected the number of epochs, ≥ 1, as of, but got {of!r}")
    if epoch >= of:
        raise ValueError(f"epochs count from 0: the last of {of} is {of - 1}, but got {epoch}")
    return epoch / of


def _at(scheduled: Scheduled, epoch: int) -> float:
    if isinstance(scheduled, Mapping):
        return scheduled[max(start for start in scheduled if start <= epoch)]
    return scheduled


def _values(name: str, scheduled: Scheduled) -> list[float]:
    if not isinstance(scheduled, Mapping):
        return _numbers(name, [scheduled])
    are_epochs = all(isinstance(epoch, int) and epoch >= 0 for epoch in scheduled)
    if 0 not in scheduled or not are_epochs:
        raise ValueError(
            f"expected {name} to map epochs from 0 on to numbers, as {{0: 0.5, 160: 0}} does, but "
            f"got {dict(scheduled)}"
        )
    return _numbers(name, list(scheduled.values()))


def _numbers(name: str, values: list[Any]) -> list[float]:
    for value in values:
        if not isinstance(value, Real):
            raise TypeError(f"expected numbers for {name}, but got {value!r}")
    return values


def _refuse_no_shares(name: str, values: list[float]) -> None:
    for value in _numbers(name, values):
        if not 0 <= value <= 1:
            raise ValueError(f"expected {name} in [0, 1], but got {value}{_advice(name, value)}")


def _advice(name: str, value: float) -> str:
    """How to say it of a number of epochs, which a stop may be meant as."""
    if name != "stop" or value < 1 or not float(value).is_integer():
        return ""
    return f"; it is a share of the fit: for {value:g} epochs say prob={{0: 1, {value:g}: 0}}"


def _known(done: float | None) -> float:
    if done is None:
        raise ValueError(
            "stop and settle are shares of the training, whose length is not known; give the "
            "Trainer max_epochs or max_steps, and a loop of your own mixer.set_epoch(epoch, of=…)"
        )
    return done
