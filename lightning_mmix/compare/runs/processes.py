"""Processes: the runs of a comparison, each in one of its own, as many at once as fit."""

import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from lightning_mmix.compare.runs.claims import Claim, claim, clear, is_abandoned
from lightning_mmix.compare.runs.task import (
    LOG,
    SHARE,
    Task,
    folder_of,
    read_json,
    result_of,
    write_json,
)
from lightning_mmix.problems import RemoteTraceback

TASKS, FACTS = "tasks.json", "facts.json"

Slot = Mapping[str, str]  # what the environment of a run has of its own


class RunFailedError(RuntimeError):
    """A run that ended without a result."""


class Watcher(Protocol):
    """Who is told how the runs go."""

    def goes(self, share: float, seconds: float) -> None:
        """A run has done a share of its training in so many seconds."""

    def done(self, task: Task) -> None:
        """A run is done."""


def slots(jobs: int | None, gpus_per_run: int, gpus: Sequence[str]) -> list[Slot]:
    """The places to run at once: a GPU each, or else shares of the processor's cores.

    Args:
        jobs: How many at most; None for as many as there are GPUs, or up to four on a processor.
        gpus_per_run: How many GPUs each run gets.
        gpus: Their names, as CUDA_VISIBLE_DEVICES has them.

    Raises:
        ValueError: If there is no place.
    """
    if gpus:
        groups = [gpus[i : i + gpus_per_run] for i in range(0, len(gpus), gpus_per_run)]
        whole = [group for group in groups if len(group) == gpus_per_run]
        if not whole:
            raise ValueError(f"expected {gpus_per_run} GPUs for a run, but there are {len(gpus)}")
        return [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in whole[:jobs]]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    number = jobs or min(cores, 4)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // number))
    return [{"OMP_NUM_THREADS": threads}] * number


def rehearsed(tasks: Sequence[Task]) -> dict[str, Any]:
    """Rehearse runs in a process of its own, which trains nothing.

    Args:
        tasks: One of each way to train.

    Returns:
        What :func:`~.rehearsal.rehearse` finds.

    Raises:
        ArgumentError: With what is wrong, in a sentence.
        RunFailedError: If the process ends otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="lightning-mmix-") as name:
        folder = Path(name)
        write_json(folder / TASKS, [vars(task) for task in tasks])
        with _started(folder, {}) as process:
            process.wait()
        facts = read_json(folder / FACTS)
        if facts is None:
            raise RunFailedError(
                f"the process that tried it ended early, with exit code {process.returncode}; it "
                f"printed last: {_last_line(folder)}"
            )
        if "problem" in facts:
            cause = RemoteTraceback(facts["traceback"], is_meant=facts["is_meant"])
            raise ArgumentError(None, facts["problem"]) from cause
        return facts


def carry_out(
    tasks: Sequence[Task], folder: Path, places: Sequence[Slot], watcher: Watcher
) -> None:
    """Carry out the tasks that have no result yet, a process each, as many at once as fit.

    Runs that another worker has claimed are left to it. However this ends, no process is left
    behind; what was unfinished is done anew the next time.

    Args:
        tasks: What to do.
        folder: Of the comparison.
        places: Where to run.
        watcher: Who is told.

    Raises:
        RunFailedError: If a run fails, with what was wrong.
    """
    waiting = [task for task in tasks if result_of(task, folder) is None]
    running: list[_Running] = []
    free = list(places)
    try:
        while waiting or running:
            while waiting and free:
                if (run := _start(waiting.pop(0), folder, free[0])) is not None:
                    running.append(run)
                    free.pop(0)
            for run in [each for each in running if not _goes_on(each, folder, watcher)]:
                running.remove(run)
                free.append(run.place)
                _finish(run, folder, watcher)
            time.sleep(0.05)
    finally:
        for run in running:
            _end(run.process)
            run.claim.release()


def abandoned(tasks: Sequence[Task], folder: Path) -> list[Task]:
    """The tasks without a result whose worker is dead."""
    left = [task for task in tasks if result_of(task, folder) is None]
    return [task for task in left if is_abandoned(folder_of(task, folder))]


class _Running(NamedTuple):
    task: Task
    place: Slot
    process: subprocess.Popen[bytes]
    claim: Claim


def _start(task: Task, folder: Path, place: Slot) -> _Running | None:
    own = folder_of(task, folder)
    own.mkdir(parents=True, exist_ok=True)
    held = claim(own)
    if held is None:
        return None
    if result_of(task, folder) is not None:  # it was done meanwhile
        held.release()
        return None
    (own / SHARE).unlink(missing_ok=True)
    task.write(own)
    return _Running(task, place, _process(own, place), held)


def _goes_on(run: _Running, folder: Path, watcher: Watcher) -> bool:
    if run.process.poll() is not None:
        return False
    if run.claim.is_due and not run.claim.beat():  # this worker was taken for dead
        _end(run.process)
        return False
    with suppress(OSError, ValueError):
        if told := read_json(folder_of(run.task, folder) / SHARE):
            watcher.goes(told["share"], told["seconds"])
    return True


def _finish(run: _Running, folder: Path, watcher: Watcher) -> None:
    _end(run.process)
    own = folder_of(run.task, folder)
    is_own = run.claim.beat()
    run.claim.release()
    if result_of(run.task, folder) is not None:
        clear(own)
        watcher.done(run.task)
    elif is_own:
        raise RunFailedError(
            f"the run of {run.task.arm}, seed {run.task.seed}, failed: {_last_line(own)} "
            f"({own / LOG})"
        )


def _process(folder: Path, place: Slot) -> subprocess.Popen[bytes]:
    # what can be imported here can be imported there
    paths = [path or str(Path.cwd()) for path in sys.path]
    environment = {**os.environ, **place, "PYTHONPATH": os.pathsep.join(paths)}
    environment["PYTHONIOENCODING"] = "utf-8"  # of the log, whatever is printed there
    environment.pop("PL_GLOBAL_SEED", None)
    command = [sys.executable, "-m", "lightning_mmix.compare.runs", str(folder.absolute())]
    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
        )


@contextmanager
def _started(folder: Path, place: Slot) -> Iterator[subprocess.Popen[bytes]]:
    process = _process(folder, place)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    pipe: IO[bytes] | None = process.stdin
    if pipe is not None:
        with suppress(OSError):
            pipe.close()  # which a run takes as its end
    process.wait()


def _last_line(folder: Path) -> str:
    """What a log ends with: the sentence of what failed."""
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.strip() for line in lines if line.strip()]
    return told[-1] if told else "it printed nothing"
