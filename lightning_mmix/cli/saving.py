"""The saved config: what a run was told, beside what it logs."""

from itertools import count
from pathlib import Path

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from typing_extensions import override


class ConfigKeeper(SaveConfigCallback):
    """Saves the config of a run where its logger gives it a folder of its own, and only there.

    Elsewhere, without a logger above all, a run's folder is the one it was started in, where a
    ``config.yaml`` is the user's. No file is written over: beside another one the config is saved
    as ``config-v1.yaml``, and so on.
    """

    @override
    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = None if trainer.logger is None else trainer.logger.log_dir
        if folder is None or Path(folder).resolve() == Path.cwd():
            return
        files = get_filesystem(folder)  # which may be far away
        files.makedirs(folder, exist_ok=True)
        paths = (f"{folder}/config{f'-v{i}' if i else ''}.yaml" for i in count())
        path = next(path for path in paths if not files.exists(path))
        self.parser.save(self.config, path, skip_none=False, multifile=False)
