"""Many fits of every kind, one after the other: plans, model and memory stay as they should."""

import gc
import os
import random
import sys
from collections import Counter
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from fitting import Net, loader, trainer

from lightning_mmix import ManifoldMixup
from lightning_mmix.core.plan import Recipe, draw

LAYERS = {  # what is asked for, and in what order it runs
    "auto": ["input", "net.1"],
    ("input",): ["input"],
    ("net.0",): ["net.0"],
    ("net.*", "input"): ["input", "net.0", "net.1", "net.2"],
}
FAILS = [
    "on_train_start", "on_train_batch_start", "on_before_zero_grad", "on_before_backward",
    "on_after_backward", "on_before_optimizer_step", "on_train_batch_end", "on_train_epoch_end",
    "on_validation_batch_start", "on_validation_epoch_end", "on_fit_end",
]  # fmt: skip
SEED = 3
STATM = Path("/proc/self/statm")
X = torch.randn(7, 4, generator=torch.Generator().manual_seed(7))
Y = torch.arange(7) % 5


class AnyNet(Net):
    def __init__(self, automatic):
        super().__init__()
        self.automatic_optimization = automatic

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        self.log("loss", loss, on_step=True, on_epoch=True, batch_size=len(batch[1]))
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", self.criterion(self(batch[0]), batch[1]))


class Run:
    """A run of one or several fits, that knows which batch comes next and with what plan."""

    def __init__(self, rng, modules, mixups):
        self.asked = rng.choice([*LAYERS])
        self.mixup, self.module = mixups[self.asked], rng.choice(modules)
        self.sizes = [rng.randint(2, 7), *(rng.randint(1, 7) for _ in range(rng.randint(1, 60)))]
        self.data = [(X[:size].clone(), Y[:size].clone()) for size in self.sizes]
        self.saved = self.epoch = self.batch_idx = 0

    def start(self):
        """Whether it resumes."""
        self.epoch, self.batch_idx = self.saved, 0
        return self.saved > 0

    def follow(self, epoch, batch_idx):
        assert (epoch, batch_idx) == (self.epoch, self.batch_idx)
        recipe = Recipe(1.0, dict.fromkeys(LAYERS[self.asked], 1.0))
        place = {"seed": SEED, "epoch": epoch, "batch_idx": batch_idx}
        plan, found = draw(recipe, self.sizes[batch_idx], **place), self.mixup.plan
        assert (found is None) == (plan is None)
        if plan is not None:
            assert (found.layer, found.lam) == (plan.layer, plan.lam)
            assert torch.equal(found.partner, plan.partner)
        self.batch_idx += 1
        if self.batch_idx == len(self.sizes):
            self.epoch, self.batch_idx = self.epoch + 1, 0

    def check(self):
        assert not any(m._forward_hooks for m in self.module.modules())
        for (x, y), size in zip(self.data, self.sizes, strict=True):
            assert type(x) is type(y) is torch.Tensor
            assert not vars(x)
            assert not vars(y)
            assert torch.equal(x, X[:size])
            assert torch.equal(y, Y[:size])


class Follows(L.Callback):
    def __init__(self, run, path):
        self.run, self.path, self.steps = run, path, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.run.follow(trainer.current_epoch, batch_idx)
        self.steps += 1

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path)
        self.run.saved = trainer.current_epoch + 1


class Failure(RuntimeError):  # noqa: N818 - no one sees its name
    pass


class Fails(L.Callback):
    """Raises an error in the so many-th call of some hook."""

    def __init__(self, rng):
        self.left = rng.randint(1, 30)
        if rng.random() < 0.5:
            setattr(self, rng.choice(FAILS), self.fail)

    def fail(self, *_):
        self.left -= 1
        if self.left == 0:
            raise Failure


def fitted(run, rng, path):
    """What a fit of this run was: the number of its steps, and whether it resumed and failed."""
    resumes, follows = run.start(), Follows(run, path)
    trained = trainer(
        *rng.sample([run.mixup, Fails(rng)], 2),
        follows,
        max_epochs=run.saved + rng.randint(1, 3),
        accumulate_grad_batches=rng.randint(1, 3) if run.module.automatic_optimization else 1,
        limit_val_batches=rng.choice([0, 1]),
        val_check_interval=rng.choice([1.0, 0.5]),
    )
    train, val, failed = loader(run.data), loader([(X, Y)]), False
    try:
        trained.fit(run.module.train(), train, val, ckpt_path=path if resumes else None)
    except Failure:
        failed = True
    return {"steps": follows.steps, "resumed": resumes, "failed": failed, run.asked: 1}


def soak(num_steps, path):
    """Fit until so many steps are made; yields after every fit what was done so far."""
    rng, done, run = random.Random(5), Counter(), None
    modules = [AnyNet(automatic) for automatic in (True, False)]
    mixups = {asked: ManifoldMixup(layers=asked, seed=SEED, stop=1.0) for asked in LAYERS}
    while done["steps"] < num_steps:
        if run is None or rng.random() < 0.4:
            run = Run(rng, modules, mixups)
        done.update(fitted(run, rng, path))
        run.check()
        yield done


def memory():
    """Blocks that Python holds, and bytes of the whole process."""
    gc.collect()
    pages = int(STATM.read_text().split()[1]) if STATM.exists() else 0
    return sys.getallocatedblocks(), pages * os.sysconf("SC_PAGE_SIZE")


def test_every_plan_is_that_of_an_uninterrupted_run(tmp_path):
    *_, done = soak(300, tmp_path / "last.ckpt")
    assert done["failed"] > 0
    assert done["resumed"] > 0


@pytest.mark.slow
def test_twenty_thousand_steps_leave_nothing_in_memory(tmp_path, caplog):
    for name in ("lightning.pytorch", "pytorch_lightning"):  # pytest keeps what is logged
        caplog.set_level("WARNING", name)
    seen = []
    for done in soak(20_000, tmp_path / "last.ckpt"):
        if done["steps"] > 1_000 * len(seen):
            seen.append(memory())
    blocks, size = (b - a for a, b in zip(seen[5], seen[-1], strict=True))
    assert blocks < 3_000  # in 15,000 steps
    assert size < 1_500_000
    assert min(done["failed"], done["resumed"], *(done[asked] for asked in LAYERS)) > 20
