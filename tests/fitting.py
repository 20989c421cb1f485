"""LightningModules as people write them, and a Trainer that keeps quiet."""

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from lightning_mmix import ManifoldMixup, ManifoldMixupMixin


class Net(L.LightningModule):
    def __init__(self, criterion=None):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.criterion = criterion or F.cross_entropy

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.loss = self.criterion(self(x), y)
        return self.loss

    def on_after_backward(self):
        self.grads = [p.grad.clone() for p in self.parameters()]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Steps(Net):
    """A network whose training step is a function of itself and the batch."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def training_step(self, batch, batch_idx):
        self.loss = self.step(self, batch)
        return self.loss


class InFront(ManifoldMixupMixin, Net):
    def training_step(self, batch, batch_idx):
        self.loss = super().training_step(batch, batch_idx)
        return self.loss

    def configure_mixup(self):
        return ManifoldMixup(layers=["net.0"], stop=1.0)


def batches(count=1, size=6):
    generator = torch.Generator().manual_seed(7)
    return [
        (torch.randn(size, 4, generator=generator), torch.arange(size).roll(i) % 5)
        for i in range(count)
    ]


def loader(data):
    return DataLoader(data, batch_size=None)


def trainer(*callbacks, **kwargs):
    defaults = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return kwargs.pop("cls", L.Trainer)(callbacks=[*callbacks], **{**defaults, **kwargs})


def fit(module, *callbacks, data=None, **kwargs):
    trained = trainer(*callbacks, **kwargs)
    trained.fit(module, loader(batches() if data is None else data))
    return module
