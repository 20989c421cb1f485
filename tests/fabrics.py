"""What two processes do in loops of their own: by Fabric, in plain DDP, and by a Trainer.

python fabrics.py FOLDER
"""

import copy
import sys
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from fitting import Net, trainer
from lightning.fabric import Fabric
from lightning.pytorch.strategies import DDPStrategy
from ranks import EVEN, NAMED, SMALL_FIRST, UNEVEN
from torch import nn
from torch.distributed.distributed_c10d import destroy_process_group, get_rank
from torch.nn.parallel import DistributedDataParallel

from lightning_mmix import ManifoldMixup, Mixer

EPOCHS, SEED = 2, 5


class Normalised(Net):
    """With buffers, which DDP sends in every forward pass."""

    def __init__(self):
        super().__init__()
        self.net.insert(1, nn.BatchNorm1d(6))


# name: module, data, arguments of the mixer, and of how many batches a step is
FITS = {
    "plain": (Net, EVEN, NAMED, 1),
    "auto": (Normalised, EVEN, {}, 1),
    "uneven": (Net, UNEVEN, NAMED, 1),
    "small first": (Net, SMALL_FIRST, {}, 1),
    "now and then": (Net, EVEN, {**NAMED, "prob": 0.5}, 1),
    "accumulated": (Net, EVEN, NAMED, 2),
}


class Keep(L.Callback):
    def __init__(self):
        self.plans = []

    def on_train_batch_end(self, trainer, *_):
        self.plans.append(plain(trainer.callbacks[0].plan))


def plain(plan):
    return plan and (plan.layer, plan.lam.tolist(), plan.partner.tolist())


def make(module):
    torch.manual_seed(1)
    return module()


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def by_trainer(name):
    module, data, settings, every = FITS[name]

    class Trained(module):
        def configure_optimizers(self):
            return sgd(self)

    trained, keep = make(Trained), Keep()
    mixup = ManifoldMixup(stop=1.0, seed=SEED, **settings)
    kwargs = {"devices": 2, "use_distributed_sampler": False, "max_epochs": EPOCHS}
    strategy = DDPStrategy(process_group_backend="gloo")
    accumulated = {"accumulate_grad_batches": every}
    trainer(mixup, keep, strategy=strategy, **kwargs, **accumulated).fit(trained, data)
    return keep.plans, trained.state_dict()


def by_fabric(name, fabric, wrap=lambda module: module):
    module, data, settings, every = FITS[name]
    module = make(module)
    module, optimizer = fabric.setup(wrap(module), sgd(module))
    plans = []
    with Mixer(module, seed=SEED, **settings) as mixer:
        for epoch in range(EPOCHS):
            mixer.set_epoch(epoch)
            for i, (x, y) in enumerate(data.of_rank(fabric.global_rank)):
                is_last = (i + 1) % every == 0
                with fabric.no_backward_sync(module, enabled=not is_last), mixer(x, y) as target:
                    fabric.backward(F.cross_entropy(module(x), target) / every)
                if is_last:
                    optimizer.step()
                    optimizer.zero_grad()
                plans.append(plain(mixer.plan))
    return plans, module.state_dict()


def by_hand(name):
    module, data, settings, every = FITS[name]
    module = DistributedDataParallel(make(module))
    optimizer, plans = sgd(module), []
    with Mixer(module, seed=SEED, **settings) as mixer:
        for epoch in range(EPOCHS):
            mixer.set_epoch(epoch)
            for i, (x, y) in enumerate(data.of_rank(get_rank())):
                is_last = (i + 1) % every == 0
                with nullcontext() if is_last else module.no_sync(), mixer(x, y) as target:
                    (F.cross_entropy(module(x), target) / every).backward()
                if is_last:
                    optimizer.step()
                    optimizer.zero_grad()
                plans.append(plain(mixer.plan))
    return plans, module.module.state_dict()


def resumed(name, fabric, path):
    """In the middle of an epoch, with a network, an optimizer and a mixer of their own."""
    _, data, settings, _ = FITS[name]
    batches = [(epoch, i) for epoch in range(EPOCHS) for i in range(len(data.sizes[0]))]
    plans = []
    for part in (batches[:6], batches[6:]):
        module = make(FITS[name][0])
        module, optimizer = fabric.setup(module, sgd(module))
        with Mixer(module, seed=SEED, **settings) as mixer:
            state = {"module": module, "optimizer": optimizer, "mixer": mixer}
            if plans:
                fabric.load(path, state)
            for epoch, i in part:
                x, y = data.of_rank(fabric.global_rank)[i]
                mixer.set_epoch(epoch)
                optimizer.zero_grad()
                with mixer(x, y) as target:
                    fabric.backward(F.cross_entropy(module(x), target))
                optimizer.step()
                plans.append(plain(mixer.plan))
            fabric.save(path, state)
    return plans, module.state_dict()


def main():
    folder = Path(sys.argv[1])
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()

    def keep(name, kind, found):
        torch.save(copy.deepcopy(found), folder / f"{name} {kind}-{fabric.global_rank}.pt")

    for name in FITS:
        keep(name, "by fabric", by_fabric(name, fabric))
        keep(name, "by hand", by_hand(name))
        keep(name, "by trainer", by_trainer(name))
    for name in ("now and then", "auto"):
        keep(name, "resumed", resumed(name, fabric, folder / f"{name}.ckpt"))
    compiled = by_fabric("auto", fabric, lambda new: torch.compile(new, backend="aot_eager"))
    keep("auto", "compiled", compiled)
    destroy_process_group()  # a thread of gloo that outlives it may abort a process at its end


if __name__ == "__main__":
    main()
