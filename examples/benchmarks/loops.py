"""Ways to train: a raw loop, Lightning, torchbearer; without mixing and with each way to mix."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchbearer
from lightning.pytorch import Callback, LightningModule, Trainer
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torchbearer.callbacks.manifold_mixup import ManifoldMixup as TorchbearerMixup
from torchbearer.callbacks.mixup import Mixup as TorchbearerInputMixup
from torchvision.transforms.v2 import MixUp

from benchmarks.lanes import NEVER, FrameworkLane, Lane, Loader, close_later
from benchmarks.workloads import CLASSES, Workload
from lightning_mmix import ManifoldMixup, ManifoldMixupMixin, Mixer, mixing
from lightning_mmix.core import Recipe, draw
from lightning_mmix.pairing import Gates

ALPHA = 2.0
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Net(LightningModule):
    """A module as people write it, which knows nothing of mixing."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs to logits."""
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """The cross-entropy of a batch."""
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self) -> Optimizer:
        """Plain SGD."""
        return optimizer(self)


class MixinNet(ManifoldMixupMixin, Net):
    """The same, by way of the mixin."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.criterion = nn.CrossEntropyLoss()


def optimizer(module: nn.Module) -> Optimizer:
    """SGD with the paper's momentum."""
    return SGD(module.parameters(), lr=1e-3, momentum=0.9)


def lightning(
    work: Workload,
    device: str,
    callbacks: list[Callback],
    *,
    module: Callable[[nn.Module], Net] = Net,
    compiled: bool = False,
    **options: Any,
) -> Lane:
    """Lightning's Trainer with the callbacks, without loggers and bars.

    Args:
        work: The network and its batch.
        device: ``"cpu"`` or ``"cuda"``.
        callbacks: Of the Trainer.
        module: The LightningModule.
        compiled: Whether the network is compiled.
        options: Of the Trainer.
    """
    net = work.network(device)
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {"devices": 1, "max_epochs": -1, **dict.fromkeys(silent, False), **options}

    def fit(loader: Loader) -> None:
        with quiet():
            accelerator = "gpu" if device == "cuda" else "cpu"
            trainer = Trainer(accelerator=accelerator, callbacks=callbacks, **options)
            made: Any = torch.compile(net) if compiled else net
            trainer.fit(module(made), loader)

    return FrameworkLane(fit, work.batch(device))


def ours(layers: str | list[str], **options: Any) -> list[Callback]:
    """The callback at some layers of the network in a :class:`Net`.

    Args:
        layers: Their names in the network.
        options: Of the callback.
    """
    names = [
        n if n == "input" else f"net.{n}" for n in ([layers] if isinstance(layers, str) else layers)
    ]
    return [ManifoldMixup(ALPHA, names, stop=1.0, **options)]


def raw(work: Workload, device: str, loss: Loss | None = None) -> Lane:
    """A plain PyTorch loop.

    Args:
        work: The network and its batch.
        device: ``"cpu"`` or ``"cuda"``.
        loss: Of network, inputs and labels; None for the cross-entropy.
    """
    net, (x, y) = work.network(device), work.batch(device)
    sgd = optimizer(net)
    loss_of = loss or (lambda net, x, y: F.cross_entropy(net(x), y))

    def step() -> None:
        sgd.zero_grad()
        loss_of(net, x, y).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    return step


def with_mixing(work: Workload, device: str, layer: str) -> Lane:
    """A plain loop with our context manager."""
    net, (x, y) = work.network(device), work.batch(device)
    sgd, gates, batches = optimizer(net), Gates(net, [layer]), count()
    close_later(gates.remove)

    def step() -> None:
        sgd.zero_grad()
        plan = draw(Recipe(ALPHA, {layer: 1.0}), len(y), seed=0, batch_idx=next(batches))
        with mixing(gates, plan and plan.to(y.device), y):
            F.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    return step


def with_mixer(work: Workload, device: str, loss: Loss, **options: Any) -> Lane:
    """A plain loop with our mixer.

    Args:
        work: The network and its batch, all layers of which may be mixed.
        device: ``"cpu"`` or ``"cuda"``.
        loss: Of network, inputs and labels.
        options: Of the mixer.
    """
    net, (x, y) = work.network(device), work.batch(device)
    sgd, mixer = optimizer(net), Mixer(net, ALPHA, list(work.layers), **options)
    close_later(mixer.remove)

    def step() -> None:
        sgd.zero_grad()
        with mixer(x, y) as target:
            loss(net, x, target).backward()  # type: ignore[no-untyped-call]
        sgd.step()

    return step


def usual(work: Workload, device: str, layer: str) -> Lane:
    """A plain loop with the usual form: a hook with two products and a sum, and soft targets."""

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        lam, partner = np.random.beta(ALPHA, ALPHA), torch.randperm(len(y), device=y.device)  # noqa: NPY002 - as it is usually written
        change = partial(mix_as_usual, lam=lam, partner=partner)
        handle = net.get_submodule(layer).register_forward_hook(lambda _, __, out: change(out))
        logits = net(x)
        handle.remove()
        return F.cross_entropy(logits, mix_as_usual(F.one_hot(y, CLASSES).float(), lam, partner))

    return raw(work, device, loss)


def mix_as_usual(hidden: Tensor, lam: float, partner: Tensor) -> Tensor:
    """The form in which a mix is usually written."""
    return hidden * lam + hidden[partner] * (1 - lam)


def torchvision_mixup(work: Workload, device: str) -> Lane:
    """A plain loop with torchvision's MixUp of the input."""
    mixup = MixUp(alpha=ALPHA, num_classes=CLASSES)

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        mixed, soft = mixup(x, y)
        return F.cross_entropy(net(mixed), soft)

    return raw(work, device, loss)


def timm_mixup(work: Workload, device: str) -> Lane:
    """A plain loop with timm's Mixup of the input, which writes into the batch."""
    mixup: Any = Mixup(mixup_alpha=ALPHA, label_smoothing=0.0, num_classes=CLASSES)  # type: ignore[no-untyped-call]

    def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        mixed, soft = mixup(x, y)
        return F.cross_entropy(net(mixed), soft)

    return raw(work, device, loss)


def bearer(work: Workload, device: str, layer: str | None = None) -> Lane:
    """The Trial of torchbearer, without mixing, at the input, or at a layer."""
    net = work.network(device)
    callbacks, criterion = [], F.cross_entropy
    if layer is not None:
        mixup = TorchbearerMixup(ALPHA).for_layers([layer.replace(".", "_")]).at_depth(None)
        callbacks, criterion = [mixup], TorchbearerInputMixup.mixup_loss

    def fit(loader: Loader) -> None:
        trial = torchbearer.Trial(net, optimizer(net), criterion, [], callbacks, verbose=0)
        trial.to(device).with_train_generator(loader, steps=NEVER).run(epochs=1)

    return FrameworkLane(fit, work.batch(device))


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Lightning says of every Trainer."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    log.setLevel(level)
