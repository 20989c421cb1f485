"""A run: one way to train, with one seed, trained and measured in a process of its own."""

import inspect
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers.logger import Logger
from typing_extensions import override

from lightning_mmix.compare.instructions import Instructions
from lightning_mmix.compare.measurement import measure
from lightning_mmix.compare.runs.machine import machine
from lightning_mmix.compare.runs.outputs import CheckpointKeeper, keep_logs
from lightning_mmix.compare.runs.parser import OPTIONS, RaisingCLI
from lightning_mmix.compare.runs.task import RESULT, SHARE, TASK, Task, Way, read_json, write_json
from lightning_mmix.core.layers import INPUT
from lightning_mmix.problems import sentence_of
from lightning_mmix.training.callback import ManifoldMixup, mixups_of
from lightning_mmix.training.progress import share_done
from lightning_mmix.training.visits import stage_of


def main(folder: Path) -> None:
    """Do the task of a folder, and write the result there.

    Raises:
        SystemExit: If it fails. The last line of what was printed then says why.
    """
    with ending_with_its_parent():
        task = Task(**(read_json(folder / TASK) or {}))
        cli = RunCLI.of(task, [f"--trainer.default_root_dir={folder}"])
        found = cli.trained_and_measured(task, folder)
        if cli.trainer.is_global_zero:
            about = {"arm": task.arm, "seed": task.seed, "machine": machine()}
            write_json(folder / RESULT, {**about, **found})


@contextmanager
def ending_with_its_parent() -> Iterator[None]:
    """Have a process end with the one that started it, and an error be told in its last line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        sys.stdout.write(f"{sentence_of(error, OPTIONS)}\n")
        raise SystemExit(1) from None
    except SystemExit as ended:
        if not isinstance(ended.code, str):
            sys.stdout.write(f"the code that was run called sys.exit({ended.code!r})\n")
        raise


class RunCLI(RaisingCLI):
    """Takes the configs of ``fit``, as they are saved and printed, without that command."""

    _FIT = frozenset({"ckpt_path", "weights_only"})

    @staticmethod
    def of(task: Task, more: Sequence[str] = ()) -> "RunCLI":
        """The module, data and Trainer of a task.

        Args:
            task: What is to be done.
            more: Further arguments.

        Raises:
            ArgumentError: If its arguments do not fit.
        """
        return RunCLI(
            LightningModule,
            run=False,
            save_config_callback=None,
            args=[*task.args, f"--seed_everything={task.seed}", *more],
        )

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parameters = set(inspect.signature(Trainer.fit).parameters)
        parser.add_method_arguments(Trainer, "fit", skip=parameters - self._FIT)

    @override
    def before_instantiate_classes(self) -> None:
        if folder := self.config.trainer.default_root_dir:
            keep_logs(self.config.trainer, str(folder))

    def trained_and_measured(self, task: Task, folder: Path | None = None) -> dict[str, Any]:
        """What :func:`~.measurement.measure` finds, what was logged, and how long it took.

        Args:
            task: What is to be done.
            folder: Where it is told how much of the training is done, and checkpoints are saved.
        """
        trainer, model, data = self.trainer, self.model, getattr(self, "datamodule", None)
        mixup = mixup_of(trainer, model, task)
        set_way(trainer, mixup, task.way)
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()  # nobody looks at it
        if folder is not None:
            _add_own_callbacks(trainer, folder)
        stage_of(model, data)  # that there is something to measure on, before it is trained
        own, history = trainer.loggers, History()
        trainer.loggers = [*own, history]
        started = time.perf_counter()
        options = {name: self.config[name] for name in self._FIT if name in self.config}
        trainer.fit(model, datamodule=data, **options)
        trained = time.perf_counter()
        if not trainer.state.finished:
            raise SystemExit("interrupted")
        trainer.loggers = own
        found = measure(trainer, model, data, instructions_of(task, mixup))
        seconds = {"training": trained - started, "measuring": time.perf_counter() - trained}
        return {**found, "history": history.curves(), "seconds": seconds}


def set_way(trainer: Trainer, mixup: ManifoldMixup, way: Way) -> None:
    """Have a Trainer mix in one of the ways of a :class:`Task`."""
    own = mixups_of(trainer)
    if way != "config":
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        others = [callback for callback in callbacks if callback not in own]
        trainer.callbacks = [*others, mixup]  # type: ignore[attr-defined]


def mixup_of(trainer: Trainer, model: LightningModule, task: Task) -> ManifoldMixup:
    """What mixes in a task; where it does not know target and input, it is told by the task."""
    own, way = mixups_of(trainer), task.way
    brought = [] if own else _brought(model)
    mixing = [mixup for mixup in [*own, *brought] if not mixup.settings.schedule.never_mixes]
    found = (mixing or own or brought or [ManifoldMixup()])[0]
    known, told = found.settings, task.measuring
    paths = {
        name: told.get(name) if getattr(known, name) is None else getattr(known, name)
        for name in ("target", "input")
    }
    where: dict[str, Any] = {**paths, "seed": known.seed}
    if way == "none" or (way == "config" and not own and not brought):
        return ManifoldMixup(alpha=0, **where)
    if way == "input":
        return ManifoldMixup(alpha=1.0, layers=[INPUT], stop=1.0, **where)
    if not mixing and way == "manifold":
        return ManifoldMixup(**where)
    found.settings = replace(known, target=paths["target"], input=paths["input"])
    return found


def instructions_of(task: Task, mixup: ManifoldMixup) -> Instructions:
    """How a task is measured; where it does not say where target and input are, the mixing does."""
    told, target = task.measuring, mixup.settings.target
    first = target if target is None or isinstance(target, str | int) else target[0]
    known = {"target": first, "input": mixup.settings.input}
    paths = {name: known[name] if told.get(name) is None else told[name] for name in known}
    return Instructions(**{**told, **paths})


def _add_own_callbacks(trainer: Trainer, folder: Path) -> None:
    keeper, telling = CheckpointKeeper(folder / "checkpoints"), _Telling(folder / SHARE)
    trainer.callbacks = [keeper, *trainer.callbacks, telling]  # type: ignore[attr-defined]


class _Telling(Callback):
    """Tells every few seconds how much of a fit is done."""

    _EVERY = 2.0  # seconds

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = self._told = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = self._told = time.monotonic()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._told < self._EVERY or not trainer.is_global_zero:
            return
        self._told = now
        share = share_done(trainer, batch_idx + 1)
        if share:
            write_json(self._path, {"share": share, "seconds": now - self._began})


class History(Logger):
    """Keeps what is logged, epoch by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[str, dict[int, tuple[float, int]]] = {}

    @property
    @override
    def name(self) -> None:
        return None

    @property
    @override
    def version(self) -> None:
        return None

    @override
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        epoch = int(metrics.get("epoch", 0))
        for name in metrics.keys() - {"epoch"}:
            total, count = self._sums.setdefault(name, {}).get(epoch, (0.0, 0))
            self._sums[name][epoch] = (total + float(metrics[name]), count + 1)

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Of each name the epochs in which it was logged, and its mean over each."""
        return {
            name: {"epoch": list(sums), "value": [total / n for total, n in sums.values()]}
            for name, sums in sorted(self._sums.items())
        }


def _brought(model: LightningModule) -> Sequence[ManifoldMixup]:
    configure = getattr(model, "configure_mixup", None)
    return [] if configure is None else [configure()]


def _end_with_parent() -> None:
    # standard input ends when the process that started this one does, however it ends; its file
    # object is left alone, whose lock a forked worker of a data loader would wait for
    while os.read(0, 4096):
        pass
    os._exit(1)
