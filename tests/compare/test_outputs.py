"""What a run saves by itself: in its own folder, and nothing elsewhere."""

import os
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from test_mistakes import Table, config

from lightning_mmix.compare.runs.run import RunCLI
from lightning_mmix.compare.runs.task import Task

pytestmark = pytest.mark.filterwarnings("ignore:.*GPU available", "ignore:.*log_every_n_steps")


class Saves(Table):
    """A module that brings what saves it."""

    def configure_callbacks(self):
        return [ModelCheckpoint("kept", filename="own"), OnExceptionCheckpoint("kept")]


class Stops(Saves):
    def on_train_end(self):
        raise RuntimeError("stopped")


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("kept").mkdir()
    Path("kept/last.ckpt").write_text("mine")


def done(model, **trainer):
    """The run of a config, in the folder ``run``."""
    quiet = {"enable_checkpointing": True, "callbacks": None}
    made = config() | {"model": {"class_path": model}}
    made["trainer"] |= quiet | trainer
    Path("config.yaml").write_text(yaml.safe_dump(made))
    folder = Path("run")
    folder.mkdir()
    task = Task("a", "none", 0, ["--config", "config.yaml"])
    cli = RunCLI.of(task, [f"--trainer.default_root_dir={folder}"])
    cli.trained_and_measured(task, folder)


def files(under="."):
    paths = (Path(root, name) for root, _, names in os.walk(under) for name in names)
    return {path.relative_to(under).as_posix() for path in paths}


def of(kind, **arguments):
    return {"class_path": f"lightning.pytorch.{kind}", "init_args": arguments}


def test_the_checkpoints_of_a_run_are_saved_in_its_folder_and_not_where_the_config_says():
    saving = of("callbacks.ModelCheckpoint", dirpath="kept", save_last=True)
    done("test_mistakes.Table", callbacks=[saving])
    assert files("kept") == {"last.ckpt"}
    assert Path("kept/last.ckpt").read_text() == "mine"
    assert files("run/checkpoints") == {"epoch=0-step=5.ckpt", "last.ckpt"}


def test_nor_where_the_module_says():
    with pytest.raises(RuntimeError, match="stopped"):
        done("test_outputs.Stops")
    assert files("kept") == {"last.ckpt"}
    assert files("run/checkpoints") == {"own.ckpt", "on_exception.ckpt"}


def test_what_loggers_and_profilers_write_is_in_the_folder_of_the_run_too():
    csv = of("loggers.CSVLogger", save_dir="kept", name="logs", version="mine")
    profiler = of("profilers.SimpleProfiler", dirpath="kept", filename="times")
    done("test_mistakes.Table", logger=[csv], profiler=profiler)
    assert files("kept") == {"last.ckpt"}
    assert {"logs/version_0/metrics.csv", "fit-times.txt"} <= files("run")
