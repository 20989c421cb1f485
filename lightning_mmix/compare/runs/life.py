"""Signs of life: what a comparison tells while it runs."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from lightning_mmix.compare.runs.processes import Slot
from lightning_mmix.compare.runs.task import Task, result_of

_FEW = 5.0  # seconds of training, which say how long all of it will take


class Signs:
    """A line as each run ends, and how long all will take; on a terminal a progress bar, too.

    Args:
        console: Where to.
        tasks: All runs of this worker.
        folder: Of the comparison.
        places: Where they run.
    """

    def __init__(
        self, console: Console, tasks: Sequence[Task], folder: Path, places: Sequence[Slot]
    ) -> None:
        # imported late: see the package's face
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._console, self._folder, self._places = console, folder, places
        self._total = len(tasks)
        left = [task for task in tasks if result_of(task, folder) is None]
        self._done = self._total - len(left)
        self._began, self._new = time.monotonic(), 0  # runs that were done since
        self._is_guessed = False
        columns = [TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        self._progress = Progress(
            *columns, TextColumn("{task.description}"), console=console,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._bar = self._progress.add_task("", total=self._total, completed=self._done)

    def __enter__(self) -> "Signs":
        if not self._progress.disable:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        if not self._progress.disable:  # rich 13 ends with an empty line even so
            self._progress.stop()

    def goes(self, share: float, seconds: float) -> None:
        """Guess how long all of it will take, after the first few seconds of training."""
        if self._is_guessed or self._new or seconds < _FEW:
            return
        self._is_guessed = True
        whole = seconds / share
        rounds = -(-(self._total - self._done) // len(self._places))
        self._say(
            f"training: about {lasting(whole)} a run, {lasting(whole * rounds)} in all; "
            "measuring comes on top"
        )

    def done(self, task: Task) -> None:
        """Tell of a run that is done, and what is to come."""
        run = result_of(task, self._folder) or {}
        self._done, self._new = self._done + 1, self._new + 1
        left = max(self._total - self._done, 0)
        # those that run beside are half done, on the average
        halves = self._new + (min(len(self._places), left + 1) - 1) / 2
        took = time.monotonic() - self._began
        coming = f"; about {lasting(took / halves * left)} left" if left else ""
        of_all = f"{self._done:{len(str(self._total))}}/{self._total}"
        self._say(
            f"{of_all}  seed {task.seed}  {task.arm:15}  {_score(run)}, "
            f"in {lasting(sum(run['seconds'].values()))}{coming}"
        )
        self._progress.update(self._bar, completed=self._done, description=coming.lstrip("; "))

    def _say(self, line: str) -> None:
        is_file = not self._console.is_terminal  # of lines that need not be broken
        self._progress.console.print(line, highlight=False, soft_wrap=is_file)


def lasting(seconds: float) -> str:
    """A time as one says it.

    Example:
        >>> [lasting(each) for each in (8.4, 95, 5000)]
        ['8 s', '2 min', '1.4 h']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _score(run: Mapping[str, Any]) -> str:
    """The first score of a run."""
    if "clean" in run:
        return f"accuracy {100 * run['clean']['accuracy']:.2f} %"
    name, value = next(iter(run["own"].items()), ("nothing", 0.0))
    return f"{name} {value:.4g}"
