"""Other people's modules beside the naive two-pass form of each of their steps."""

import copy
import inspect

import lightning.pytorch as L
import naive
import torch
from fitting import fit
from torch import Tensor, nn

from lightning_mmix import ManifoldMixup


class Naively(L.Callback):
    """Takes every step once more on a copy of the module: two whole passes, with their gradients.

    ``targets(batch)`` lists the tensors that the second pass takes from the partners.
    """

    def __init__(self, mixup, batch, targets, atol):
        self.mixup, self.batch, self.targets, self.atol = mixup, batch, targets, atol
        self.layers = set()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.module, self.noise = copy.deepcopy(pl_module), torch.get_rng_state()
        self.module.log = self.module.log_dict = lambda *args, **kwargs: None
        self.module.trainer = trainer
        self.module.zero_grad()

    def on_after_backward(self, trainer, pl_module):
        self.grads = [p.grad if p.grad is None else p.grad.clone() for p in pl_module.parameters()]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        plan = self.mixup.plan
        self.layers.add(plan.layer)
        loss = self.one_pass(plan, plan.lam, torch.arange(len(plan.partner)))
        loss += self.one_pass(plan, 1 - plan.lam, plan.partner)
        assert plan.lam < 1
        self.assert_close(outputs["loss"], loss)
        for found, parameter in zip(self.grads, self.module.parameters(), strict=True):
            self.assert_close(found, parameter.grad)

    def one_pass(self, plan, weight, rows):
        def mixed(output):
            if isinstance(output, tuple | list):
                return type(output)(map(mixed, output))
            is_hidden = isinstance(output, Tensor) and len(output) == len(rows)
            return naive.mix(output, plan.lam, plan.partner.tolist()) if is_hidden else output

        batch = copy.deepcopy(self.batch)
        for target in self.targets(batch):
            target.copy_(target[rows].clone())
        if plan.layer == "input":
            batch[0].copy_(mixed(batch[0]))
        layer = dict(self.module.named_modules()).get(plan.layer, nn.Identity())
        handle = layer.register_forward_hook(lambda *args: mixed(args[-1]), prepend=True)
        torch.set_rng_state(self.noise)
        step = self.module.training_step
        loss = step(*(batch, 0)[: len(inspect.signature(step).parameters)])
        loss = weight * (loss["loss"] if isinstance(loss, dict) else loss)
        loss.backward()  # a checkpointed layer runs again, and is mixed again
        handle.remove()
        return loss.detach()

    def assert_close(self, found, expected):
        close = {"atol": self.atol, "rtol": 0, "check_dtype": False}
        torch.testing.assert_close(found, expected, **close)


def assert_naive(module, batch, targets, steps=4, atol=1e-10, **kwargs):
    """Fit a module on one batch time and again, until every layer had its turn; judge each step."""
    mixup = ManifoldMixup(stop=1.0, seed=0, **kwargs)
    naively = Naively(mixup, copy.deepcopy(batch), targets, atol)
    fit(module, mixup, naively, data=[copy.deepcopy(batch) for _ in range(steps)])
    assert naively.layers == set(mixup.layers_)


class Wrapped(L.LightningModule):
    """The usual ten lines around a model of Hugging Face."""

    def __init__(self, model):
        super().__init__()
        self.model = model.double()

    def forward(self, **batch):
        return self.model(**batch)

    def training_step(self, batch, batch_idx):
        loss = self(**batch).loss
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)
