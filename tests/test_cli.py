"""The YAML files and the command line."""

import subprocess
import sys
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
import yaml
from fitting import Net, batches, fit, loader
from lightning.pytorch.cli import LightningCLI
from torch import nn

from lightning_mmix import ManifoldMixup, ManifoldMixupClassifier, cli

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True)
def _in_the_examples_folder(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", ["lightning-mmix"])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.chdir(tmp_path)


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return loader(batches(4))


CALLBACK = {
    "class_path": "lightning_mmix.ManifoldMixup",
    "init_args": {"alpha": 0.5, "layers": {"input": 1.0, "net.*": 2.0}, "target": ["1"]},
}
CLASSIFIER = {
    "class_path": "lightning_mmix.ManifoldMixupClassifier",
    "init_args": {
        "net": {
            "class_path": "torch.nn.Linear", "init_args": {"in_features": 4, "out_features": 5}
        },
        "num_classes": 5,
        "layers": ["net"],
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
        "lr_scheduler": {
            "class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}
        },
    },
}  # fmt: skip
TRAINER = {
    "accelerator": "cpu",
    "max_epochs": 2,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def configured(tmp_path, model, callbacks=(), **trainer):
    config = {
        "seed_everything": 4,
        "model": model,
        "data": {"class_path": "test_cli.Data"},
        "trainer": {**TRAINER, "callbacks": [*callbacks], **trainer},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return ["--config", str(tmp_path / "config.yaml")]


def from_yaml(args):
    made = LightningCLI(
        L.LightningModule,
        L.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        args=["fit", *args],
    )
    return list(made.model.parameters())


@pytest.mark.filterwarnings("ignore:You defined a .validation_step")
def test_a_fit_from_yaml_is_a_fit_from_python_bit_for_bit(tmp_path):
    ours = from_yaml(configured(tmp_path, {"class_path": "fitting.Net"}, [CALLBACK]))
    L.seed_everything(4, verbose=False)
    callback = ManifoldMixup(0.5, {"input": 1.0, "net.*": 2.0}, target=["1"])
    theirs = fit(Net(), callback, data=batches(4), max_epochs=2)
    assert all(map(torch.equal, ours, theirs.parameters()))

    ours = from_yaml(configured(tmp_path, CLASSIFIER))
    L.seed_everything(4, verbose=False)
    module = ManifoldMixupClassifier(
        nn.Linear(4, 5),
        5,
        layers=["net"],
        optimizer=lambda p: torch.optim.Adam(p, lr=0.05),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=1),
    )
    fit(module, data=batches(4), max_epochs=2)
    assert all(map(torch.equal, ours, module.parameters()))


MIXIN = {"class_path": "fitting.InFront"}


@pytest.mark.filterwarnings("ignore:You defined a .validation_step")
@pytest.mark.parametrize(
    ("model", "callbacks"),
    [
        ({"class_path": "fitting.Net"}, [CALLBACK]),
        (CLASSIFIER, []),
        (MIXIN, []),
    ],
)
def test_the_printed_config_gives_the_same_fit(tmp_path, capsys, model, callbacks):
    args = configured(tmp_path, model, callbacks)
    weights = from_yaml(args)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["fit", *args, "--print_config"])
    printed = capsys.readouterr().out
    (tmp_path / "printed.yaml").write_text(printed)
    again = ["--config", str(tmp_path / "printed.yaml")]
    assert all(map(torch.equal, from_yaml(again), weights))
    with pytest.raises(SystemExit):
        cli.main(["fit", *again, "--print_config"])
    assert capsys.readouterr().out == printed


def test_the_defaults_of_the_classifier_go_round(tmp_path, capsys):
    model = {"class_path": CLASSIFIER["class_path"], "init_args": {"num_classes": 5}}
    model["init_args"]["net"] = CLASSIFIER["init_args"]["net"]
    with pytest.raises(SystemExit):
        cli.main(["fit", *configured(tmp_path, model), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["optimizer"] == "lightning_mmix.training.sgd"


def test_one_batch_is_not_all_of_them():
    code = (
        "import inspect; from lightning_mmix import mix; import lightning.pytorch as L;"
        "print(inspect.signature(L.Trainer).parameters['limit_train_batches'].annotation)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("typing.Union[int, float")


@pytest.mark.parametrize("package", ["cli", "compare", "engine", "evaluation", "training"])
def test_nor_is_it_behind_any_package(package):
    code = (
        f"import lightning_mmix.{package}, inspect, lightning.pytorch as L;"
        "print(inspect.signature(L.Trainer).parameters['limit_train_batches'].annotation)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("typing.Union[int, float")


def test_the_command_line_fits(tmp_path):
    cli.main(["fit", *configured(tmp_path, {"class_path": "fitting.Net"}, [CALLBACK])])


def listed(args, capsys):
    capsys.readouterr()
    cli.main(["layers", *args])
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_layers_of_a_config_are_listed(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    rows = listed(configured(tmp_path, {"class_path": "fitting.Net"}, [CALLBACK]), capsys)
    assert [row[0] for row in rows[2:7]] == ["input", "net.0", "net.1", "net.2", "net"]
    assert rows[4] == ["net.1", "Tanh", "(B,", "6)", "44%", "auto"]
    assert rows[5] == ["net.2", "Linear", "(B,", "5)", "100%", "yes"]
    assert " ".join(rows[7]).startswith("5 of 5 can be mixed; depth is the share")


class Skips(Net):
    """A module whose first layers are bypassed."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x):
        return super().forward(x + self.block(x))


def test_layers_that_are_bypassed_are_folded_unless_all_are_asked_for(tmp_path, capsys):
    args = configured(tmp_path, {"class_path": "test_cli.Skips"}, [CALLBACK])
    folded, every = listed(args, capsys), listed([*args, "--all"], capsys)
    assert [row[0] for row in folded[2:6]] == ["input", "block.*", "block", "net.0"]
    assert [row[0] for row in every[2:7]] == ["input", "block.0", "block.1", "block.2", "block"]
    assert " ".join(folded[-1]).endswith("--all lists each")
    assert "--all" not in every[-1]


class Everything(Data):
    """Data that is made ready in every way that Lightning knows."""

    def prepare_data(self):
        self.prepared = True

    def setup(self, stage):
        assert self.prepared
        self.stage = stage

    def train_dataloader(self):
        assert self.stage == "fit"
        x, y = batches()[0]
        return {"a": loader([(x, {"where": y})]), "b": loader([1, 2])}

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch["a"]


class Own(Net):
    """A module that brings its own data."""

    def train_dataloader(self):
        return Everything.train_dataloader(self)

    setup, prepare_data = Everything.setup, Everything.prepare_data

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch["a"]


@pytest.mark.parametrize("model", ["fitting.Net", "test_cli.Own"])
def test_the_listed_layers_see_the_batch_of_a_fit(tmp_path, capsys, model):
    callback = {"class_path": "lightning_mmix.ManifoldMixup", "init_args": {"target": "1.where"}}
    args = configured(tmp_path, {"class_path": model}, [callback])
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    config["data"] = {"class_path": "test_cli.Everything"} if model == "fitting.Net" else None
    config["trainer"]["precision"] = "64-true"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert [row[-1] for row in listed(args, capsys)[2:7]] == ["auto", "yes", "auto", "yes", "yes"]


def test_what_can_not_be_listed_is_told_in_a_line(tmp_path, capsys):
    callback = {"class_path": "lightning_mmix.ManifoldMixup", "init_args": {"target": "label"}}
    args = configured(tmp_path, {"class_path": "fitting.Net"}, [callback])
    with pytest.raises(SystemExit, match="1"):
        cli.main(["layers", *args])
    told = capsys.readouterr().err
    assert told.startswith("lightning-mmix layers: there is no target='label' in the batch")
    assert told.count("\n") == 1


def test_the_layers_of_a_mixin_are_listed_without_its_metrics(tmp_path, capsys):
    rows = listed(configured(tmp_path, CLASSIFIER), capsys)
    assert [row[0] for row in rows[2:-1]] == ["input", "net", "criterion"]


@pytest.mark.parametrize(
    ("model", "callbacks"), [("fitting.Net", [CALLBACK]), ("fitting.InFront", [])]
)
def test_a_step_that_is_mixed_exactly_is_proven_from_a_config(
    tmp_path, capsys, monkeypatch, model, callbacks
):
    monkeypatch.chdir(tmp_path)
    args = configured(tmp_path, {"class_path": model}, callbacks)
    cli.main(["check", *args])
    out = capsys.readouterr().out
    assert "target: batch[1]; input: batch[0]. The training step ran" in out
    assert all(line.split()[-1] == "yes" for line in out.splitlines() if "net.0" in line)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


class Weighs(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self(x), y) * (1 + int(y[0]))


def test_a_step_that_is_not_is_an_error_with_its_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        cli.main(["check", *configured(tmp_path, {"class_path": "test_cli.Weighs"}, [CALLBACK])])
    out = capsys.readouterr().out
    assert "- a Python value or array was made from the target (int at test_cli.py:" in out


class Lost(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * float("nan")


class Leaves(Net):
    def training_step(self, batch, batch_idx):
        sys.exit(0)


def test_a_loss_that_is_nan_is_told_as_such(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        cli.main(["check", *configured(tmp_path, {"class_path": "test_cli.Lost"}, [CALLBACK])])
    out = capsys.readouterr().out
    assert "the loss is NaN, against which nothing can be held" in " ".join(out.split())
    assert "none of the known reasons" not in out


def test_a_step_that_exits_is_no_check_that_was_passed(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        cli.main(["check", *configured(tmp_path, {"class_path": "test_cli.Leaves"}, [CALLBACK])])
    assert "the code that was run called sys.exit(0)" in capsys.readouterr().err


def test_what_can_not_be_checked_is_told_in_a_line(tmp_path, capsys):
    callback = {"class_path": "lightning_mmix.ManifoldMixup", "init_args": {"target": "label"}}
    args = configured(tmp_path, {"class_path": "fitting.Net"}, [callback])
    with pytest.raises(SystemExit, match="1"):
        cli.main(["check", *args])
    assert capsys.readouterr().err.startswith("lightning-mmix check: there is no target='label' in")


def test_the_layers_that_are_named_have_to_be_there(tmp_path, capsys):
    callback = {**CALLBACK, "init_args": {"layers": ["nett.0"]}}
    with pytest.raises(SystemExit, match="1"):
        cli.main(["layers", *configured(tmp_path, {"class_path": "fitting.Net"}, [callback])])
    told = capsys.readouterr()
    assert "net.0" in told.out
    assert told.err.startswith("lightning-mmix layers: there is no layer 'nett.0'; did you mean")


def test_an_overlay_that_mixes_over_a_config_that_does_is_told_so(tmp_path, capsys):
    args = configured(tmp_path, {"class_path": "fitting.Net"}, [CALLBACK])
    (tmp_path / "over.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [CALLBACK]}}))
    with pytest.raises(SystemExit, match="1"):
        cli.main(["fit", *args, "--config", str(tmp_path / "over.yaml")])
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith("but the configs give several; take it out of all but one")


@pytest.mark.parametrize("command", [None, *cli.COMMANDS])
def test_a_page_fits_the_terminal_and_comes_without_torch(command):
    code = (
        "import sys\nfrom lightning_mmix.cli import main\n"
        "try: main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules"
    )
    args = [command, "--help"] if command else ["--help"]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"usage: lightning-mmix {command or 'COMMAND'} --config FILE")
    assert max(map(len, lines)) <= 80
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS) or command


def test_all_arguments_are_listed_for_who_asks(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["fit", "--help-all"])
    assert "--trainer.gradient_clip_val" in capsys.readouterr().out


def test_a_command_that_is_not_there_is_told_with_the_nearest(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fot"])
    assert capsys.readouterr().err == (
        "lightning-mmix: there is no command 'fot'; did you mean 'fit'?\n"
    )


@pytest.mark.parametrize("command", ["fit", "layers"])
def test_classes_in_the_current_folder_are_found(tmp_path, command):
    (tmp_path / "mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from fitting import Net\nfrom test_cli import Data"
    )
    args = configured(tmp_path, {"class_path": "mine.Net"}, [CALLBACK])
    config = (tmp_path / "config.yaml").read_text().replace("test_cli.Data", "mine.Data")
    (tmp_path / "config.yaml").write_text(config)
    script = tmp_path / "bin" / "script.py"  # as a console script lies elsewhere
    script.parent.mkdir()
    script.write_text("from lightning_mmix.cli import main\nmain()")
    done = subprocess.run(
        [sys.executable, str(script), command, *args],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


WHOLE = {"digits.yaml", "series.yaml"}
OVERLAYS = [path.name for path in EXAMPLES.glob("*.yaml") if path.name not in WHOLE]


@pytest.mark.filterwarnings("ignore:.*GPU available")
@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_every_yaml_file_trains(overlay):
    pytest.importorskip("digits")
    files = ["digits.yaml", *([overlay] if overlay else [])]
    made = LightningCLI(
        L.LightningModule,
        subclass_mode_model=True,
        args=[*(f"--config={EXAMPLES / name}" for name in files), "--trainer.fast_dev_run=1"],
        run=False,
        save_config_callback=None,
    )
    made.trainer.fit(made.model, made.datamodule)
    (mixup,) = [c for c in made.trainer.callbacks if isinstance(c, ManifoldMixup)]
    assert mixup.layers_
    assert (mixup.settings.layers == ["input"]) == (overlay == "input_mixup.yaml")


@pytest.mark.filterwarnings("ignore:.*GPU available")
def test_the_digits_are_proven_at_all_their_layers(capsys, tmp_path, monkeypatch):
    pytest.importorskip("digits")
    monkeypatch.chdir(tmp_path)
    files = [EXAMPLES / name for name in ("digits.yaml", "manifold_mixup.yaml")]
    cli.main(["check", *(f"--config={path}" for path in files), "--trainer.accelerator=cpu"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    proven = {row[0]: row[-1] for row in rows if row[:1] and row[0].startswith("net.")}
    assert proven == dict.fromkeys(["net.layer1", "net.layer2", "net.layer3"], "yes")
    assert list(tmp_path.iterdir()) == []


FITS = {"class_path": "fitting.Net"}


def csv(**where):
    return {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": where}


def test_a_fit_without_a_logger_leaves_the_own_config_and_nothing_beside(tmp_path):
    args = configured(tmp_path, FITS, [CALLBACK])
    before = (tmp_path / "config.yaml").read_text()
    cli.main(["fit", *args])
    assert (tmp_path / "config.yaml").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_logger_without_folders_of_its_own_gets_no_config_into_the_current_one(tmp_path):
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": ".", "name": "", "version": ""},
    }
    args = configured(tmp_path, FITS, [CALLBACK], logger=logger)
    before = (tmp_path / "config.yaml").read_text()
    cli.main(["fit", *args])
    assert (tmp_path / "config.yaml").read_text() == before
    assert not list(tmp_path.glob("config-*"))


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_each_fit_saves_its_config_in_the_folder_of_its_logger_and_never_over_another(tmp_path):
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": "logs", "version": "mine"},
    }
    args = configured(tmp_path, FITS, [CALLBACK], logger=logger)
    cli.main(["fit", *args])
    folder = tmp_path / "logs" / "lightning_logs" / "mine"
    saved = (folder / "config.yaml").read_text()
    cli.main(["fit", *args, "--trainer.max_epochs=1"])
    assert (folder / "config.yaml").read_text() == saved
    assert yaml.safe_load((folder / "config-v1.yaml").read_text())["trainer"]["max_epochs"] == 1


@pytest.mark.parametrize("command", ["fit", "check", "layers"])
def test_the_config_that_a_fit_saved_goes_into_every_command(tmp_path, capsys, command):
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": "logs"},
    }
    cli.main(["fit", *configured(tmp_path, FITS, [CALLBACK], logger=logger)])
    saved = tmp_path / "logs" / "lightning_logs" / "version_0" / "config.yaml"
    assert "ckpt_path" in yaml.safe_load(saved.read_text())
    cli.main([command, "--config", str(saved)])
    assert command == "fit" or "net.0" in capsys.readouterr().out
