"""The experiments, and what Verma et al. (2019) published of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paper.datasets import CIFAR10, CIFAR100, SVHN, TinyImageNet
from paper.images import Images

CONFIGS = Path(__file__).parent / "configs"
ARMS = {"none": "no mixing", "input": "input mixup", "manifold": "manifold mixup"}


@dataclass(frozen=True)
class Published:
    """A published result, in its authors' best epoch.

    Attributes:
        accuracy: In percent, on the test set.
        nll: In nats; None where it is not given.
    """

    accuracy: float
    nll: float | None = None


@dataclass(frozen=True)
class Experiment:
    """Ways to train that the paper compares, on one network and one set of data.

    Attributes:
        title: For people.
        configs: The LightningCLI configs, each laid over those before it.
        data: The kind of its data.
        arms: What was published of each way to train: ``none``, ``input`` (α = 1), ``manifold``
            (as in the configs), or the name of a config in ``configs/arms``.
    """

    title: str
    configs: tuple[str, ...]
    data: type[Images]
    arms: Mapping[str, Published]

    def args(self, arms: Sequence[str] | None = None) -> list[str]:
        """What ``lightning-mmix compare`` has to be told of it.

        Args:
            arms: Ways to train instead of the published ones.
        """
        configs = [f"--config={CONFIGS / name}.yaml" for name in ("base", *self.configs)]
        ways = [str(arm_file(arm)) if arm_file(arm).exists() else arm for arm in arms or self.arms]
        mean, std = map(str, self.data.mean), map(str, self.data.std)
        return [*configs, "--arms", *ways, "--range", "0", "1", "--mean", *mean, "--std", *std]


def arm_file(name: str) -> Path:
    """The config that makes a way to train of an experiment."""
    return CONFIGS / "arms" / f"{name}.yaml"


def _errors(*values: float) -> dict[str, Published]:
    """Test errors of the three ways to train, and their NLLs."""
    rows = zip(ARMS, values[:3], values[3:], strict=True)
    return {arm: Published(round(100 - error, 2), nll) for arm, error, nll in rows}


_LAYERS = {  # the eligible set S, of CIFAR-10 and of CIFAR-100
    "none": (95.27, 76.40),
    "layers_0": (96.73, 78.15),
    "layers_1": (96.10, 78.72),
    "layers_2": (95.19, 76.50),
    "layers_01": (96.94, 78.93),
    "layers_12": (96.35, 78.69),
    "layers_23": (95.32, 76.46),
    "manifold": (97.23, 79.60),
    "layers_123": (96.51, 79.31),
    "layers_0123": (96.92, 80.18),
}
_ALPHA = {
    "input_0.5": 96.68, "input": 96.75, "input_1.5": 96.84, "layers_0": 96.73,
    "manifold_0.5": 96.76, "manifold_1": 97.00, "manifold_1.5": 97.10, "manifold": 97.23,
}  # fmt: skip
_TABLES = {
    ("cifar10", "preactresnet18"): (4.83, 3.82, 2.95, 0.190, 0.186, 0.137),
    ("cifar10", "preactresnet34"): (4.64, 2.88, 2.54, 0.200, 0.176, 0.118),
    ("cifar10", "wrn28_10"): (3.99, 2.92, 2.55, 0.162, 0.173, 0.111),
    ("cifar100", "preactresnet18"): (24.01, 22.11, 20.34, 1.189, 1.055, 0.912),
    ("cifar100", "preactresnet34"): (23.55, 20.53, 18.35, 1.189, 1.039, 0.877),
    ("cifar100", "wrn28_10"): (21.72, 18.89, 18.04, 1.023, 0.927, 0.809),
    ("svhn", "preactresnet18"): (2.89, 2.76, 2.27, 0.136, 0.212, 0.122),
    ("svhn", "preactresnet34"): (2.97, 2.67, 2.18, 0.165, 0.199, 0.137),
    ("svhn", "wrn28_10"): (2.80, 2.68, 2.06, 0.143, 0.184, 0.126),
}
_DATA: dict[str, tuple[str, type[Images]]] = {
    "cifar10": ("CIFAR-10", CIFAR10),
    "cifar100": ("CIFAR-100", CIFAR100),
    "svhn": ("SVHN", SVHN),
}
_NETWORKS = {
    "preactresnet18": "PreActResNet18",
    "preactresnet34": "PreActResNet34",
    "wrn28_10": "WRN-28-10",
}

EXPERIMENTS: dict[str, Experiment] = {
    **{
        f"{data}-{network}": Experiment(
            f"{_DATA[data][0]}, {_NETWORKS[network]}",
            (data, network),
            _DATA[data][1],
            _errors(*values),
        )
        for (data, network), values in _TABLES.items()
    },
    "tiny_imagenet-preactresnet18": Experiment(
        "Tiny-ImageNet, PreActResNet18, alpha = 0.2",
        ("preactresnet18", "tiny_imagenet"),
        TinyImageNet,
        {"none": Published(55.52), "input_0.2": Published(56.47), "manifold": Published(58.70)},
    ),
    "cifar10-preactresnet50": Experiment(
        "CIFAR-10, PreActResNet50, 600 epochs",
        ("cifar10", "preactresnet50"),
        CIFAR10,
        {"none": Published(95.04), "input": Published(95.75), "manifold": Published(96.23)},
    ),
    **{
        f"layers-{data}": Experiment(
            f"Layers, {_DATA[data][0]}, PreActResNet18, 2000 epochs",
            (data, "preactresnet18", "ablation"),
            _DATA[data][1],
            {arm: Published(values[column]) for arm, values in _LAYERS.items()},
        )
        for column, data in enumerate(("cifar10", "cifar100"))
    },
    "alpha-cifar10": Experiment(
        "Alpha, CIFAR-10, PreActResNet18, 2000 epochs",
        ("cifar10", "preactresnet18", "ablation"),
        CIFAR10,
        {arm: Published(value) for arm, value in _ALPHA.items()},
    ),
    "little-data": Experiment(
        "CIFAR-10 with 50 images a class, nine convolutions",
        ("little_data",),
        CIFAR10,
        {
            "none": Published(56.07),
            "input_1.5": Published(60.76),
            "manifold": Published(60.87),
            "manifold_4": Published(61.44),
            "layers_02_4": Published(61.73),
        },
    ),
}
