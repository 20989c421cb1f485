"""The data of the paper."""

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import download_and_extract_archive

from paper.images import Images, Split


class CIFAR10(Images):
    """CIFAR-10: 50,000 and 10,000 images of 32 pixels; see :class:`Images`."""

    mean = (125.3 / 255, 123.0 / 255, 113.9 / 255)
    std = (63.0 / 255, 62.1 / 255, 66.7 / 255)
    source: ClassVar[Callable[..., Any]] = datasets.CIFAR10

    def fetch(self) -> None:
        """Download what is not there."""
        type(self).source(self.root, download=True)

    def load(self, *, train: bool) -> Split:
        """The training or the test images."""
        found = type(self).source(self.root, train=train)
        return torch.from_numpy(found.data).permute(0, 3, 1, 2), torch.tensor(found.targets)


class CIFAR100(CIFAR10):
    """CIFAR-100: as many images of 100 classes; see :class:`Images`."""

    mean = (129.3 / 255, 124.1 / 255, 112.4 / 255)
    std = (68.2 / 255, 65.4 / 255, 70.4 / 255)
    source = datasets.CIFAR100


class SVHN(Images):
    """SVHN: 73,257 and 26,032 house numbers of 32 pixels, not mirrored; see :class:`Images`."""

    flips = False

    def fetch(self) -> None:
        """Download what is not there."""
        for split in ("train", "test"):
            datasets.SVHN(self.root, split, download=True)

    def load(self, *, train: bool) -> Split:
        """The training or the test images."""
        found = datasets.SVHN(self.root, "train" if train else "test")
        return torch.from_numpy(found.data), torch.from_numpy(found.labels)


class TinyImageNet(Images):
    """Tiny-ImageNet: 100,000 images of 64 pixels of 200 classes, and 10,000 to test on.

    Those are its validation images, since the labels of its test images are not public; see
    :class:`Images`.
    """

    padding = 4
    url: ClassVar[str] = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    md5: ClassVar[str] = "90528d7ca1a48142e341f4ef8d21d0de"

    def fetch(self) -> None:
        """Download what is not there."""
        if not (self.root / "tiny-imagenet-200").exists():
            download_and_extract_archive(self.url, str(self.root), md5=self.md5)

    def load(self, *, train: bool) -> Split:
        """The training or the test images."""
        folder = self.root / "tiny-imagenet-200"
        classes = sorted((folder / "wnids.txt").read_text().split())
        if train:
            named = [(p, p.parts[-3]) for p in sorted(folder.glob("train/*/images/*.JPEG"))]
        else:
            lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
            fields = [line.split("\t") for line in lines]
            named = [(folder / "val" / "images" / name, wnid) for name, wnid, *_ in fields]
        labels = torch.tensor([classes.index(wnid) for _, wnid in named])
        return decoded([path.read_bytes() for path, _ in named]), labels


class Archive(CIFAR10):
    """CIFAR-10 from one file of JPEGs, for machines without the network; see :class:`Images`.

    The ``.npz`` file holds, for ``train`` and for ``test``, all JPEGs one after another as
    ``train_jpeg``, where each begins, and the last ends, as ``train_offsets``, and
    ``train_labels``.

    Args:
        path: The file.
        batch_size: As in :class:`Images`, like the rest.
        labels_per_class: Images of each class to train on.
        validation: Images to hold back.
        seed: Of the choice.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 100,
        labels_per_class: int | None = None,
        validation: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(path, batch_size, labels_per_class, validation, seed)

    def prepare_data(self) -> None:
        """Look if the file is there."""
        if not self.root.is_file():
            raise ValueError(f"expected an .npz file of JPEGs, but there is no {self.root}")

    def load(self, *, train: bool) -> Split:
        """The training or the test images."""
        name = "train" if train else "test"
        with np.load(self.root) as held:
            missing = {f"{name}_{part}" for part in ("jpeg", "offsets", "labels")} - {*held}
            if missing:
                raise ValueError(f"expected {', '.join(sorted(missing))} in {self.root}")
            jpegs, offsets = held[f"{name}_jpeg"], held[f"{name}_offsets"]
            labels = torch.from_numpy(held[f"{name}_labels"]).long()
        ends = pairwise(offsets.tolist())
        return decoded([jpegs[start:end].tobytes() for start, end in ends]), labels


def decoded(files: Sequence[bytes]) -> Tensor:
    """Encoded images of one size, as uint8 of shape (N, 3, H, W)."""
    pixels = np.stack([np.asarray(Image.open(BytesIO(file)).convert("RGB")) for file in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
