"""Images in memory, in batches that are shifted, mirrored and normalised on their device."""

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Split = tuple[Tensor, Tensor]  # images of shape (N, 3, H, W), uint8, and labels of shape (N,)
Channels = tuple[float, float, float]
Loader = DataLoader[Split]


class Images(LightningDataModule):
    """Images and labels; batches hold normalised images of shape (B, 3, H, W) and labels.

    Those of training are shifted by up to ``padding`` pixels, and mirrored at random if ``flips``.

    Args:
        root: The folder of all data, to which what is missing is downloaded.
        batch_size: Training images in a step of each process.
        labels_per_class: How many images of each class to train on; None for all.
        validation: How many of the training images to hold back, as many of each class as there
            are in proportion; 0 for none.
        seed: Of the choice of images, in [0, 2³²); None takes that of ``seed_everything``, else 0.

    Raises:
        ValueError: If there are fewer images of a class than asked for.
        RuntimeError: If the data are neither there nor to be had.
    """

    mean: ClassVar[Channels] = (0.5, 0.5, 0.5)
    std: ClassVar[Channels] = (0.5, 0.5, 0.5)
    padding: ClassVar[int] = 2
    flips: ClassVar[bool] = True

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 100,
        labels_per_class: int | None = None,
        validation: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size = batch_size
        self.labels_per_class = labels_per_class
        self.validation = validation
        self.seed = seed
        self._rows: dict[str, _Rows] = {}
        if not validation:  # Lightning looks if the method is there, and warns of empty loaders
            self.val_dataloader = super().val_dataloader  # type: ignore[method-assign]

    def fetch(self) -> None:
        """Download what is not there."""
        raise NotImplementedError

    def load(self, *, train: bool) -> Split:
        """The training or the test images."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Download what is not there, in one process."""
        try:
            self.fetch()
        except (OSError, RuntimeError) as error:
            raise RuntimeError(
                f"{type(self).__name__} is not in {self.root.absolute()} and could not be "
                f"downloaded ({error}); put it there, or set data.init_args.root"
            ) from error

    def setup(self, stage: str) -> None:  # noqa: ARG002 - all stages share the split
        """Load all images, and choose those to train and to validate on."""
        if self._rows:
            return
        images, labels = self.load(train=True)
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed
        train, held = chosen(labels, self.labels_per_class, self.validation, seed)
        self._rows = {
            "train": _Rows(images[train], labels[train]),
            "val": _Rows(images[held], labels[held]),
            "test": _Rows(*self.load(train=False)),
        }

    def train_dataloader(self) -> Loader:
        """The training images, shuffled."""
        return _loader(self._rows["train"], self.batch_size, shuffle=True)

    def val_dataloader(self) -> Loader:
        """The images held back, in order."""
        return _loader(self._rows["val"], 500)

    def test_dataloader(self) -> Loader:
        """The test images, in order."""
        return _loader(self._rows["test"], 500)

    def on_after_batch_transfer(self, batch: Split, dataloader_idx: int) -> Split:  # noqa: ARG002
        """Shift and mirror images in training, and normalise all, on the device they are on."""
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            images = shifted(images, self.padding, flips=self.flips)
        mean, std = (
            torch.tensor(each, device=images.device).view(3, 1, 1) for each in (self.mean, self.std)
        )
        return (images / 255 - mean) / std, labels


class _Rows(Dataset[Split]):
    """Images and labels, of which a batch is taken at once."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: Any) -> Split:
        return self.images[row], self.labels[row]

    __getitems__ = __getitem__


def shifted(images: Tensor, padding: int, *, flips: bool) -> Tensor:
    """Shift each image at random, black coming in, and mirror half of them: one gather.

    Args:
        images: Shape (B, C, H, W).
        padding: The most pixels that an image is shifted by, in either direction.
        flips: Whether to mirror.

    Returns:
        Shape (B, C, H, W), channels last in memory.
    """
    count, _, height, width = images.shape
    device = images.device

    def places(size: int) -> tuple[Tensor, Tensor]:
        start = torch.randint(2 * padding + 1, (count, 1), device=device)
        return start, torch.arange(size, device=device).expand(count, -1)

    (top, rows), (left, columns) = places(height), places(width)
    if flips:
        mirrored = torch.rand(count, 1, device=device) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    padded = F.pad(images, [padding] * 4)
    every = torch.arange(count, device=device)[:, None, None]
    taken = padded[every, :, (top + rows)[:, :, None], (left + columns)[:, None, :]]
    return taken.permute(0, 3, 1, 2)


def chosen(
    labels: Tensor, per_class: int | None, validation: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The rows to train and to validate on.

    Args:
        labels: Shape (N,).
        per_class: How many of each class to train on; None for all that are left.
        validation: How many to validate on, stratified.
        seed: Of the choice.

    Returns:
        Two disjoint sets of rows, each in ascending order.

    Raises:
        ValueError: If there are not so many.
    """
    chance = np.random.default_rng(seed)
    train, held = [], []
    for label in np.unique(labels.numpy()):
        rows = torch.from_numpy(chance.permutation(torch.nonzero(labels == label)[:, 0].numpy()))
        count = round(validation * len(rows) / len(labels))
        own = rows[count:] if per_class is None else rows[count : count + per_class]
        if len(own) < (per_class or 1):
            raise ValueError(
                f"expected {per_class or 1} training images of class {label} and {count} to "
                f"validate on, but there are {len(rows)}"
            )
        held.append(rows[:count])
        train.append(own)
    return torch.cat(train).sort().values, torch.cat(held).sort().values


def _loader(rows: _Rows, batch_size: int, *, shuffle: bool = False) -> Loader:
    pinned = torch.cuda.is_available()
    return DataLoader(rows, batch_size, shuffle=shuffle, collate_fn=_as_it_is, pin_memory=pinned)


def _as_it_is(batch: Any) -> Any:
    return batch
