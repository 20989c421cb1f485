"""The outputs of a run: what it saves by itself, kept in the folder that it has of its own."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

_FOLDERS = ("save_dir", "dirpath")
_RUNS = ("version", "id")  # under which another run would go on, or be replaced


def keep_logs(trainer: Any, folder: str) -> None:
    """Have loggers and profilers write to a folder, wherever a config sends them.

    Args:
        trainer: The ``trainer`` of a config that was read, which is changed.
        folder: Where to.
    """
    loggers = trainer.get("logger")
    for each in [*(loggers if isinstance(loggers, list) else [loggers]), trainer.get("profiler")]:
        own: Any = each.get("init_args") if hasattr(each, "get") else None
        for name in vars(own) if own else ():
            if name in _FOLDERS:
                own[name] = folder
            elif name in _RUNS:
                own[name] = None


class CheckpointKeeper(Callback):
    """Has all checkpoints of a run saved in a folder, whatever ``dirpath`` they were given.

    It comes before those that save them: where they do is settled in their ``setup``.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for each in trainer.checkpoint_callbacks:
            if getattr(each, "dirpath", None) is not None:
                each.dirpath = str(self._folder)  # type: ignore[attr-defined]
