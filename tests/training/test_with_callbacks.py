"""Lightning's own callbacks beside ours, against a naive loop with the same plans."""

import copy
import csv
from inspect import signature
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fitting import batches, fit, loader, trainer
from lightning.pytorch import callbacks as cb
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from stepped import (
    Stepped,
    Steps,
    assert_same_weights,
    mixup,
    naive_loss,
    train_naively,
    trained_naively,
)
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader

from lightning_mmix.pairing.arguments import is_paired


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def history(before, seen):
    """The weights after each of the steps, made naively."""
    return [weights(trained_naively(before, seen[: i + 1])) for i in range(len(seen))]


def mean(columns):
    return [torch.stack(column).mean(0) for column in zip(*columns, strict=True)]


def ema(columns, decay):
    average = columns[0]
    for new in columns[1:]:
        average = [decay * a + (1 - decay) * b for a, b in zip(average, new, strict=True)]
    return average


@pytest.mark.skipif(
    not hasattr(cb, "EMAWeightAveraging"), reason="Lightning 2.6 averages weights at each step"
)
@pytest.mark.parametrize(
    ("name", "kwargs", "average"),
    [
        ("WeightAveraging", {}, mean),
        ("EMAWeightAveraging", {"decay": 0.7}, lambda columns: ema(columns, 0.7)),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_averaged_weights_are_those_of_naive_steps(float64, name, kwargs, average, is_first):
    module, steps, data = Stepped(), Steps(), batches(3)
    before, pair = copy.deepcopy(module), [mixup(), getattr(cb, name)(**kwargs)]
    both = pair if is_first else pair[::-1]
    trainer(steps, *both, max_epochs=2).fit(module, loader(data), loader(data[:1]))
    columns = history(before, steps.seen)
    close(weights(module), average(columns))
    for (net, loss), count in zip(module.validated[-2:], (3, 6), strict=True):
        close(weights(net), average(columns[:count]))
        assert torch.equal(loss, F.cross_entropy(net(data[0][0]), data[0][1]))


def test_stochastic_weight_averaging_averages_naive_weights_and_measures_plain_batches(float64):
    class Normed(Stepped):
        def __init__(self):
            super().__init__()
            layers = [nn.Linear(4, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 5)]
            self.net = nn.Sequential(*layers)

    module, steps, data = Normed(), Steps(), batches(3)
    before = copy.deepcopy(module)
    swa = cb.StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=2)
    fit(module, steps, mixup(), swa, data=data, max_epochs=4)
    epochs = [history(before, steps.seen)[3 * i - 1] for i in (1, 2, 3)]
    # not the module's own: Lightning lets one more step with old gradients follow
    average = swa._average_model
    close(weights(average), mean(epochs))
    plain = [average.net[:2](x) for x, _ in data]
    close(module.net[2].running_mean, torch.stack([h.mean(0) for h in plain]).mean(0).detach())
    close(module.net[2].running_var, torch.stack([h.var(0) for h in plain]).mean(0).detach())


class Tuned(Stepped):
    def __init__(self):
        super().__init__()
        self.lr, self.batch_size, self.losses = 0.05, 6, []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss

    def train_dataloader(self):
        samples = [one for x, y in batches(15) for one in zip(x, y, strict=True)]
        return DataLoader(samples, batch_size=self.batch_size)

    val_dataloader = train_dataloader

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


LR = {"num_training": 14, "min_lr": 1e-3}
SIZES = {"steps_per_trial": 2, "init_val": 3, "max_trials": 2}
TUNERS = {
    "LearningRateFinder": (14, lambda: cb.LearningRateFinder(1e-3, num_training_steps=14), None),
    "lr_find": (14, None, lambda tuner, module: tuner.lr_find(module, **LR)),
    "BatchSizeFinder": (4, lambda: cb.BatchSizeFinder(**SIZES), None),
    "scale_batch_size": (4, None, lambda tuner, module: tuner.scale_batch_size(module, **SIZES)),
}


@pytest.mark.parametrize("name", TUNERS)
def test_a_tuner_sees_the_plain_loss_and_the_fit_after_it_is_mixed(float64, tmp_path, name):
    count, make, tune = TUNERS[name]

    def tuned(module, *callbacks):
        found = [make()] if make else []
        one = trainer(*callbacks, *found, max_epochs=2, default_root_dir=tmp_path)
        if tune:
            tune(Tuner(one), module)
        one.fit(module)
        return module

    steps, before = Steps(), Tuned()
    plain, mixed = tuned(copy.deepcopy(before)), tuned(copy.deepcopy(before), steps, mixup())
    # 30, or what older Lightnings leave of them
    assert len(mixed.losses) == count + len(steps.seen) == len(plain.losses)
    assert mixed.losses[:count] == plain.losses[:count]
    before.lr = mixed.trainer.optimizers[0].param_groups[0]["lr"]  # not all Lightnings tell it
    assert_same_weights(mixed, trained_naively(before, steps.seen))


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that")  # older Lightning's
def test_a_search_for_a_learning_rate_in_mid_fit_leaves_the_mixing_exact(float64, tmp_path):
    class Finetuning(cb.LearningRateFinder):  # as Lightning's documentation has it
        def on_fit_start(self, *args):
            pass

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch < 2:
                self.lr_find(trainer, pl_module)

    module, steps = Tuned(), Steps()
    before, finder = copy.deepcopy(module), Finetuning(num_training_steps=3, update_attr=False)
    trainer(steps, mixup(), finder, max_epochs=3, default_root_dir=tmp_path).fit(module)
    assert len(module.losses) > len(steps.seen) > 40  # 45, of which older Lightnings lose some
    assert_same_weights(module, trained_naively(before, steps.seen))


class Deeper(Stepped):
    def __init__(self):
        super().__init__()
        layers = [nn.Linear(4, 6), nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5)]
        self.net = nn.Sequential(*layers)


def test_a_frozen_and_a_thawed_backbone_give_the_naive_weights(float64):
    class Finetuned(Deeper):
        is_thawed = False

        def __init__(self):
            super().__init__()
            self.backbone = self.net[:1]  # mixed is its input, its output, and the head's net.1

        def configure_optimizers(self):
            groups = [{"params": self.net[1:].parameters(), "lr": 0.1}]
            thawed = [{"params": self.backbone.parameters(), "lr": 0.02}] * self.is_thawed
            return torch.optim.SGD([*groups, *thawed])

    module, steps, data = Finetuned(), Steps(), batches(5)
    frozen = copy.deepcopy(module)
    thaw = cb.BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=0.02)
    fit(module, steps, mixup(), thaw, data=data, max_epochs=2)
    naively = train_naively(frozen, steps.seen[:5])
    naively.is_thawed = True
    assert_same_weights(module, train_naively(naively, steps.seen[5:]))


NO_LOTTERY = {"make_pruning_permanent": False, "use_lottery_ticket_hypothesis": False}


def test_weights_that_are_pruned_between_epochs_are_the_naive_ones(float64):
    def pruned(naively):
        places = [(naively.net[i], name) for i in (0, 2) for name in ("weight", "bias")]
        prune.global_unstructured(places, prune.L1Unstructured, amount=0.3)

    module, steps = Stepped(), Steps()
    naively = copy.deepcopy(module)
    pruning = cb.ModelPruning("l1_unstructured", amount=0.3, **NO_LOTTERY)
    fit(module, steps, mixup(), pruning, data=batches(5), max_epochs=2)
    train_naively(naively, steps.seen[:5])
    pruned(naively)
    train_naively(naively, steps.seen[5:])
    pruned(naively)
    assert_same_weights(module, naively)
    close(module.net[0].weight, naively.net[0].weight)


class Interrupted(Stepped):
    stop = True

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.stop and batch_idx == 3:
            raise KeyError("stop")
        return loss


@pytest.mark.filterwarnings("ignore:.*ckpt_path", "ignore:You're resuming from a checkpoint that")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda path: cb.ModelCheckpoint(path, save_last=True, save_on_exception=True),
            marks=pytest.mark.skipif(
                "save_on_exception" not in signature(cb.ModelCheckpoint).parameters,
                reason="Lightning 2.6 saves so",
            ),
        ),
        cb.OnExceptionCheckpoint,
        lambda path: cb.ModelCheckpoint(path, every_n_train_steps=1, save_last=True),
    ],
)
def test_a_checkpoint_of_an_interrupted_fit_goes_on_with_the_naive_weights(float64, tmp_path, make):
    module, steps, data = Interrupted(), Steps(), batches(5)
    before = copy.deepcopy(module)
    with pytest.raises(KeyError):
        fit(module, steps, mixup(), make(tmp_path), data=data, enable_checkpointing=True)
    steps.seen.pop()  # which raised
    (path, *_) = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)[::-1]
    saved = list(torch.load(path, weights_only=True)["state_dict"].values())
    close(saved, weights(trained_naively(before, steps.seen)))
    resumed = Interrupted()
    resumed.stop = False
    one = trainer(steps, mixup(), max_epochs=2)
    one.fit(resumed, loader(data), ckpt_path=path)
    assert len(steps.seen) > 3 + 5
    assert_same_weights(resumed, trained_naively(before, steps.seen))


def test_early_stopping_hears_the_mixed_loss(float64):
    class Logged(Stepped):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            return loss

    module, steps = Logged(), Steps()
    before = copy.deepcopy(module)
    stopping = cb.EarlyStopping("loss", patience=1, check_on_train_epoch_end=True)
    fit(module, steps, mixup(), stopping, data=batches(1), max_epochs=20)
    assert_same_weights(module, trained_naively(before, steps.seen))
    losses = []
    for i, step in enumerate(steps.seen):
        naively = trained_naively(before, steps.seen[:i])
        losses.append(naive_loss(naively, naively.loss_of, *step).item())
    assert stopping.best_score.item() == pytest.approx(min(losses), rel=1e-6)
    assert losses[-1] > min(losses)
    assert stopping.stopped_epoch == len(losses) - 1 < 19


def test_a_schedule_of_accumulation_gives_the_naive_weights(float64):
    module, steps = Stepped(), Steps()
    naively = copy.deepcopy(module)
    schedule = cb.GradientAccumulationScheduler({0: 2, 1: 3})
    fit(module, steps, mixup(), schedule, data=batches(5), max_epochs=2)
    train_naively(naively, steps.seen[:5], every=2)
    assert_same_weights(module, train_naively(naively, steps.seen[5:], every=3))


class Shown(Stepped):
    flops_per_batch = 1  # for the ThroughputMonitor

    def __init__(self):
        super().__init__()
        self.losses = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        self.losses.append(loss.item())
        return loss


MONITORS = {
    "LearningRateMonitor": cb.LearningRateMonitor,
    "Timer": lambda: cb.Timer(interval="step"),
    "ThroughputMonitor": lambda: cb.ThroughputMonitor(lambda batch: len(batch[1])),
    "DeviceStatsMonitor": lambda: cb.DeviceStatsMonitor(cpu_stats=False),
    "SpikeDetection": cb.SpikeDetection,
    "TQDMProgressBar": cb.TQDMProgressBar,
    "RichProgressBar": cb.RichProgressBar,
    "RichModelSummary": cb.RichModelSummary,
}


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("name", MONITORS)
def test_what_watches_a_fit_sees_numbers_and_changes_nothing(float64, tmp_path, name, is_first):
    pair = [mixup(log_plan=True), MONITORS[name]()]
    module, steps = Shown(), Steps()
    before = copy.deepcopy(module)
    shows = {"enable_progress_bar": name.endswith("Bar"), "enable_model_summary": "Summary" in name}
    logger = CSVLogger(tmp_path)
    both = pair if is_first else pair[::-1]
    fit(module, steps, *both, data=batches(5), logger=logger, log_every_n_steps=1, **shows)
    assert_same_weights(module, trained_naively(before, steps.seen))
    with Path(logger.log_dir, "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("mixup/lam")]
    assert [float(row["loss_step"]) for row in rows] == pytest.approx(module.losses)
    assert module.trainer.progress_bar_metrics["loss_epoch"] == pytest.approx(
        sum(module.losses) / 5
    )


def test_other_callbacks_see_the_mixed_batch_between_our_start_and_our_end(float64):
    data, seen = batches(3), {}
    untouched = copy.deepcopy(data)

    def looking(where):
        def look(batch, batch_idx):
            x, y = untouched[batch_idx]
            assert batch[1].tolist() == y.tolist()  # one's own label, as a number
            plain = (not is_paired(batch[1]), torch.equal(batch[0], x))
            seen.setdefault(where, []).append(plain)

        return cb.LambdaCallback(
            on_train_batch_start=lambda t, m, batch, i: look(batch, i),
            on_train_batch_end=lambda t, m, outputs, batch, i: look(batch, i),
        )

    fit(Stepped(), looking("ahead"), mixup(layers=["input"]), looking("behind"), data=data)
    plain, mixed = (True, True), (False, False)
    assert seen == {"ahead": [plain, mixed] * 3, "behind": [mixed, plain] * 3}


def test_a_module_may_bring_the_mixup_itself(float64):
    class Brings(Stepped):
        def configure_callbacks(self):
            return [mixup()]

    module, steps = Brings(), Steps()
    before = copy.deepcopy(module)
    one = trainer(steps, mixup(layers=["net.1"]), max_epochs=2)  # gives way to the module's
    one.fit(module, loader(batches(5)))
    assert_same_weights(module, trained_naively(before, steps.seen))
