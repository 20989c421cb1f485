"""What two processes do: fits under DDP and scores of parts, kept for the tests to compare.

    python ranks.py LAUNCHER FOLDER

with LAUNCHER ``ddp``, ``ddp_spawn``, ``ddp_fork``, or ``torchrun`` if that starts the script.
"""

import collections
import sys
import warnings
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import get_args

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from fitting import Net, batches, loader, trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.distributed_c10d import destroy_process_group, get_rank, is_initialized
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_mmix import (
    CalibrationMonitor,
    ManifoldMixup,
    ManifoldMixupClassifier,
    TemperatureScaling,
    mixing,
)
from lightning_mmix.compare.instructions import Instructions
from lightning_mmix.compare.measurement import measure
from lightning_mmix.core.plan import MixPlan, Recipe, draw
from lightning_mmix.evaluation import robustness
from lightning_mmix.evaluation.attacks import FGSM, PGD
from lightning_mmix.evaluation.standard import Clean
from lightning_mmix.metrics.calibration import Binning, Norm
from lightning_mmix.metrics.classification import (
    BrierScore,
    CalibrationBins,
    CalibrationError,
    MixedAccuracy,
    NegativeLogLikelihood,
)
from lightning_mmix.metrics.classwise import ClasswiseCalibrationError
from lightning_mmix.metrics.smooth import SmoothCalibrationError
from lightning_mmix.metrics.spectrum import ClassSpectrum
from lightning_mmix.pairing.gates import Gates

NAMED = {"layers": ["input", "net.0"]}


class Parts(L.LightningDataModule):
    """Other batches on each rank, of these sizes."""

    def __init__(self, *sizes):
        super().__init__()
        self.sizes = sizes

    def train_dataloader(self):
        return loader(self.of_rank(self.trainer.global_rank))

    def of_rank(self, rank):
        sizes = self.sizes[rank]
        return [batches(9, size)[3 * rank + i] for i, size in enumerate(sizes)]


class Keep(L.Callback):
    """Write down what was drawn, what was communicated, and the weights."""

    def __init__(self, path):
        self.path, self.plans = path, []

    def on_train_start(self, *_):
        self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        self.profile.start()

    def on_train_batch_end(self, trainer, *_):
        (mixup,) = [c for c in trainer.callbacks if isinstance(c, ManifoldMixup)] or [None]
        plan = mixup and mixup.plan
        self.plans.append(plan and (plan.layer, plan.lam, plan.partner))

    def on_train_end(self, trainer, pl_module):
        self.profile.stop()
        calls = [e.key for e in self.profile.key_averages() for _ in range(e.count)]
        sent = collections.Counter(key for key in calls if key.startswith(("c10d::", "gloo:")))
        weights = {name: _whole(value) for name, value in pl_module.state_dict().items()}
        kept = {"plans": self.plans, "weights": weights, "sent": dict(sent)}
        kept["logged"] = trainer.callback_metrics.get("loss")
        (mixup,) = [c for c in trainer.callbacks if isinstance(c, ManifoldMixup)] or [None]
        kept["gap"] = mixup and mixup.state_dict()["gap"]
        torch.save(kept, f"{self.path}-{trainer.global_rank}.pt")


def _whole(value):
    return value.full_tensor() if isinstance(value, DTensor) else value.clone()


class Unused(Net):
    def __init__(self):
        super().__init__()
        self.never = nn.Linear(2, 2)

    def on_after_backward(self):
        pass


class Checkpointed(Net):
    """Not in the naive form, for ``torch.autograd.grad`` does not pass reentrant checkpoints."""

    def forward(self, x):
        if self._trainer is None:
            return self.net(x)
        return checkpoint(self.net, x.requires_grad_(), use_reentrant=True)


class Compiled(Net):
    def configure_model(self):
        self.net.compile(backend="aot_eager")


class Logs(Net):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=True, sync_dist=True)
        return loss


class Validated(Net):
    def validation_step(self, batch, batch_idx):
        # of this process alone
        self.log("gap", 0.2 - 0.1 * self.global_rank, batch_size=1, rank_zero_only=False)


class WithValidation(Parts):
    """Parts, and a set to validate on of which the second rank holds less."""

    def val_dataloader(self):
        return loader(self.share(self.trainer.global_rank))

    @staticmethod
    def share(rank):
        return [batches(9, (7, 3)[rank])[7 + rank]]


class Lengths(L.LightningDataModule):
    """Sequences that are much longer on one rank than on the other."""

    def train_dataloader(self):
        length = 3 + 300 * self.trainer.global_rank
        return loader([(torch.randn(6, length, 4), torch.arange(6) % 5) for _ in range(3)])


class Sequences(Net):
    """Whose layers lie at other depths for other lengths."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 100), nn.Linear(100, 100), nn.Linear(100, 4))
        attention = (nn.TransformerEncoderLayer(4, 1, 8, batch_first=True) for _ in range(4))
        self.attention, self.head = nn.Sequential(*attention), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.net(self.attention(x).mean(1)))


class Sharded(Net):
    """In float64 by itself: Lightning has no such precision for it."""

    def configure_model(self):
        self.double()
        mesh = self.device_mesh["data_parallel"]
        for module in (self.net[0], self.net[2], self.net):
            fully_shard(module, mesh=mesh)

    def on_before_batch_transfer(self, batch, _):
        return batch[0].double(), batch[1]

    on_after_backward = Unused.on_after_backward


EVEN = Parts((6, 6, 6, 6), (6, 6, 6, 6))
UNEVEN = Parts((6, 5, 1, 4), (4, 7, 3, 1))
SMALL_FIRST = Parts((1, 6, 5), (4, 6, 1))

METHODS = {"ddp": "popen", "torchrun": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork"}

# name: module, data, arguments of the callback (None for no callback), of DDP (None for FSDP2), and
# of the Trainer
FITS = {
    "plain": (Net, EVEN, NAMED, {}, {}),
    "without": (Net, EVEN, None, {}, {}),
    "unused": (Unused, EVEN, NAMED, {"find_unused_parameters": True}, {}),
    "static": (Net, EVEN, NAMED, {"static_graph": True}, {}),
    "static unused": (
        Unused, EVEN, NAMED, {"static_graph": True, "find_unused_parameters": True}, {}
    ),
    "uneven": (Net, UNEVEN, NAMED, {}, {}),
    "accumulated": (Net, EVEN, NAMED, {}, {"accumulate_grad_batches": 2}),
    "auto": (Net, EVEN, {"layers": "auto"}, {}, {}),
    "now and then": (Net, EVEN, {**NAMED, "prob": 0.5}, {}, {}),
    "settled": (
        Validated, WithValidation((6, 6), (6, 6)), {**NAMED, "settle": 0.5}, {},
        {"max_epochs": 6},
    ),
    "settled by a logged gap": (
        Validated, WithValidation((6, 6), (6, 6)), {**NAMED, "settle": 0.4, "gap": "gap"}, {},
        {"max_epochs": 2},
    ),
    "small first": (Net, SMALL_FIRST, {"layers": "auto"}, {}, {}),
    "lengths": (Sequences, Lengths(), {"layers": "auto"}, {}, {}),
    "sharded": (Sharded, EVEN, {**NAMED, "verify": False}, None, {"precision": "32-true"}),
    "checkpointed": (Checkpointed, EVEN, NAMED, {"static_graph": True}, {}),
    "compiled": (Compiled, EVEN, NAMED, {}, {}),
    "compiled whole": (
        lambda: torch.compile(Net(), backend="aot_eager"), EVEN, NAMED, {}, {}
    ),
    "logged": (Logs, UNEVEN, NAMED, {}, {}),
    "view": (Net, EVEN, NAMED, {"gradient_as_bucket_view": True}, {}),
}  # fmt: skip


def fit(name, launcher, folder):
    module, data, mixup, options, kwargs = FITS[name]
    if options is None:
        strategy = ModelParallelStrategy(2, 1, process_group_backend="gloo")
    else:
        strategy = DDPStrategy(
            start_method=METHODS[launcher], process_group_backend="gloo", **options
        )
    torch.manual_seed(1)
    # to the end, unless it has a schedule
    mixups = [] if mixup is None else [ManifoldMixup(**{"stop": 1.0, **mixup})]
    kwargs = {"precision": "64-true", "devices": 2, "use_distributed_sampler": False, **kwargs}
    trained = trainer(*mixups, Keep(folder / name), strategy=strategy, **kwargs)
    trained.fit(module(), data)


def shard_by_hand(folder):
    """FSDP1 in a plain loop: Lightning runs it on GPUs only."""
    torch.manual_seed(1)
    model, rank = Net().net.double(), get_rank()
    model = FullyShardedDataParallel(
        model,
        auto_wrap_policy=ModuleWrapPolicy({nn.Linear}),
        use_orig_params=True,
        device_id=torch.device("cpu"),
    )
    optimizer, gates = torch.optim.SGD(model.parameters(), lr=0.1), Gates(model, ["0"])
    for i, (x, y) in enumerate(EVEN.of_rank(rank)):
        plan = draw(Recipe(1.0, {"input": 1, "net.0": 1}), 6, seed=0, batch_idx=i, rank=rank)
        if plan.layer != "input":
            plan = replace(plan, layer="0")
        x = x.double()  # noqa: PLW2901 - as people do
        optimizer.zero_grad()
        with mixing(gates, plan, y, input=x) as paired:
            F.cross_entropy(model(x), paired).backward()
        optimizer.step()
    with FullyShardedDataParallel.summon_full_params(model):
        weights = {f"net.{name}": p.detach().clone() for name, p in named(model)}
    torch.save(weights, folder / f"by hand-{rank}.pt")


def named(model):
    return [(name.replace("_fsdp_wrapped_module.", ""), p) for name, p in model.named_parameters()]


SIZES = (11, 0), (4, 7)  # how many samples each rank has, of a set of 11 with three bins


def samples():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(11, 5, generator=generator), torch.arange(11) % 5


# of norms and binnings, what there are
ERRORS = {
    f"{norm} {binning}": partial(CalibrationError, 3, norm=norm, binning=binning)
    for norm in get_args(Norm)
    for binning in get_args(Binning)
}
METRICS = {
    "accuracy": partial(MulticlassAccuracy, 5, average="micro"),
    "nll": NegativeLogLikelihood,
    "brier": BrierScore,
    "mixed": MixedAccuracy,
    **ERRORS,
    "smooth": SmoothCalibrationError,
    "classwise": partial(ClasswiseCalibrationError, 5),
    "bins": partial(CalibrationBins, 3),
    "mass bins": partial(CalibrationBins, 3, binning="mass"),
    "spectrum": partial(ClassSpectrum, 5, 5),
    "largest": partial(ClassSpectrum, 5, 5, statistic="largest", centred=False),
}


def plan_of(labels):
    """The last of a part is the partner of its first."""
    return MixPlan("input", torch.tensor(0.7), torch.arange(len(labels)).flip(0))


def score(rank, sizes):
    """The scores of a share of the samples, with an update of each two."""
    metrics = MetricCollection({name: cls() for name, cls in METRICS.items()})
    share = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    logits, labels = (part[share] for part in samples())
    for part in zip(logits.split(2), labels.split(2), strict=True):
        if len(labels):
            metrics.update(*part, plan=plan_of(part[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics', of a rank without samples
        return metrics.compute()


class Few(IterableDataset):
    """Seven samples on the first rank, and none on the second."""

    def __iter__(self):
        if get_rank() == 0:
            yield from zip(*(part[:7] for part in samples()), strict=True)


class Identity(ManifoldMixupClassifier):
    """Whose inputs are its logits; and which scores shares of samples by the way."""

    def __init__(self):
        super().__init__(nn.Identity(), 5)

    def on_test_end(self):
        self.parts = [score(self.global_rank, sizes) for sizes in SIZES]
        self.rows = [attacked(self.global_rank, sizes) for sizes in SIZES]


def attacked(rank, sizes):
    """The rows of a share of the samples, in batches of two."""
    share = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    logits, labels = (part[share] for part in samples())
    batches = list(zip(logits.split(2), labels.split(2), strict=True)) if len(labels) else []
    conditions = [Clean(), FGSM(0.3), PGD(0.3, random_start=False)]
    units = robustness.Units(-9, 9)
    rows = robustness.evaluate(nn.Identity(), batches, conditions, units=units, progress=False)
    return list(map(asdict, rows))


class Uneven(L.LightningDataModule):
    """Eleven samples, of which a distributed sampler repeats one."""

    def val_dataloader(self):
        return DataLoader(TensorDataset(*samples()), 2)

    test_dataloader = val_dataloader


def evaluate(folder):
    """Test figures of a set that two ranks can't share evenly, and of one that only one holds."""
    module, kept = Identity(), {}
    tester = trainer(strategy="ddp", devices=2)
    for batch_size in (1, 2, 4):
        data = DataLoader(TensorDataset(*samples()), batch_size)
        kept[batch_size] = tester.test(module, data, verbose=False)[0]
        kept["validated", batch_size] = tester.validate(module, data, verbose=False)[0]
    kept["parts"] = module.parts
    kept["rows"] = module.rows
    kept["few"] = tester.test(module, DataLoader(Few(), 2), verbose=False)[0]
    monitored = trainer(CalibrationMonitor(["net"]), strategy="ddp", devices=2)
    monitored.validate(module, DataLoader(Few(), 2), verbose=False)
    kept["monitored"] = dict(monitored.callback_metrics)
    kept["measured"] = measure(tester, module, Uneven(), Instructions(low=-9, high=9))
    torch.save(kept, folder / f"evaluated-{module.global_rank}.pt")


class Linear(Net):
    """Of five features and five classes, whose validation step is nobody's business."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 5)

    def on_after_backward(self):
        pass

    def validation_step(self, batch, batch_idx):
        pass


class Predicts(Linear):
    def test_step(self, batch, batch_idx):
        self.put_out = self(torch.eye(5))


# name: module, validation data, arguments of the Trainer
SCALED = {
    "uneven": (Linear, lambda: DataLoader(TensorDataset(*samples()), 2), {}),
    "few": (Linear, lambda: DataLoader(Few(), 2), {}),
    "at the end": (
        Predicts, lambda: DataLoader(TensorDataset(*samples()), 2), {"check_val_every_n_epoch": 2}
    ),
    "classifier": (
        lambda: ManifoldMixupClassifier(nn.Linear(5, 5), 5, layers=["input"], stop=1.0),
        lambda: DataLoader(TensorDataset(*samples()), 2), {},
    ),
}  # fmt: skip


def scale(folder):
    """Temperatures of fits whose validation data two ranks can't share evenly, or only one has."""
    kept = {}
    for name, (module, valid, kwargs) in SCALED.items():
        torch.manual_seed(1)
        made, scaling = module(), TemperatureScaling(apply=True)
        one = trainer(scaling, strategy="ddp", devices=2, **kwargs)
        one.fit(made, DataLoader(TensorDataset(*samples()), 3), valid())
        kept[name] = asdict(scaling.temperature_), dict(made.state_dict())
        kept[name, "buffer"] = float(getattr(made, "temperature_", torch.nan))
        if name == "at the end":
            one.test(made, valid(), verbose=False)
            kept["put out"] = made.put_out.clone()
    torch.save(kept, folder / f"scaled-{one.global_rank}.pt")


def main():
    launcher, folder, *names = sys.argv[1:]
    folder = Path(folder)
    for name in names or FITS:
        fit(name, launcher, folder)
    if launcher == "ddp":
        evaluate(folder)
        scale(folder)
        shard_by_hand(folder)
    if is_initialized():  # threads of gloo that outlive it end a process now and then by abort
        destroy_process_group()


if __name__ == "__main__":
    main()
