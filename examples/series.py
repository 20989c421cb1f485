r"""Train on MNIST-1D, with and without Manifold Mixup.

    python examples/series.py                 # compare, like lightning-mmix compare; see --help
    python examples/series.py fit --config examples/series.yaml             # a single run
    python examples/series.py layers --config examples/series.yaml          # what can be mixed

MNIST-1D (Greydanus & Kobak, ICML 2024) has 5,000 series of 40 numbers: digits drawn in one line,
moved, stretched, sheared and noisy. The package mnist1d makes them, so nothing is downloaded.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from mnist1d.data import get_dataset_args, make_dataset
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lightning_mmix import cli
from lightning_mmix.compare import compare

HERE = Path(__file__).parent


class MNIST1D(LightningDataModule):
    """The standard data: 4,000 series, a quarter of them to validate with, and 1,000 to test on.

    Args:
        batch_size: Training series in a step.
    """

    def __init__(self, batch_size: int = 100) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:  # noqa: ARG002 - all stages share the split
        """Make the series, always the same."""
        made = make_dataset(get_dataset_args())
        x, y, x_test, y_test = (torch.tensor(made[k]) for k in ("x", "y", "x_test", "y_test"))
        x, x_test = x[:, None].float(), x_test[:, None].float()
        self.train = TensorDataset(x[:3000], y[:3000])  # they come in no order
        self.val = TensorDataset(x[3000:], y[3000:])
        self.test = TensorDataset(x_test, y_test)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Series of shape (B, 1, 40), and labels of shape (B,)."""
        rows = BatchSampler(RandomSampler(self.train), self.batch_size, drop_last=False)
        return DataLoader(self.train, sampler=rows, batch_size=None)  # a batch at once

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Like the training batches, in order."""
        return DataLoader(self.val, 1000)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Like the training batches, in order."""
        return DataLoader(self.test, 1000)


class SeriesNet(nn.Module):
    """The convolutional network of Greydanus & Kobak: three stages of 25 channels.

    Args:
        length: T of the series.
        outputs: The number of logits.
    """

    def __init__(self, length: int = 40, outputs: int = 10) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv1d(1, 25, 5, 2, 2), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv1d(25, 25, 3, 2, 1), nn.ReLU())
        self.layer3 = nn.Sequential(nn.Conv1d(25, 25, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(25 * -(-length // 8), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map series of shape (B, 1, T) to logits of shape (B, outputs)."""
        hidden = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.head(hidden.flatten(1))
        return logits


def main(args: Sequence[str] | None = None) -> None:
    """Compare, or run another command of ``lightning-mmix``."""
    given = sys.argv[1:] if args is None else list(args)
    if given[:1] and given[0] in cli.COMMANDS:
        cli.main(args)
    else:
        compare(["--config", str(HERE / "series.yaml"), *given])


if __name__ == "__main__":
    main()
