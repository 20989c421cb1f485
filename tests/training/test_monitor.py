"""The monitor in real Trainers, against the same by hand."""

import csv
import math
import pickle
import sys
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
import yaml
from fitting import Net, batches, loader, trainer
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader

from lightning_mmix import ManifoldMixup
from lightning_mmix.metrics.scores import Tally
from lightning_mmix.metrics.spectrum import ClassSpectrum, spectrum_statistic
from lightning_mmix.training.monitor import CalibrationMonitor

SCORES = ("accuracy", "nll", "brier", "ece", "smece", "mce", "gap")
VALID = batches(3, size=7)


class Validated(Net):
    """Has dropout, and counts its forward passes in evaluation mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 5))
        self.evaluated = 0

    def forward(self, x):
        self.evaluated += not self.training
        return self.net(x)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val", F.cross_entropy(self(batch[0]), batch[1]))


def fitted(*callbacks, valid=VALID, module=None, **kwargs):
    torch.manual_seed(0)
    one = trainer(*callbacks, **kwargs)
    samples = [pair for x, y in batches(4) for pair in zip(x, y, strict=True)]
    one.fit(module or Validated(), DataLoader(samples, 5, shuffle=True), loader(valid))
    return one


def logged(one):
    return {k: float(v) for k, v in one.callback_metrics.items() if k.startswith("monitor/")}


def by_hand(module, data=VALID, layers=()):
    """The scores of all data at once, and the spectra of layers of the network."""
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    module, tally = module.eval(), Tally()
    with torch.no_grad():
        tally.update(module(x), y)
        expected = {f"monitor/{name}": float(tally.compute()[name]) for name in SCORES}
        for i in layers:
            spectrum = ClassSpectrum(5, 6)(module.net[: i + 1](x), y)
            for name in ("largest", "rest", "rank"):
                value = float(spectrum_statistic(spectrum, name).mean())
                expected[f"monitor/spectrum/net.{i}/{name}"] = value
    return expected


def test_what_is_logged_is_that_of_the_whole_validation_set_by_hand():
    one = fitted(CalibrationMonitor(["net.[01]"]), max_epochs=1)
    assert logged(one) == pytest.approx(by_hand(one.model, layers=(0, 1)), rel=1e-5)


def weights(one):
    return [p.detach() for p in one.model.parameters()]


@pytest.mark.parametrize("mixing", [[], [lambda: ManifoldMixup(layers=["input", "net.1"])]])
def test_training_and_validation_are_those_without_it_bit_for_bit(mixing):
    monitor = CalibrationMonitor(["net.*"], spectrum_every_n_epochs=1)
    ones, states = [], []
    for callbacks in ([], [monitor]):
        ones.append(fitted(*(make() for make in mixing), *callbacks, max_epochs=3))
        states.append(torch.get_rng_state())
    assert all(map(torch.equal, weights(ones[0]), weights(ones[1])))
    assert torch.equal(*states)
    assert ones[0].callback_metrics["val"] == ones[1].callback_metrics["val"]
    assert not any(module._forward_hooks for module in ones[1].model.modules())


def rows_of(folder):
    with Path(folder, "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("every", "spectrum_every", "check", "scored", "with_spectrum"),
    [
        (1, 10, 1, [0, 1, 2, 3, 4], [0]),
        (2, 1, 1, [0, 2, 4], [0, 2, 4]),
        (3, 2, 1, [0, 3], [0]),
        (1, 3, 2, [1, 3], [1, 3]),
        (2, 10, 2, [1, 3], [1]),
    ],
)
def test_it_looks_in_every_so_many_epochs(
    tmp_path, every, spectrum_every, check, scored, with_spectrum
):
    monitor = CalibrationMonitor(
        ["net.1"], every_n_epochs=every, spectrum_every_n_epochs=spectrum_every
    )
    logger = CSVLogger(tmp_path)
    fitted(monitor, logger=logger, max_epochs=5, check_val_every_n_epoch=check)
    rows = rows_of(logger.log_dir)
    for name, epochs in (("nll", scored), ("spectrum/net.1/rank", with_spectrum)):
        assert [int(row["epoch"]) for row in rows if row[f"monitor/{name}"]] == epochs


def test_a_look_is_one_more_pass_and_the_sanity_check_gets_one_for_its_first_batch():
    one = fitted(CalibrationMonitor(every_n_epochs=2), max_epochs=2, num_sanity_val_steps=2)
    assert one.model.evaluated == 2 + 1 + 2 * len(VALID) + len(VALID)


def test_several_looks_in_an_epoch_are_one_each():
    one = fitted(CalibrationMonitor(), max_epochs=1, val_check_interval=2, num_sanity_val_steps=0)
    assert one.model.evaluated == 2 * 2 * len(VALID)


def test_tensorboard_gets_a_reliability_diagram_for_each_look(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    one = fitted(CalibrationMonitor(every_n_epochs=2), logger=logger, max_epochs=4)
    events = EventAccumulator(logger.log_dir).Reload()
    images = events.Images("monitor/reliability")
    assert [image.step for image in images] == [5, 15]
    assert min(images[0].width, images[0].height) > 100
    scalars = [event.value for event in events.Scalars("monitor/nll")]
    assert scalars[-1] == pytest.approx(logged(one)["monitor/nll"])
    assert len(scalars) == 2


def test_nothing_is_drawn_for_a_dry_run(tmp_path):
    one = fitted(CalibrationMonitor(), logger=TensorBoardLogger(tmp_path), fast_dev_run=1)
    assert logged(one) == pytest.approx(by_hand(one.model, VALID[:1]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layers", [[], ["net.1"]])
def test_a_validation_alone_is_looked_at(layers):
    module, monitor = Validated(), CalibrationMonitor(layers, every_n_epochs=7)
    expected = by_hand(module, layers=[1] if layers else [])
    for one in (trainer(monitor), fitted(monitor, max_epochs=3)):
        (found,) = one.validate(module, loader(VALID), verbose=False)
        assert {k: v for k, v in found.items() if k != "val"} == pytest.approx(expected, rel=1e-5)


def test_of_several_loaders_the_first_is_looked_at():
    module, others = Validated(), loader(batches(2, size=9))
    one = trainer(CalibrationMonitor())
    one.fit(module, loader(batches()), {"a": loader(VALID), "b": others})
    assert logged(one) == pytest.approx(by_hand(module))


class Data(L.LightningDataModule):
    def train_dataloader(self):
        return loader(batches(2))

    def val_dataloader(self):
        return loader(VALID)


def test_it_comes_from_yaml(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train"])
    given = {
        "layers": ["net.1"],
        "every_n_epochs": 2,
        "form": "logits",
        "target": 1,
        "output": None,
    }
    monitor = {
        "class_path": "lightning_mmix.CalibrationMonitor",
        "init_args": given,
    }
    settings = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "callbacks": [monitor]}
    shows = ("checkpointing", "progress_bar", "model_summary")
    settings |= {f"enable_{name}": False for name in shows}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"seed_everything": 4, "trainer": settings}))
    made = LightningCLI(
        Validated, Data, save_config_callback=None, args=["fit", f"--config={path}"]
    )
    expected = by_hand(made.model, layers=[1])
    assert logged(made.trainer) == pytest.approx(expected, rel=1e-5)


def test_it_can_be_pickled_before_during_and_after_a_fit():
    monitor, copies = CalibrationMonitor(["net.1"]), []

    def keep(*_):
        copies.append(pickle.loads(pickle.dumps(monitor)))

    hooks = {"on_validation_batch_end": keep, "on_validation_epoch_end": keep}
    keep()
    one = fitted(monitor, LambdaCallback(**hooks), num_sanity_val_steps=0)
    keep()
    assert len(copies) == 1 + len(VALID) + 1 + 1
    for copied in copies:
        assert logged(fitted(copied)) == logged(one)


def test_other_callbacks_take_what_it_logs_for_their_own(tmp_path):
    stopping = EarlyStopping("monitor/ece", patience=1, min_delta=9)
    saving = ModelCheckpoint(tmp_path, "{epoch}", monitor="monitor/nll", save_top_k=1)
    seen = LambdaCallback(on_validation_end=lambda t, _: nlls.append(logged(t)["monitor/nll"]))
    nlls = []
    settings = {"max_epochs": 9, "num_sanity_val_steps": 0, "enable_checkpointing": True}
    one = fitted(CalibrationMonitor(), stopping, saving, seen, **settings)
    assert one.current_epoch == len(nlls) == 2
    assert float(saving.best_model_score) == pytest.approx(min(nlls))


def test_in_mixed_precision_the_scores_are_those_of_its_predictions():
    one = fitted(CalibrationMonitor(["net.1"]), precision="bf16-mixed")
    x, y = (torch.cat(parts) for parts in zip(*VALID, strict=True))
    module, tally = one.model.eval(), Tally()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        preds = module(x)
    tally.update(preds, y)
    assert preds.dtype == torch.bfloat16
    assert logged(one)["monitor/nll"] == pytest.approx(float(tally.compute()["nll"]), rel=1e-5)
    assert logged(one) != pytest.approx(by_hand(module, layers=[1]), rel=1e-5)
    assert logged(one) == pytest.approx(by_hand(module, layers=[1]), rel=0.05, abs=0.02)


class Softmax(Validated):
    def forward(self, x):
        return {"features": x[:, :1].expand(-1, 5), "probs": super().forward(x).softmax(1)}

    def training_step(self, batch, batch_idx):
        return F.nll_loss(self(batch["a"])["probs"].log(), batch["b"][0])

    def validation_step(self, batch, batch_idx):
        pass


def test_it_is_told_where_a_batch_holds_what():
    where = {"form": "probabilities", "target": "b.0", "input": "a", "output": "probs"}
    data = [{"a": x, "b": [y]} for x, y in VALID]
    module, one = Softmax(), trainer(CalibrationMonitor(**where))
    one.fit(module, loader(data), loader(data))
    plain = Validated()
    plain.load_state_dict(module.state_dict())
    assert logged(one) == pytest.approx(by_hand(plain), rel=1e-5)


def test_a_network_that_came_to_nan_goes_on_training():
    module = Validated()
    with torch.no_grad():
        module.net[0].weight.fill_(torch.nan)
    one = fitted(CalibrationMonitor(["net.1"]), module=module)
    assert one.state.finished
    nan = {name for name, value in logged(one).items() if math.isnan(value)}
    assert nan == logged(one).keys() - {"monitor/accuracy"}


class Regression(Validated):
    criterion = None

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass


def test_what_is_no_classifier_is_refused_before_it_is_trained():
    module = Regression()
    with pytest.raises(ValueError, match="labels that are whole numbers") as caught:
        fitted(CalibrationMonitor(), valid=[(x, x[:, 0]) for x, _ in VALID], module=module)
    assert type(caught.value) is ValueError
    assert module.trainer.global_step == 0


def test_a_regression_is_refused_and_another_fit_goes_on():
    monitor = CalibrationMonitor(["net.1"])
    data = [(x, torch.randn(len(y), 5) - 9) for x, y in VALID]
    with pytest.raises(
        ValueError, match=r"expected labels that are whole .* a regression has no such"
    ):
        fitted(monitor, valid=data, module=Regression())
    one = fitted(monitor)
    assert logged(one) == pytest.approx(by_hand(one.model, layers=[1]), rel=1e-5)


@pytest.mark.parametrize("name", ["every_n_epochs", "spectrum_every_n_epochs"])
def test_to_look_less_often_than_every_epoch_but_not_even_that_is_refused(name):
    with pytest.raises(ValueError, match=f"expected {name} ≥ 1, but got 0"):
        CalibrationMonitor(**{name: 0})


class Voided(Validated):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val", F.cross_entropy(self(batch[0]), batch[1], ignore_index=-1))


def test_an_ignored_label_counts_nowhere():
    kept = [torch.arange(len(y)) % 3 > 0 for _, y in VALID]
    data = [(x, y.where(some, -1)) for (x, y), some in zip(VALID, kept, strict=True)]
    one = fitted(CalibrationMonitor(["net.1"], ignore_index=-1), valid=data, module=Voided())
    rest = [(x[some], y[some]) for (x, y), some in zip(VALID, kept, strict=True)]
    assert logged(one) == pytest.approx(by_hand(one.model, rest, layers=(1,)), rel=1e-5)
