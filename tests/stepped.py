"""A module whose fit is done once more by a naive loop with the same plans."""

import copy

import lightning.pytorch as L
import naive
import torch
import torch.nn.functional as F
from fitting import Net

from lightning_mmix import ManifoldMixup
from lightning_mmix.core.plan import Recipe, draw

LAYERS = {"input": 1.0, "net.0": 1.0, "net.1": 2.0}
SEED = 4  # whose first six plans are of all three layers


def mixup(**kwargs):
    return ManifoldMixup(**{"layers": LAYERS, "seed": SEED, "stop": 1.0, **kwargs})


class Stepped(Net):
    def loss_of(self, x, y):
        return F.cross_entropy(self(x), y)

    def training_step(self, batch, batch_idx):
        return self.loss_of(*batch)

    def on_after_backward(self):
        pass  # not every parameter has a gradient

    def validation_step(self, batch, batch_idx):
        loss = self.loss_of(*batch)
        self.validated = [*getattr(self, "validated", []), (copy.deepcopy(self.net), loss)]


class Steps(L.Callback):
    """Notes every batch; it stands before the mixup, so it sees the batch as it was."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append((trainer.current_epoch, batch_idx, copy.deepcopy(batch)))


def naive_loss(module, loss_of, epoch, batch_idx, batch):
    x, y = batch
    plan = draw(Recipe(1.0, LAYERS), len(y), seed=SEED, epoch=epoch, batch_idx=batch_idx)
    if plan is None:
        return loss_of(x, y)
    if plan.layer == "input":
        x = naive.mix(x, plan.lam, plan.partner.tolist())
        return plan.lam * loss_of(x, y) + (1 - plan.lam) * loss_of(x, y[plan.partner])
    return naive.two_pass(lambda y: loss_of(x, y), plan, dict(module.named_modules()), y)


def trained_naively(module, seen, every=1, clip=lambda parameters: None):
    """A copy of the module after the same steps, each ``every`` batches long."""
    return train_naively(copy.deepcopy(module), seen, every, clip)


def train_naively(naively, seen, every=1, clip=lambda parameters: None):
    optimizer = naively.configure_optimizers()
    for i, step in enumerate(seen):
        is_last = (i + 1) % every == 0 or i + 1 == len(seen)

        def closure():
            if i % every == 0:  # noqa: B023 - it is called before the next turn
                optimizer.zero_grad()
            loss = naive_loss(naively, naively.loss_of, *step) / every  # noqa: B023
            loss.backward()
            if is_last:  # noqa: B023
                clip(naively.parameters())
            return loss

        naively.on_train_batch_start(step[2], step[1])
        if is_last:
            naively.optimizer_step(step[0], step[1], optimizer, closure)
        else:
            closure()
    return naively


def assert_same_weights(module, naively):
    found, expected = list(module.parameters()), list(naively.parameters())
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
