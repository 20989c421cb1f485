"""The rehearsal: all that a comparison needs, tried on one batch before anything is trained."""

import json
import math
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_mmix.batches.roles import find_input, find_targets
from lightning_mmix.compare.instructions import Instructions
from lightning_mmix.compare.options import names
from lightning_mmix.compare.runs.machine import gpus, machine
from lightning_mmix.compare.runs.parser import OPTIONS
from lightning_mmix.compare.runs.processes import FACTS, TASKS
from lightning_mmix.compare.runs.run import (
    RunCLI,
    ending_with_its_parent,
    instructions_of,
    mixup_of,
)
from lightning_mmix.compare.runs.task import Task, write_json
from lightning_mmix.core.trees import describe
from lightning_mmix.cuts.snapshot import untouched
from lightning_mmix.evaluation.condition import Units
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.metrics.doubts import likely_form
from lightning_mmix.problems import is_meant, sentence_of
from lightning_mmix.training.callback import ManifoldMixup
from lightning_mmix.training.check import plan_of, trial_of
from lightning_mmix.training.trials import alone, at_first_batch, unheard
from lightning_mmix.training.visits import has, stage_of, visited

# of a rehearsal all runs on one device
_ALONE = ("--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto")
_LOOKED = ("form", "output", "ignore_index")  # who says one of these wants scores


class ProblemError(ValueError):
    """What is wrong with a comparison, in a sentence that names the way to train."""


def main(folder: Path) -> None:
    """Rehearse the tasks of a folder, and write there what was found."""
    tasks = [Task(**each) for each in json.loads((folder / TASKS).read_text(encoding="utf-8"))]
    with ending_with_its_parent():
        try:
            facts = rehearse(tasks)
        except ProblemError as problem:
            cause = problem.__cause__ or problem
            told = "".join(traceback.format_exception(cause))
            facts = {"problem": str(problem), "traceback": told, "is_meant": is_meant(cause)}
        write_json(folder / FACTS, facts)


def rehearse(tasks: Sequence[Task]) -> dict[str, Any]:
    """Try ways to train on one batch of each kind of data, without training.

    Module, data and callbacks are made from the arguments. With the first batch of a fit layers are
    chosen and tested, and the training step runs as it is mixed; validation and test run on a batch
    each, and their predictions are scored once.

    Args:
        tasks: One of each way.

    Returns:
        In plain containers: ``gpus``, ``machine``, ``stage`` (what is measured), and
        ``unmeasured``: why only what the module logs can be compared; empty if all can be.

    Raises:
        ProblemError: With the first problem, in a sentence.
    """
    facts: dict[str, Any] = {"gpus": gpus(), "machine": machine()}
    ordered = sorted(tasks, key=lambda task: task.args)
    groups = [list(group) for _, group in groupby(ordered, lambda task: task.args)]
    for group in groups:  # one at a time, for modules may be large
        _made(group)
    for group in groups:
        facts |= _tried(group, steps=len(groups) == 1)
    for group in groups if len(groups) > 1 else []:  # once all others are known to be right
        _tried(group, steps=True)
    return facts


def _made(tasks: Sequence[Task]) -> RunCLI:
    """What the arguments make, with layers that are there and something to measure on."""
    with _problem_of(tasks[0]):
        cli = RunCLI.of(tasks[0], _ALONE)
        stage_of(cli.model, getattr(cli, "datamodule", None))
    for task in tasks:
        with _problem_of(task):
            mixup_of(cli.trainer, cli.model, task).engine_of(cli.trainer, cli.model).remove()
    return cli


def _tried(tasks: Sequence[Task], *, steps: bool) -> dict[str, Any]:
    """What was found with one batch of each kind; it is fitted first, as modules may expect."""
    cli = _made(tasks)
    trainer, model, data = cli.trainer, cli.model, getattr(cli, "datamodule", None)
    mixups = [mixup_of(trainer, model, task) for task in tasks]
    mixing = [
        (task, mixup)
        for task, mixup in zip(tasks, mixups, strict=True)
        if not mixup.settings.schedule.never_mixes
    ]

    def look(batch: Any) -> None:
        for _, mixup in mixing[:1]:
            find_targets(batch, mixup.settings.target)  # of all ways the same
        for runs in (False, True) if steps else (False,):
            for task, mixup in mixing:
                with _problem_of(task, of_layers=not runs):
                    _try(trainer, model, batch, mixup, runs=runs)

    with _problem_of(tasks[0]), untouched(model), alone(trainer), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        at_first_batch(trainer, model, data, look)
        unmeasured = _try_scores(trainer, model, data, tasks[0], mixups[0])
        return {"stage": stage_of(model, data), "unmeasured": unmeasured}


def _try(
    trainer: Trainer, model: LightningModule, batch: Any, mixup: ManifoldMixup, *, runs: bool
) -> None:
    """Choose and test the layers, and run the training step as it is mixed at the first of them."""
    settings = mixup.settings
    targets = find_targets(batch, settings.target)
    with mixup.engine_of(trainer, model) as engine:
        gates = engine.attach(batch, targets)
        if gates is None:
            raise ValueError(
                f"expected training batches of two or more samples, but the first, "
                f"{describe(batch)}, has one, so that nothing would be mixed"
            )
        if not runs or not model.automatic_optimization:
            return
        if settings.labels == "own":  # nothing is paired that could be refused
            return
        with unheard(model, trainer):
            for kind in settings.kinds:
                plan = plan_of((engine.layers_ or [])[0], targets[0], kind)
                loss = trial_of(trainer, plan, engine, gates, batch).paired().loss
                if math.isnan(loss):
                    raise ValueError("the training loss of the first batch is NaN")


def _try_scores(
    trainer: Trainer, model: LightningModule, data: LightningDataModule | None, task: Task,
    mixup: ManifoldMixup,
) -> str:  # fmt: skip
    """Score a batch of the validation and of the test; why it can't be scored, if that is right."""
    trainer.limit_val_batches = trainer.limit_test_batches = 1
    told, stage = Instructions(**task.measuring), stage_of(model, data)
    first = _First(told, instructions_of(task, mixup).predictor(model))
    if stage == "test" and has(model, data, "validation"):
        visited(trainer, model, data, "validate", lambda *_: None)
    logged = visited(trainer, model, data, stage, first.visit)
    if not first.is_done:
        raise ValueError(f"expected data to {stage} on, but their loader is empty")
    defaults = Instructions()
    is_asked = any(getattr(told, name) != getattr(defaults, name) for name in _LOOKED)
    if first.problem is not None and (is_asked or not logged):
        raise first.problem
    return "" if first.problem is None else str(first.problem)


class _First:
    """The first batch of a test, scored."""

    def __init__(self, how: Instructions, predictor: Predictor) -> None:
        self.problem: Exception | None = None
        self.is_done = False
        self._how = how
        self._predictor = predictor

    def visit(self, batch: Any, _batch_idx: int, count: int) -> None:
        if self.is_done:
            return
        self.is_done = True
        if self._how.target is not None:
            find_targets(batch, self._how.target)
        if self._how.input is not None:
            find_input(batch, self._how.input)
        try:
            preds, target = self._predictor(batch)[:count], self._predictor.target(batch)[:count]
            self._predictor.tally().update(preds, target)
        except (TypeError, ValueError) as error:
            self.problem = error
            return
        several = preds.dim() > target.dim()
        if several and self._how.form == "logits" != likely_form(preds, target):
            raise ValueError(
                f"expected logits, but what the network puts out, {describe(preds)}, lies in "
                "[0, 1] and sums to one over the classes; give --form probabilities"
            )
        self._look_at_units(batch)

    def _look_at_units(self, batch: Any) -> None:
        how = self._how
        if (how.mean, how.std, how.low, how.high) == (0.0, 1.0, None, None):
            return
        x = self._predictor.input(batch)
        channels = x.shape[1] if x.dim() > 1 else 1
        for name, numbers in (("mean", how.mean), ("std", how.std)):
            if isinstance(numbers, Sequence) and len(numbers) not in (1, channels):
                raise ValueError(
                    f"expected --{name} of one number or of {channels}, one for each channel of "
                    f"the input, {describe(x)}, but got {len(numbers)}"
                )
        low = float("-inf") if how.low is None else how.low
        high = float("inf") if how.high is None else how.high
        Units(low, high, how.mean, how.std).of_data(x)


@contextmanager
def _problem_of(task: Task, *, of_layers: bool = False) -> Iterator[None]:
    """Tell what goes wrong, of which way to train, and if it is its layers, how to do without."""
    try:
        yield
    except ProblemError:
        raise
    except Exception as error:
        sentence = sentence_of(error, {**OPTIONS, "": [*OPTIONS[""], *names()]})
        if task.way == "input" and of_layers:
            sentence += "; --arms none manifold leaves this one out"
        name = f"{task.arm}: " if task.way in ("input", "config") else ""
        raise ProblemError(f"{name}{sentence}") from error
