"""Every command with every mistake: one line, within seconds, and nothing is trained."""

import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

HERE = Path(__file__).parent
MIXUP = "lightning_mmix.ManifoldMixup"


class Data(L.LightningDataModule):
    def __init__(self, tokens: bool = False, size: int = 12, workers: int = 0, empty: bool = False):
        super().__init__()
        self.empty = empty
        g = torch.Generator().manual_seed(0)
        x = torch.randint(5, (60, 6), generator=g) if tokens else torch.randn(60, 6, generator=g)
        rows = TensorDataset(x, torch.arange(60) % 3)
        self.loader = DataLoader(rows, size, num_workers=workers)

    def train_dataloader(self):
        return self.loader

    val_dataloader = train_dataloader

    def test_dataloader(self):
        return [] if self.empty else self.loader


class Table(L.LightningModule):
    def __init__(self, width: int = 8, tokens: bool = False, softmax: bool = False):
        super().__init__()
        self.first = nn.Embedding(5, width) if tokens else nn.Linear(6, width)
        self.last = nn.Linear(width, 3)
        self.softmax = softmax

    def forward(self, x):
        hidden = self.first(x)
        out = self.last(hidden.mean(1) if hidden.dim() == 3 else hidden)
        return out.softmax(1) if self.softmax else out

    def optimizer_step(self, *args, **kwargs):
        Path("trained").touch()
        super().optimizer_step(*args, **kwargs)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    validation_step = test_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def config(mixup=None, **model):
    """A config whose Trainer mixes as told."""
    data = {"tokens": True} if model.get("tokens") else {}
    mixing = [] if mixup is None else [{"class_path": MIXUP, "init_args": mixup}]
    quiet = ("enable_checkpointing", "logger", "enable_progress_bar", "enable_model_summary")
    return {
        "model": {"class_path": "test_mistakes.Table", "init_args": model},
        "data": {"class_path": "test_mistakes.Data", "init_args": data},
        "trainer": {
            **dict.fromkeys(quiet, False),
            "accelerator": "cpu",
            "max_epochs": 1,
            "callbacks": mixing,
        },
    }


ALL = {  # mistake → config, arguments, and what is said, of every command
    "an unknown argument": (config(), ["--nothing", "1"], "unrecognized arguments: --nothing 1"),
    "an unknown argument of the callback": (
        config({"alfa": 1.0}), [],
        "there is no argument 'alfa' of lightning_mmix.ManifoldMixup; did you mean 'alpha'?",
    ),
    "an unknown argument of the module": (
        config(wide=3), [],
        "there is no argument 'wide' of test_mistakes.Table; did you mean 'width'?",
    ),
    "alpha: -1": (config({"alpha": -1}), [], "expected a finite alpha ≥ 0, but got -1.0"),
    "a misspelt layer": (
        config({"layers": ["frist"]}), [], "there is no layer 'frist'; did you mean 'first'"
    ),
    "a misspelt target": (
        config({"target": "label"}), [],
        "there is no target='label' in the batch, list(0: float32 (12, 6), 1: int64 (12,))",
    ),
    "an input that can't be mixed": (
        config({"layers": ["input"]}, tokens=True), [],
        "layer 'input' is not floating point, so it can't be mixed exactly; mix 'first' after it "
        "instead",
    ),
    "a class that isn't there": (
        config() | {"data": {"class_path": "test_mistakes.Dada"}}, [],
        "data: test_mistakes.Dada: module 'test_mistakes' has no attribute 'Dada'",
    ),
}  # fmt: skip
COMPARE = {  # what only compare can get wrong
    "an arm with alpha: -1": (config(), ["--arms", "none", "arm.yaml"], "arm: expected a finite"),
    "an input that can't be mixed": (
        config(tokens=True), [],
        "input mixup: layer 'input' is not floating point, so it can't be mixed exactly; mix "
        "'first' after it instead; --arms none manifold leaves this one out",
    ),
    "a target that isn't there": (
        config(), ["--target", "label"], "there is no target='label' in the batch, list(0: float32"
    ),
    "a mean of another length": (
        config(), ["--mean", "1", "2"],
        "expected --mean of one number or of 6, one for each channel of the input, float32 (12, 6),"
        " but got 2",
    ),
    "probabilities": (
        config(softmax=True), [],
        "expected logits, but what the network puts out, float32 (12, 3), lies in [0, 1] and sums "
        "to one over the classes; give --form probabilities",
    ),
    "logits": (config(), ["--form", "probabilities"], "expected probabilities in [0, 1], but got"),
    "data in another range": (config(), ["--range", "0", "1"], "the inputs lie in ["),
}  # fmt: skip
CASES = [
    *((command, what) for command in ("fit", "layers", "check") for what in ALL),
    *(("compare", what) for what in {**ALL, **COMPARE}),
]
LATE = ("a misspelt layer", "a misspelt target", "an input that can't be mixed")


@pytest.fixture(scope="module")
def slack():
    """Twice what it takes to import Lightning: on an idle machine less than ten seconds."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import lightning.pytorch"], check=True)
    return max(10.0, 3 * (time.monotonic() - started))


@pytest.mark.slow
@pytest.mark.parametrize(("command", "what"), CASES)
def test_a_mistake_is_told_in_a_line_within_seconds(tmp_path, slack, command, what):
    config, args, said = ({**ALL, **COMPARE} if command == "compare" else ALL)[what]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    overlay = {"callbacks+": [{"class_path": MIXUP, "init_args": {"alpha": -1}}]}
    (tmp_path / "arm.yaml").write_text(yaml.safe_dump({"trainer": overlay}))
    (tmp_path / "run.py").write_text("from lightning_mmix.cli import main\nmain()")
    (tmp_path / "test_mistakes.py").write_text(Path(__file__).read_text())
    before = {path.name for path in tmp_path.iterdir()}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "run.py", command, "--config", "config.yaml", *args],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert time.monotonic() - started < slack
    assert done.returncode == (2 if command == "compare" or what not in LATE else 1)
    assert len(done.stderr.splitlines()) <= 3
    assert done.stderr.removeprefix(f"lightning-mmix {command}: ").startswith(said)
    assert {path.name for path in tmp_path.iterdir()} - before <= {"__pycache__", "config.yaml"}
