"""The runs of a panel, carried out side by side, and written down one by one to resume."""

import json
import multiprocessing
import os
import signal
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread

from rich.progress import track

from panel.arms import arguments_for
from panel.tasks import TASKS, Task
from panel.training import Arguments, Scores, quiet, run


@dataclass(frozen=True)
class Run:
    """One training, and its measurement.

    Attributes:
        task: Its name.
        arguments: Of :class:`lightning_mmix.ManifoldMixup`, as JSON; ``"null"`` without.
        seed: Of everything that is drawn.
        steps: Of the training.
        held_out: Whether held-out validation data stand in for the test data.
    """

    task: str
    arguments: str
    seed: int
    steps: int
    held_out: bool = False


def run_of(task: Task, arguments: Arguments | None, seed: int, held_out: bool = False) -> Run:
    """A run, of what a task can have of these arguments."""
    can_have = arguments_for(task, arguments)
    return Run(task.name, json.dumps(can_have, sort_keys=True), seed, task.steps, held_out)


def results_of(runs: Iterable[Run], path: Path, processes: int | None = None) -> dict[Run, Scores]:
    """Carry out what is not done yet.

    Args:
        runs: Which.
        path: Of the file with a JSON line for each run that is done. What it has is not run again.
        processes: How many at once; None for as many as there are processors.

    Returns:
        The scores of each of them.
    """
    runs = list(dict.fromkeys(runs))
    done = results_in(path)
    missing = [each for each in runs if each not in done]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are done, as {path} says", flush=True)
    cut_short = path.exists() and not path.read_text().endswith("\n")
    pool = ProcessPoolExecutor(
        processes or os.cpu_count(),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
    )
    with path.open("a") as file, pool:
        file.write("\n" * cut_short)
        futures = {pool.submit(_carried_out, each): each for each in missing}
        try:
            for future in track(as_completed(futures), "training", len(futures)):
                each = futures[future]
                done[each] = future.result()
                file.write(json.dumps({**asdict(each), "scores": done[each]}) + "\n")
                file.flush()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise SystemExit("stopped; the same command goes on from here") from None
    return {each: done[each] for each in runs}


def results_in(path: Path) -> dict[Run, Scores]:
    """What a file holds; a last line that a kill cut short does not count."""
    done = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        with suppress(ValueError, TypeError, KeyError, AttributeError):  # not a line of ours
            entry = json.loads(line)
            scores = entry.pop("scores")
            done[Run(**entry)] = scores
    return done


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says what happens
    quiet()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()  # killed, it can't stop its pool
        os._exit(1)


def _carried_out(each: Run) -> Scores:
    task = replace(TASKS[each.task], steps=each.steps)
    scores = run(task, json.loads(each.arguments), each.seed, held_out=each.held_out)
    return {name: float(f"{value:.6g}") for name, value in scores.items()}
