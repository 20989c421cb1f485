"""Processes: the runs of a comparison, each in one of its own, as many at once as fit."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote

import torch

from lightning_mmix.compare.runs import RESULT, Task, write_json

SPEC = "comparison.json"

_TOLD = 3  # lines of the log of a run that failed

Slot = Mapping[str, str]  # what the environment of a run has of its own


class RunFailedError(RuntimeError):
    """A run that ended without a result."""


def claim(folder: Path, spec: Mapping[str, Any]) -> None:
    """Have a folder hold one comparison only, which may go on and get more seeds and arms.

    Args:
        folder: Made if it is not there.
        spec: What makes runs comparable, by names that a message can use, in plain containers.

    Raises:
        ValueError: If the folder holds a comparison of another kind.
    """
    path = folder / SPEC
    before = json.loads(path.read_text()) if path.exists() else {}
    differing = [key for key in spec if before.get(key, spec[key]) != spec[key]]
    if differing and any(folder.glob(f"runs/*/{RESULT}")):
        raise ValueError(
            f"{folder} holds a comparison with other {' and '.join(differing)}; "
            "take another --out, or delete the folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {**before, **spec})


def slots(jobs: int | None, gpus_per_run: int = 1) -> list[Slot]:
    """The places to run at once: a GPU each, or else shares of the processor's cores.

    Args:
        jobs: How many at most; None for as many as there are GPUs, or up to four on a processor.
        gpus_per_run: How many GPUs each run gets.

    Raises:
        ValueError: If there is no place.
    """
    if (jobs is not None and jobs < 1) or gpus_per_run < 1:
        raise ValueError(f"expected runs of at least 1 at once, but got {jobs}, {gpus_per_run}")
    gpus = _gpus()
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


def folder_of(task: Task, folder: Path) -> Path:
    """Where a run leaves its log and its result."""
    return folder / "runs" / f"{quote(task.arm, safe='')}-{task.seed}"


def result_of(task: Task, folder: Path) -> dict[str, Any] | None:
    """The result of a run, None if it is not done."""
    path = folder_of(task, folder) / RESULT
    return json.loads(path.read_text()) if path.exists() else None


def carry_out(
    tasks: Sequence[Task], folder: Path, places: Sequence[Slot], done: Callable[[Task], None]
) -> None:
    """Carry out the tasks that have no result yet, a process each, as many at once as fit.

    However this ends, no process is left behind; what was unfinished is done anew the next time.

    Args:
        tasks: What to do.
        folder: Of the comparison.
        places: Where to run.
        done: Called with each task that is done.

    Raises:
        RunFailedError: If a run fails, with the last line of its log.
    """
    waiting = [task for task in tasks if result_of(task, folder) is None]
    running: list[_Running] = []
    free = list(places)
    try:
        while waiting or running:
            while waiting and free:
                running.append(_start(waiting.pop(0), folder, free.pop(0)))
            for run in [each for each in running if each.process.poll() is not None]:
                running.remove(run)
                free.append(run.place)
                _finish(run, folder, done)
            time.sleep(0.05)
    finally:
        for run in running:
            _end(run.process)


class _Running(NamedTuple):
    task: Task
    place: Slot
    process: subprocess.Popen[bytes]


def _finish(run: _Running, folder: Path, done: Callable[[Task], None]) -> None:
    _end(run.process)
    if result_of(run.task, folder) is None:
        raise _failure(run.task, folder)
    done(run.task)


def _start(task: Task, folder: Path, place: Slot) -> _Running:
    own = folder_of(task, folder)
    own.mkdir(parents=True, exist_ok=True)
    task.write(own)
    # what can be imported here can be imported there
    paths = [path or str(Path.cwd()) for path in sys.path]
    environment = {**os.environ, **place, "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("PL_GLOBAL_SEED", None)
    with (own / "log.txt").open("wb") as log:
        command = [sys.executable, "-m", "lightning_mmix.compare", str(own.absolute())]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
    return _Running(task, place, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    pipe: IO[bytes] | None = process.stdin
    if pipe is not None:
        with suppress(OSError):
            pipe.close()  # which a run takes as its end
    process.wait()


def _failure(task: Task, folder: Path) -> RunFailedError:
    log = folder_of(task, folder) / "log.txt"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    last = " ".join(list(filter(None, lines))[-_TOLD:]) or "it printed nothing"
    hint = "; --arms none manifold leaves this one out" if task.way == "input" else ""
    return RunFailedError(f"the run of {task.arm}, seed {task.seed}, failed: {last} ({log}){hint}")


def _gpus() -> list[str]:
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name for name in visible.split(",") if name] or [str(i) for i in range(count)]
    return names[:count]
