"""Places: the line of the user's code from which a function of torch's was called."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from torch import nn
from torchmetrics import Metric

from lightning_mmix.problems import LIBRARIES, library_of

# all metrics are updated by way of one function of torchmetrics'
_UPDATES = [each for each in Metric._wrap_update.__code__.co_consts if isinstance(each, CodeType)]
_NEAR = 16  # frames


@dataclass(frozen=True)
class Place:
    """A line of code.

    Attributes:
        file: The path of its file.
        line: Its number, from 1.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def current_place() -> Place:
    """The innermost line that is neither ours nor torch's or its kin's."""
    frames = list(_frames())
    users = (frame for frame in frames if library_of(frame) not in LIBRARIES)
    frame = next(users, frames[0])
    return Place(frame.f_code.co_filename, frame.f_lineno)


def is_in_metric() -> bool:
    """Whether a metric of torchmetrics' runs within the training step."""
    return any(isinstance(each, Metric) for each in _selves())


def is_measuring() -> bool:
    """Whether a metric that has no gradient, as an accuracy, is being updated."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_NEAR):
        if frame is None:
            return False
        if frame.f_code in _UPDATES:
            return getattr(frame.f_locals.get("self"), "is_differentiable", None) is False
        frame = frame.f_back
    return False


def is_in_network() -> bool:
    """Whether the forward pass of a module with parameters runs within the training step."""
    return any(_has_parameters(each) for each in _selves("_call_impl"))


def _selves(function: str | None = None) -> Iterator[Any]:
    """Whose methods are running, those alone that are called ``function`` if it is given."""
    for frame in _frames():
        name = frame.f_code.co_name
        if name == "training_step":  # DDP calls it from within a forward pass
            return
        if function in (None, name):
            yield frame.f_locals.get("self")


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _has_parameters(module: Any) -> bool:
    return isinstance(module, nn.Module) and next(module.parameters(), None) is not None
