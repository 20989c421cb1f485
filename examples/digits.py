r"""Train on scikit-learn's handwritten digits, with and without Manifold Mixup.

    python examples/digits.py                                       # compare, print a table
    python examples/digits.py fit --config examples/digits.yaml \
                                  --config examples/manifold_mixup.yaml   # a single run
    python examples/digits.py layers --config examples/digits.yaml  # what can be mixed

The 1,797 images of 8x8 pixels come with scikit-learn, so nothing is downloaded.
"""

import argparse
import logging
import sys
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mmix import ManifoldMixupClassifier
from lightning_mmix.cli import MixupCLI
from lightning_mmix.tables import score_table

HERE = Path(__file__).parent
QUIET = ["--trainer.enable_model_summary=false", "--trainer.num_sanity_val_steps=0"]
ARMS = {
    "no mixing": [],
    "input mixup": ["input_mixup.yaml"],
    "manifold mixup": ["manifold_mixup.yaml"],
}
COLUMNS = {
    "accuracy %": ("accuracy", 100),
    "NLL": ("nll", 1),
    "ECE %": ("ece", 100),
    "Brier": ("brier", 1),
}


class Digits(LightningDataModule):
    """Handwritten digits in a training set of few labels, a validation and a test set.

    The split is stratified and always the same: 797 images to test on, ``labels_per_class`` of
    each digit to train on, and the rest to validate on.

    Args:
        labels_per_class: Training images of each digit, from 1 to 98.
        batch_size: Training images in a step.
    """

    def __init__(self, labels_per_class: int = 10, batch_size: int = 50) -> None:
        super().__init__()
        self.labels_per_class = labels_per_class
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:  # noqa: ARG002 - all stages share the split
        """Split the images."""
        digits = load_digits()
        images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
        labels = torch.tensor(digits.target)
        rest, test = _split(np.arange(len(labels)), labels, test_size=797)
        train, val = _split(rest, labels, train_size=10 * self.labels_per_class)
        self.train, self.val, self.test = (
            TensorDataset(images[rows], labels[rows]) for rows in (train, val, test)
        )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Images of shape (B, 1, 8, 8) in [0, 1], and labels of shape (B,)."""
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Like the training batches, in order."""
        return DataLoader(self.val, 500)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Like the training batches, in order."""
        return DataLoader(self.test, 500)


class DigitNet(nn.Module):
    """A small convolutional network in three stages, ``layer1`` to ``layer3``.

    Args:
        width: The channels of the first stage; each further one has twice as many.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layer1 = _stage(1, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (B, 1, 8, 8) to logits of shape (B, 10)."""
        hidden = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


def compare(seeds: int, overrides: list[str]) -> None:
    """Train every arm with every seed, and print a table of their test scores."""
    console = Console()
    scores: dict[str, dict[str, list[float]]] = {arm: defaultdict(list) for arm in ARMS}
    for seed in range(seeds):
        for arm, overlays in ARMS.items():
            tested = _trained_and_tested(overlays, seed, overrides)
            for column, (name, unit) in COLUMNS.items():
                scores[arm][column].append(unit * tested[f"test/{name}"])
            run = seed * len(ARMS) + list(ARMS).index(arm) + 1
            accuracy = scores[arm]["accuracy %"][-1]
            console.print(f"{run:2}/{seeds * len(ARMS)}  seed {seed}  {arm:15} {accuracy:.2f} %")
    console.print(score_table(scores, f"Test scores, mean ± std over {seeds} seeds"))


def main() -> None:
    """Compare, or run one LightningCLI command."""
    if len(sys.argv) > 1 and sys.argv[1] in MixupCLI.subcommands():
        MixupCLI(ManifoldMixupClassifier, Digits, save_config_kwargs={"overwrite": True})
        return
    parser = argparse.ArgumentParser(description="Compare the arms on handwritten digits.")
    parser.add_argument("--seeds", type=int, default=6, help="runs of each arm, at least 2")
    args, overrides = parser.parse_known_args()
    if args.seeds < 2:
        parser.error(
            f"expected --seeds of at least 2 for a standard deviation, but got {args.seeds}"
        )
    del sys.argv[1:]  # from here on LightningCLI gets its arguments from us
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # hints on workers and log intervals
    compare(args.seeds, overrides)


def _trained_and_tested(overlays: list[str], seed: int, overrides: list[str]) -> dict[str, float]:
    files = [f"--config={HERE / name}" for name in ("digits.yaml", *overlays)]
    cli = LightningCLI(
        ManifoldMixupClassifier,
        Digits,
        args=[*files, f"--seed_everything={seed}", *QUIET, *overrides],
        run=False,
        save_config_callback=None,
    )
    cli.trainer.fit(cli.model, cli.datamodule)
    (tested,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    return dict(tested)


def _split(rows: np.ndarray, labels: Tensor, **sizes: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = train_test_split(rows, stratify=labels[rows], random_state=0, **sizes)
    return first, second


def _stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


if __name__ == "__main__":
    main()
