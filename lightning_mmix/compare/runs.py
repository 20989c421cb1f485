"""A run: one way to train, with one seed, trained and measured in a process of its own.

``python -m lightning_mmix.compare FOLDER`` reads ``task.json`` in the folder, and leaves
``result.json`` there when all is done.
"""

import inspect
import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers.logger import Logger
from typing_extensions import override

from lightning_mmix.compare.instructions import Instructions
from lightning_mmix.compare.measurement import measure
from lightning_mmix.core.layers import INPUT
from lightning_mmix.training.callback import ManifoldMixup, mixups_of
from lightning_mmix.training.visits import stage_of

TASK, RESULT = "task.json", "result.json"

Way = Literal["none", "input", "manifold", "config"]


@dataclass(frozen=True)
class Task:
    """What a run has to do.

    Attributes:
        arm: The name of the way to train.
        way: ``"none"``: no mixing. ``"input"``: plain mixup, α = 1. ``"manifold"``: the
            :class:`ManifoldMixup` of the config or of the module, or else one as it comes.
            ``"config"``: as the config says.
        seed: Of everything.
        args: For LightningCLI.
        measuring: The arguments of :class:`~.instructions.Instructions`.
    """

    arm: str
    way: Way
    seed: int
    args: list[str]
    measuring: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it where :func:`main` reads it."""
        write_json(folder / TASK, asdict(self))


def main(folder: Path) -> None:
    """Do the task of a folder, and write the result there."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task = Task(**json.loads((folder / TASK).read_text()))
    options = [f"--seed_everything={task.seed}", f"--trainer.default_root_dir={folder}"]
    cli = _RunCLI(
        LightningModule,
        subclass_mode_model=True,
        run=False,
        save_config_callback=None,
        args=[*task.args, *options],
    )
    found = cli.trained_and_measured(task)
    if cli.trainer.is_global_zero:
        write_json(folder / RESULT, {"arm": task.arm, "seed": task.seed, **found})


class _RunCLI(LightningCLI):
    """Takes the configs of ``fit``, as they are saved and printed, without that command."""

    _FIT = frozenset({"ckpt_path", "weights_only"})

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parameters = set(inspect.signature(Trainer.fit).parameters)
        parser.add_method_arguments(Trainer, "fit", skip=parameters - self._FIT)

    def trained_and_measured(self, task: Task) -> dict[str, Any]:
        """What :func:`~.measurement.measure` finds, what was logged, and how long it took."""
        trainer, model, data = self.trainer, self.model, getattr(self, "datamodule", None)
        set_way(trainer, model, task.way)
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()  # nobody looks at it
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
        found = measure(trainer, model, data, Instructions(**task.measuring))
        seconds = {"training": trained - started, "measuring": time.perf_counter() - trained}
        return {**found, "history": history.curves(), "seconds": seconds}


def set_way(trainer: Trainer, model: LightningModule, way: Way) -> None:
    """Have a Trainer mix in one of the ways of a :class:`Task`."""
    if way == "config":
        return
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    own = mixups_of(trainer)
    brought = [] if own else _brought(model)
    mixing = [mixup for mixup in [*own, *brought] if not mixup.settings.schedule.never_mixes]
    found = (mixing or own or brought or [ManifoldMixup()])[0]
    known = found.settings
    where: dict[str, Any] = {"target": known.target, "input": known.input, "seed": known.seed}
    mixup = {
        "none": ManifoldMixup(alpha=0, **where),
        "input": ManifoldMixup(alpha=1.0, layers=[INPUT], stop=1.0, **where),
        "manifold": found if mixing else ManifoldMixup(**where),
    }[way]
    trainer.callbacks = [c for c in callbacks if c not in own]  # type: ignore[attr-defined]
    trainer.callbacks.append(mixup)  # type: ignore[attr-defined]


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


def write_json(path: Path, values: Any) -> None:
    """Write a file as a whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(values, indent=1))
    partial.replace(path)


def _brought(model: LightningModule) -> Sequence[ManifoldMixup]:
    configure = getattr(model, "configure_mixup", None)
    return [] if configure is None else [configure()]


def _end_with_parent() -> None:
    # standard input ends when the process that started this one does, however it ends
    sys.stdin.read()
    os._exit(1)
