"""When a fit mixes: how often, how strongly, until when, and while it is over-confident."""

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit, loader, trainer
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader

from lightning_mmix import CalibrationMonitor, ManifoldMixup, ManifoldMixupClassifier
from lightning_mmix.core.plan import Recipe, draw

VAL = [batches(3)[2], (torch.randn(5, 4), torch.arange(5))]


class Kept(Net):
    """Keeps the plans of all steps, epoch by epoch, and validates."""

    def __init__(self, gaps=()):
        torch.manual_seed(1)
        super().__init__()
        self.plans, self.gaps = {}, list(gaps)

    def training_step(self, batch, batch_idx):
        (mixup,) = [c for c in self.trainer.callbacks if isinstance(c, ManifoldMixup)]
        self.plans.setdefault(self.current_epoch, []).append(mixup.plan)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        if self.gaps and not self.trainer.sanity_checking:
            self.log("val/gap", self.gaps[self.current_epoch], batch_size=1)

    @property
    def mixed(self):
        return ["".join("x" if p else "." for p in plans) for plans in self.plans.values()]


def settled(module, *callbacks, val=VAL, data=2, **kwargs):
    trained = trainer(*callbacks, **{"max_epochs": 4, **kwargs})
    trained.fit(module, loader(batches(data)), loader(val))
    return module


def test_alpha_changes_with_the_epoch():
    module = Kept()
    mixup = ManifoldMixup({0: 0.0, 1: 0.2, 3: 5.0}, ["net.0"], seed=3, stop=1.0)
    fit(module, mixup, data=batches(2), max_epochs=4)
    assert module.mixed == ["..", "xx", "xx", "xx"]
    for epoch, alpha in ((1, 0.2), (2, 0.2), (3, 5.0)):
        expected = draw(Recipe(alpha, {"net.0": 1.0}), 6, seed=3, epoch=epoch, batch_idx=1)
        assert module.plans[epoch][1].lam == expected.lam


def test_some_batches_are_left_alone():
    module = Kept()
    mixup = ManifoldMixup(layers=["net.0", "input"], prob={0: 0.5, 1: 0.0, 2: 1.0}, seed=3)
    fit(module, mixup, data=batches(20), max_epochs=3)
    first, second, third = module.mixed
    assert 4 < first.count("x") < 16
    assert (second, third) == ("." * 20, "x" * 20)
    whole = Kept()
    fit(whole, ManifoldMixup(layers=["net.0", "input"], seed=3, stop=1.0), data=batches(20))
    for plan, other in zip(module.plans[0], whole.plans[0], strict=True):
        assert plan is None or (plan.layer, plan.lam) == (other.layer, other.lam)


def test_an_unmixed_batch_is_trained_as_without_the_callback():
    module, plainly = Kept(), Kept()
    fit(module, ManifoldMixup(layers=["net.0"], prob={0: 0.0, 9: 1.0}), data=batches(3))
    fit(plainly, ManifoldMixup(alpha=0), data=batches(3))
    for one, two in zip(module.parameters(), plainly.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("stop", "limits", "mixed"),
    [
        (None, {"max_epochs": 2}, ["xxxx", "...."]),
        (1.0, {"max_epochs": 2}, ["xxxx", "xxxx"]),
        (0.75, {"max_epochs": 2}, ["xxxx", "xx.."]),
        (0.75, {"max_epochs": -1, "max_steps": 5}, ["xxxx", "."]),
        (0.75, {"max_epochs": 9, "max_steps": 5}, ["xxxx", "."]),
        (0.75, {"max_epochs": 2, "max_steps": 99}, ["xxxx", "xx.."]),
        (0.75, {"max_epochs": 2, "limit_train_batches": 2}, ["xx", "x."]),
        (
            0.5,
            {"max_epochs": -1, "max_steps": 2, "accumulate_grad_batches": 4},
            ["xxxx", "...."],
        ),
    ],
    ids=str,
)
def test_mixing_stops_after_a_share_of_the_fit(stop, limits, mixed):
    module = Kept()
    fit(module, ManifoldMixup(layers=["net.0"], stop=stop), data=batches(4), **limits)
    assert module.mixed == mixed


def test_a_fit_without_an_end_has_no_half_and_is_mixed_throughout():
    class Enough(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    module = Kept()
    fit(module, ManifoldMixup(layers=["net.0"]), Enough(), data=batches(3), max_epochs=-1)
    assert module.mixed == ["xxx", "xxx"]


def test_a_loader_without_a_length_stops_by_epochs():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from batches(2)

    module = Kept()
    trained = trainer(ManifoldMixup(layers=["net.0"], stop=0.5), max_epochs=4)
    trained.fit(module, DataLoader(Stream(), batch_size=None))
    assert module.mixed == ["xx", "xx", "..", ".."]


def test_one_epoch_of_no_known_length_has_no_half():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from batches(4)

    module = Kept()
    data = DataLoader(Stream(), batch_size=None)
    trainer(ManifoldMixup(layers=["net.0"])).fit(module, data)
    assert module.mixed == ["xxxx"]
    asked = trainer(ManifoldMixup(layers=["net.0"], stop=0.5))
    with pytest.raises(ValueError, match="whose length is not known"):
        asked.fit(Kept(), data)


def test_a_fit_settles_by_a_logged_gap():
    module = Kept(gaps=[-0.5, 0.1, -0.1, 0.0, 0.2, 0.2])
    mixup = ManifoldMixup(layers=["net.0"], settle=0.5, gap="val/gap")
    settled(module, mixup, max_epochs=6)
    # the second half begins after the third epoch, whose gap says -0.1
    assert module.mixed == ["xx", "xx", "xx", "..", "..", "xx"]


def test_a_fit_settles_by_what_its_validation_shows():
    module, monitor = Kept(), CalibrationMonitor()
    gaps = []

    class Gaps(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                gaps.append(float(trainer.callback_metrics["monitor/gap"]))

    settled(module, ManifoldMixup(layers=["net.0"], settle=0.75), monitor, Gaps(), max_epochs=8)
    state = ["xx" if gap > 0 else ".." for gap in gaps[1:-1]]
    assert module.mixed == ["xx", "xx", *state]


@pytest.mark.parametrize(("scale", "later"), [(0.1, ".."), (100.0, "xx")])
def test_over_and_under_confidence_are_told_apart(scale, later):
    class Scaled(Kept):
        def forward(self, x):
            return scale * super().forward(x)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    module, x = Scaled(), torch.randn(64, 4)
    best = module(x).argmax(1)
    wrong = torch.arange(64) % 2  # half of them
    mixup = ManifoldMixup(layers=["net.0"], settle=1.0)
    settled(module, mixup, val=[(x, (best + wrong) % 5)], max_epochs=3)
    assert module.mixed == ["xx", later, later]
    assert (mixup.state_dict()["gap"] > 0) == (later == "xx")


def test_what_a_validation_shows_is_measured_without_a_trace():
    class Noisy(Kept):
        def forward(self, x):
            return super().forward(x) + torch.rand(1)

        def validation_step(self, batch, batch_idx):
            self.noise = torch.rand(1)

    one, two = Noisy(), Noisy()
    torch.manual_seed(5)
    settled(one, ManifoldMixup(layers=["net.0"], settle=1e-9), max_epochs=2)
    torch.manual_seed(5)
    settled(two, ManifoldMixup(layers=["net.0"], stop=1.0), max_epochs=2)
    assert torch.equal(one.noise, two.noise)
    assert all(m.training for m in one.modules()) == all(m.training for m in two.modules())


def test_the_classifier_settles_by_its_own_gap():
    module = ManifoldMixupClassifier(torch.nn.Linear(4, 5), 5, stop=1.0)
    mixup = ManifoldMixup(layers=["net"], settle=0.5, gap="val/gap")
    trained = trainer(mixup, max_epochs=2)
    trained.fit(module, loader(batches(2)), loader(VAL))
    assert trained.callback_metrics["val/gap"] == pytest.approx(mixup.state_dict()["gap"])


def test_a_schedule_comes_from_yaml():
    parser = ArgumentParser()
    parser.add_class_arguments(ManifoldMixup, "mixup")
    made = parser.parse_string(
        """
        mixup:
          alpha: {0: 0.5, 160: 0}
          prob: {0: 1, 10: 0.5}
          stop: 0.9
          settle: 0.4
          gap: val/gap
          kind: {mixup: 1, cutmix: 0.5}
        """
    )
    settings = parser.instantiate_classes(made).mixup.settings
    assert settings.alpha == {0: 0.5, 160: 0}
    assert settings.prob == {0: 1, 10: 0.5}
    assert (settings.stop, settings.settle) == (0.9, 0.4)
    assert settings.kind == {"mixup": 1, "cutmix": 0.5}


def test_own_labels_and_unions_come_from_yaml():
    parser = ArgumentParser()
    parser.add_class_arguments(ManifoldMixup, "mixup")
    made = parser.parse_string("mixup: {labels: own, union: [attention_mask, lengths]}")
    settings = parser.instantiate_classes(made).mixup.settings
    assert (settings.labels, settings.union) == ("own", ["attention_mask", "lengths"])


def test_losses_are_as_before_where_nothing_is_scheduled():
    one, two = Kept(), Kept()
    fit(one, ManifoldMixup(2.0, ["net.0"], seed=3, stop=1.0), data=batches(3))
    fit(two, ManifoldMixup({0: 2.0}, ["net.0"], prob={0: 1.0}, seed=3), data=batches(3))
    assert float(F.l1_loss(one.net[0].weight, two.net[0].weight)) == 0


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_a_network_that_puts_out_probabilities_is_measured_as_one(form):
    class Shares(Kept):
        def forward(self, x):
            scores = super().forward(x)
            return scores.softmax(1) if form == "softmax" else scores[:, 0].sigmoid()

        def training_step(self, batch, batch_idx):
            x, y = batch
            self.plans.setdefault(self.current_epoch, []).append(None)
            if form == "softmax":
                return F.nll_loss(self(x).log(), y)
            return F.binary_cross_entropy(self(x), (y > 2).float())

    x, y = torch.randn(40, 4), torch.arange(40) % 5
    module = Shares()
    mixup = ManifoldMixup(layers=["net.0"], settle=1.0)
    val = [(x, y if form == "softmax" else (y > 2).long())]
    settled(module, mixup, val=val, max_epochs=2)
    shares = module(x).detach()
    if form == "softmax":
        confidence, best = shares.max(1)
        hits = best == y
    else:
        confidence, hits = torch.maximum(shares, 1 - shares), (shares > 0.5) == (y > 2)
    expected = confidence.mean() - hits.float().mean()
    assert mixup.state_dict()["gap"] == pytest.approx(float(expected), abs=1e-5)


def test_what_is_logged_of_a_box_is_what_was_mixed():
    class Pictures(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(
                torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5)
            )

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    mixup = ManifoldMixup(layers=["net.0"], kind="cutmix", log_plan=True, verify=False, stop=1.0)
    trained = trainer(mixup)
    trained.fit(Pictures(), loader([(torch.randn(6, 3, 8, 8), torch.arange(6) % 5)]))
    assert trained.callback_metrics["mixup/lam"] == pytest.approx(float(mixup.plan.lam))
    assert mixup.plan.lam >= 0.5


def test_what_can_t_be_measured_is_told_before_the_training():
    class Numbers(Kept):
        def training_step(self, batch, batch_idx):
            raise AssertionError("it trains")

    mixup = ManifoldMixup(layers=["net.0"], settle=0.1)
    with pytest.raises(ValueError, match="a regression has no such scores"):
        settled(Numbers(), mixup, val=[(torch.randn(6, 4), torch.randn(6))], max_epochs=9)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_doubted_is_not_measured():
    one_hot = torch.eye(5)[torch.arange(6) % 5]
    with pytest.raises(ValueError, match="every row of the labels"):
        settled(
            Kept(), ManifoldMixup(layers=["net.0"], settle=0.5), val=[(torch.randn(6, 4), one_hot)]
        )
