r"""Train on scikit-learn's handwritten digits, with and without Manifold Mixup.

    python examples/digits.py                 # compare, like lightning-mmix compare; see --help
    python examples/digits.py fit --config examples/digits.yaml \
                                  --config examples/manifold_mixup.yaml   # a single run
    python examples/digits.py layers --config examples/digits.yaml        # what can be mixed

The 1,797 images of 8x8 pixels come with scikit-learn, so nothing is downloaded.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mmix import cli
from lightning_mmix.compare import compare

HERE = Path(__file__).parent


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


def main(args: Sequence[str] | None = None) -> None:
    """Compare, or run another command of ``lightning-mmix``."""
    given = sys.argv[1:] if args is None else list(args)
    if given[:1] and given[0] in cli.COMMANDS:
        cli.main(args)
    else:
        compare(["--config", str(HERE / "digits.yaml"), *given])


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
