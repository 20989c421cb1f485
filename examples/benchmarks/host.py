"""What mixing costs the host: a step of a network that does nothing, longer by Python alone.

All ways to train with one loss run side by side on one thread. A way costs what its step takes
longer than that of the same framework without mixing, and is compared with the usual form by hand
of the same framework and the same round.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from benchmarks import loops
from benchmarks.lanes import Course, Effort, Lane, Spread, race
from benchmarks.workloads import CLASSES, Workload, empty
from lightning_mmix import ManifoldMixupMixin

Row = dict[str, Any]
Way = tuple[Lane, Mapping[str, Lane]]
BY_HAND, FIRST = "usual form", "layer1"
TOGETHER = 64  # steps of a turn: as many as are drawn together


@dataclass(frozen=True)
class Case(Workload):
    """A network that does nothing, trained with a loss.

    Attributes:
        loss: Takes logits and target.
        target: Of labels, what the loss takes.
        is_linear: Whether by hand the target is mixed; else two losses are.
        logs: Whether the training step logs an accuracy.
    """

    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    target: Callable[[Tensor], Tensor] = torch.clone
    is_linear: bool = True
    logs: bool = False

    def batch(self, device: str) -> tuple[Tensor, Tensor]:
        """Inputs and targets, the same each time."""
        x, y = super().batch(device)
        return x, self.target(y)


def case(name: str, layers: int = 1, **options: Any) -> Case:
    """A case by name.

    Args:
        name: Of the loss.
        layers: How many there are, and may be mixed.
        options: The case's other attributes.
    """
    names = tuple(f"layer{i + 1}" for i in range(layers))
    return Case(name, partial(empty, layers), (128, CLASSES), names, FIRST, **options)


def one_hot(y: Tensor) -> Tensor:
    """Labels as numbers, as they are mixed by hand."""
    return F.one_hot(y, CLASSES).float()


def focal(logits: Tensor, y: Tensor) -> Tensor:
    """The focal loss (Lin et al., 2017) by hand, γ = 2."""
    each = F.cross_entropy(logits, y, reduction="none")
    return ((1 - torch.exp(-each)) ** 2 * each).mean()


def weighted(logits: Tensor, y: Tensor) -> Tensor:
    """A cross-entropy with weights of the classes and label smoothing."""
    weights = torch.ones(CLASSES, device=logits.device)
    return F.cross_entropy(logits, y, weights, label_smoothing=0.1)


CASES = [
    case("cross-entropy"),
    case("cross-entropy", 8),
    case("cross-entropy", 64),
    case("cross-entropy, weights and smoothing", loss=weighted, is_linear=False),
    case("binary cross-entropy", loss=F.binary_cross_entropy_with_logits, target=one_hot),
    case("mean squared error", loss=F.mse_loss, target=one_hot),
    case("focal loss by hand", loss=focal, is_linear=False),
    case("cross-entropy, and an accuracy logged", logs=True),
]


def added(work: Case, device: str, effort: Effort) -> list[Row]:
    """What each way to mix adds to a step of its framework.

    Args:
        work: The network and its loss.
        device: ``"cpu"`` or ``"cuda"``.
        effort: How long each race goes on.
    """
    frameworks = {"Lightning": _in_lightning(work, device)}
    if not work.logs:
        frameworks = {"loop": _in_a_loop(work, device), **frameworks}
    if work is CASES[0]:
        bearer = {"ManifoldMixup": loops.bearer(work, device, FIRST)}
        frameworks["torchbearer"] = loops.bearer(work, device), bearer
    rows = []
    for framework, (base, lanes) in frameworks.items():
        courses = race(base, lanes, effort, warm=2 * TOGETHER, steps=TOGETHER)
        by_hand = courses.get(BY_HAND)
        rows += [_row(work, f"{framework} + {way}", c, by_hand) for way, c in courses.items()]
    return rows


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, since to wake others is no cost of Python's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def mixed_by_hand(work: Case, net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and logits of a batch, in the usual form: a hook with two products and a sum."""
    lam, partner = np.random.beta(loops.ALPHA, loops.ALPHA), torch.randperm(len(y), device=y.device)  # noqa: NPY002 - as it is usually written
    layer = net.get_submodule(random.choice(work.layers))
    change = partial(loops.mix_as_usual, lam=lam, partner=partner)
    handle = layer.register_forward_hook(lambda _, __, out: change(out))
    logits = net(x)
    handle.remove()
    if not work.is_linear:
        return lam * work.loss(logits, y) + (1 - lam) * work.loss(logits, y[partner]), logits
    soft = y if y.is_floating_point() else one_hot(y)
    return work.loss(logits, loops.mix_as_usual(soft, lam, partner)), logits


class Net(loops.Net):
    """A module as people write it."""

    def __init__(self, net: nn.Module, work: Case) -> None:
        super().__init__(net)
        self.criterion, self.work = work.loss, work
        self.accuracy = MulticlassAccuracy(CLASSES)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Loss of a batch, and its accuracy if that is logged."""
        x, y = batch
        logits = self(x)
        return self.logged(self.loss(logits, y), logits, y)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of the case."""
        return self.criterion(logits, y)

    def logged(self, loss: Tensor, logits: Tensor, y: Tensor) -> Tensor:
        """Log the accuracy, if the case does."""
        if self.work.logs:
            self.accuracy(logits, y)
            self.log("accuracy", self.accuracy)
        return loss


class _ByHand(Net):
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002 - likewise
        loss, logits = mixed_by_hand(self.work, self.net, *batch)
        return self.logged(loss, logits, batch[1])


class _Mixin(ManifoldMixupMixin, Net):
    pass


def _in_lightning(work: Case, device: str) -> Way:
    def lane(kind: type[Net] = Net, **mixup: Any) -> Lane:
        callbacks = loops.ours([*work.layers], target=1, **mixup) if mixup else []
        return loops.lightning(work, device, callbacks, module=partial(kind, work=work))

    lanes = {
        BY_HAND: lane(_ByHand),
        "ManifoldMixup": lane(labels="paired"),
        "ManifoldMixup, own labels": lane(labels="own"),
    }
    if not work.logs:  # the mixin's step is its own
        lanes["mixin"] = lane(_Mixin, labels="paired")
    return lane(), lanes


def _in_a_loop(work: Case, device: str) -> Way:
    def plain(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return work.loss(net(x), y)

    def by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return mixed_by_hand(work, net, x, y)[0]

    lanes = {
        BY_HAND: loops.raw(work, device, by_hand),
        "Mixer": loops.with_mixer(work, device, plain, labels="paired"),
        "Mixer, own labels": loops.with_mixer(work, device, plain, labels="own"),
    }
    return loops.raw(work, device, plain), lanes


def _row(work: Case, way: str, course: Course, by_hand: Course | None) -> Row:
    over = None
    if by_hand is not None:
        pairs = zip(course.differences, by_hand.differences, strict=True)
        over = asdict(Spread.of([mine / its for mine, its in pairs]))
    return {
        "loss": work.name,
        "layers": len(work.layers),
        "way": way,
        "base_us": 1e6 * median(course.base),
        "added_us": 1e6 * course.added.median,
        "over_by_hand": over,
    }
