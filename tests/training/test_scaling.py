"""The temperature of a fit, against the same by hand."""

import copy
import pickle
import subprocess
import sys
from collections import namedtuple
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning.pytorch as L
import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, loader, trainer
from jsonargparse import ArgumentParser
from lightning.pytorch import callbacks as cb
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from test_monitor import rows_of
from torch import nn

from lightning_mmix import ManifoldMixup, ManifoldMixupClassifier, TemperatureScaling
from lightning_mmix.metrics.temperature import temperature_scaling

AVERAGES = pytest.mark.skipif(
    not hasattr(cb, "EMAWeightAveraging"), reason="Lightning 2.6 has EMAWeightAveraging"
)
VALID, TEST = batches(3, size=7), batches(2, size=9)


class Validated(Net):
    """Has dropout, and keeps what its steps get from ``forward``."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 5))
        self.seen, self.evaluated = [], 0

    def forward(self, x):
        self.evaluated += not self.training
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self.criterion(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen.append(self(batch[0]))
        self.log("val", F.cross_entropy(self.seen[-1], batch[1]))

    def test_step(self, batch, batch_idx):
        self.seen.append(self(batch[0]))

    def predict_step(self, batch, batch_idx):
        return self(batch[0])


def fitted(*callbacks, module=None, valid=VALID, **kwargs):
    torch.manual_seed(0)
    one = trainer(*callbacks, **kwargs)
    one.fit(module or Validated(), loader(batches(4)), loader(valid))
    return one


def by_hand(module, data=VALID):
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    with torch.no_grad():
        logits = copy.deepcopy(module.net).eval()(x)
    return float(temperature_scaling(logits, y)), logits, y


def test_what_is_fitted_and_logged_is_that_of_the_whole_validation_set_by_hand():
    scaling = TemperatureScaling()
    one = fitted(scaling, max_epochs=3)
    best, logits, y = by_hand(one.model)
    assert pytest.approx(best, rel=1e-6) == scaling.temperature_.T
    expected = {
        "T": best,
        "samples": 21,
        "nll": naive.negative_log_likelihood(logits, y),
        "ece": naive.ece(logits, y, 15),
        "nll_at_T": naive.negative_log_likelihood(logits / best, y),
        "ece_at_T": naive.ece(logits / best, y, 15),
    }
    for name, value in expected.items():
        assert float(one.callback_metrics[f"temperature/{name}"]) == pytest.approx(
            float(value), rel=1e-4
        )


@pytest.mark.parametrize("mixing", [[], [lambda: ManifoldMixup(layers=["input", "net.1"])]])
def test_the_fit_is_that_without_it_bit_for_bit(mixing):
    ones, states = [], []
    for callbacks in ([], [TemperatureScaling(apply=True)]):
        callbacks += [make() for make in mixing]
        ones.append(fitted(*callbacks, max_epochs=3, check_val_every_n_epoch=2))
        states.append(torch.get_rng_state())
    one, two = (each.model for each in ones)
    assert all(map(torch.equal, one.parameters(), two.parameters()))
    assert torch.equal(*states)
    assert all(map(torch.equal, one.seen, two.seen))
    assert ones[0].callback_metrics["val"] == ones[1].callback_metrics["val"]
    assert "forward" not in vars(two)
    assert two.training == one.training


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_where_asked_the_logits_are_divided(stage):
    scaling = TemperatureScaling(apply=True)
    one = fitted(scaling, max_epochs=2)
    module, best, logits = one.model, by_hand(one.model)[0], by_hand(one.model, TEST)[1]
    module.seen.clear()
    predicted = getattr(one, stage)(module, loader(TEST))
    found = torch.cat(predicted if stage == "predict" else module.seen)
    torch.testing.assert_close(found, logits / best)
    assert "forward" not in vars(module)


def test_unless_asked_they_are_not():
    one = fitted(TemperatureScaling())
    one.model.seen.clear()
    one.test(one.model, loader(TEST), verbose=False)
    torch.testing.assert_close(torch.cat(one.model.seen), by_hand(one.model, TEST)[1])


class Column(Validated):
    """Has one score, whatever its labels are."""

    def forward(self, x):
        return self.net(x)[:, :1]

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    validation_step = training_step


def test_one_column_of_logits_for_several_classes_is_refused():
    scaling = TemperatureScaling()
    with pytest.raises(ValueError, match=r"numbers in \[0, 2\), for one score a label, but got"):
        fitted(scaling, module=Column())
    assert scaling.temperature_ is None


def saving(folder, **kwargs):
    return ModelCheckpoint(folder, "{step}", save_top_k=-1, **kwargs)


def test_every_checkpoint_holds_the_temperature_of_its_own_weights(tmp_path):
    scaling = TemperatureScaling(apply=True)
    fitted(scaling, saving(tmp_path), max_epochs=3, enable_checkpointing=True)
    temperatures = set()
    for path in tmp_path.glob("*.ckpt"):
        saved = torch.load(path, weights_only=True)
        module, again = Validated(), TemperatureScaling(apply=True)
        module.load_state_dict(saved["state_dict"])
        best, logits = by_hand(module)[0], by_hand(module, TEST)[1]
        blank = Validated()
        one = trainer(again, saving(tmp_path), enable_checkpointing=True)
        one.test(blank, loader(TEST), ckpt_path=path, verbose=False)
        torch.testing.assert_close(torch.cat(blank.seen), logits / best)
        temperatures.add(again.temperature_.T)
    assert len(temperatures) == 3


def test_best_comes_with_its_own(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="temperature/nll", mode="max")
    scaling = TemperatureScaling(apply=True)
    one = fitted(scaling, best, max_epochs=3, enable_checkpointing=True)
    last = scaling.temperature_.T
    one.predict(one.model, loader(TEST), ckpt_path="best")
    assert pytest.approx(by_hand(one.model)[0], rel=1e-6) == scaling.temperature_.T
    assert last != scaling.temperature_.T


def test_amid_an_epoch_a_checkpoint_holds_none(tmp_path):
    scaling = TemperatureScaling(apply=True)
    steps = saving(tmp_path, every_n_train_steps=3, save_last=True)
    one = fitted(scaling, steps, max_epochs=2, enable_checkpointing=True)
    assert scaling.temperature_ is not None
    saved = torch.load(tmp_path / "step=6.ckpt", weights_only=True)
    assert saved["callbacks"]["TemperatureScaling"] == {"temperature": None}
    with pytest.raises(ValueError, match="no temperature of these weights is known"):
        one.test(one.model, loader(TEST), ckpt_path=tmp_path / "step=6.ckpt", verbose=False)
    assert "forward" not in vars(one.model)


def test_weights_alone_come_without_one(tmp_path):
    only = saving(tmp_path, save_weights_only=True)
    one = fitted(TemperatureScaling(apply=True), only, enable_checkpointing=True)
    with pytest.raises(ValueError, match="no temperature of these weights is known"):
        one.test(one.model, loader(TEST), ckpt_path=tmp_path / "step=4.ckpt", verbose=False)


class Augmented(Validated):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        return (x + torch.randn_like(x) if self.trainer.training else x), y


@pytest.mark.parametrize("kwargs", [{"check_val_every_n_epoch": 2}, {"max_steps": 7}])
def test_weights_that_no_validation_saw_are_fitted_when_the_training_ends(tmp_path, kwargs):
    scaling, logger = TemperatureScaling(), CSVLogger(tmp_path)
    one = fitted(scaling, module=Augmented(), max_epochs=3, logger=logger, **kwargs)
    best = by_hand(one.model)[0]
    assert pytest.approx(best, rel=1e-6) == scaling.temperature_.T
    assert one.callback_metrics["temperature/T"] != pytest.approx(best, rel=1e-6)
    rows = [row["temperature/T"] for row in rows_of(logger.log_dir)]
    assert float(rows[-1]) == pytest.approx(best, rel=1e-6)


def test_weights_that_a_validation_saw_are_not_looked_at_again():
    module = Validated()
    fitted(TemperatureScaling(), module=module, max_epochs=2, num_sanity_val_steps=0)
    assert module.evaluated == 2 * 2 * len(VALID)


def ema():
    return cb.EMAWeightAveraging(decay=0.5)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("averaging", "kwargs"),
    [
        pytest.param(ema, {}, marks=AVERAGES),
        pytest.param(ema, {"check_val_every_n_epoch": 2}, marks=AVERAGES),
        (lambda: StochasticWeightAveraging(0.05, 1, annealing_epochs=1), {}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
def test_averaged_weights_have_their_own(tmp_path, averaging, kwargs, first):
    scaling, last = TemperatureScaling(), saving(tmp_path)
    both = [scaling, averaging()] if first else [averaging(), scaling]
    one = fitted(*both, last, max_epochs=3, enable_checkpointing=True, **kwargs)
    assert pytest.approx(by_hand(one.model)[0], rel=1e-6) == scaling.temperature_.T


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_fit_ends_with_the_same_bit_for_bit(tmp_path):
    def run(folder, path=None):
        module, scaling = Validated(), TemperatureScaling()
        module.net[2].p = 0.0
        one = trainer(scaling, saving(tmp_path / folder), max_epochs=4, enable_checkpointing=True)
        one.fit(module, loader(batches(4)), loader(VALID), ckpt_path=path)
        return asdict(scaling.temperature_)

    whole = run("whole")
    assert run("half", tmp_path / "whole" / "step=8.ckpt") == whole
    assert run("done", tmp_path / "whole" / "step=16.ckpt") == whole  # nothing is left to train


Out = namedtuple("Out", ["hidden", "scores"])


@dataclass
class Record:
    logits: torch.Tensor
    loss: float = 0.0


OUTPUTS = {
    "tuple": (lambda z: (z[:, :2], z), lambda out: out[1]),
    "named": (lambda z: Out(z[:, :3], z), lambda out: out.scores),
    "dict": (lambda z: {"logits": z, "h": z[:, :1]}, lambda out: out["logits"]),
    "record": (Record, lambda out: out.logits),
    "distribution": (
        lambda z: torch.distributions.Categorical(logits=z), lambda out: out.logits,
    ),
    "logs": (lambda z: z.log_softmax(1), lambda out: out),
    "shares": (lambda z: z.softmax(1), lambda out: out.log()),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_whatever_forward_returns_is_divided_and_nothing_else(name):
    wrap, unwrap = OUTPUTS[name]

    class Wraps(Validated):
        def forward(self, x):
            return wrap(super().forward(x))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(unwrap(self(batch[0])), batch[1])

        def validation_step(self, batch, batch_idx):
            pass

    where = {"shares": {"form": "probabilities"}, "tuple": {"output": 1}, "named": {"output": 1}}
    scaling = TemperatureScaling(apply=True, **where.get(name, {}))
    one = fitted(scaling, module=Wraps())
    best, logits = by_hand(one.model)[0], by_hand(one.model, TEST)[1]
    assert pytest.approx(best, rel=1e-4) == scaling.temperature_.T
    outs = one.predict(one.model, loader(TEST))
    assert {type(out) for out in outs} == {type(wrap(logits))}
    found = torch.cat([unwrap(out) for out in outs])
    if name in ("distribution", "logs", "shares"):
        torch.testing.assert_close(found, (logits / best).log_softmax(1), atol=1e-4, rtol=1e-4)
    else:
        torch.testing.assert_close(found, logits / best, atol=1e-4, rtol=1e-4)
    if name == "tuple":
        torch.testing.assert_close(torch.cat([out[0] for out in outs]), logits[:, :2])


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_two_classes_with_one_score_are_divided_as_one(form):
    class Binary(Validated):
        def forward(self, x):
            score = super().forward(x)[:, :1]
            return score if form == "logits" else score.sigmoid()

        def training_step(self, batch, batch_idx):
            loss = F.binary_cross_entropy_with_logits
            return loss(self.net(batch[0])[:, 0], (batch[1] > 2).float())

        def validation_step(self, batch, batch_idx):
            pass

    valid = [(x, (y > 2).long()) for x, y in VALID]
    scaling = TemperatureScaling(apply=True, form=form)
    one = fitted(scaling, module=Binary(), valid=valid)
    scores = by_hand(one.model)[1][:, :1]
    labels = torch.cat([y for _, y in valid])
    best = float(temperature_scaling(scores, labels))
    assert pytest.approx(best, rel=1e-4) == scaling.temperature_.T
    found = torch.cat(one.predict(one.model, loader(VALID)))
    expected = scores / best
    expected = expected if form == "logits" else expected.sigmoid()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_pixels_but_the_ignored_ones_are_samples():
    class Pixels(Validated):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(2, 3, 1)

        def validation_step(self, batch, batch_idx):
            pass

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 2, 5, 6, generator=generator)
    y = (x[:, 0] < 0).long().where(x[:, 1] > -0.5, 255)
    module, scaling = Pixels(), TemperatureScaling(apply=True, ignore_index=255)
    one = trainer(scaling)
    module.criterion = lambda out, y: F.cross_entropy(out, y, ignore_index=255)
    one.fit(module, loader([(x, y)]), loader([(x, y)]))
    with torch.no_grad():
        logits = module.net(x)
    best = temperature_scaling(logits, y, ignore_index=255)
    assert pytest.approx(float(best), rel=1e-6) == scaling.temperature_.T
    assert scaling.temperature_.samples == int((y != 255).sum())
    (found,) = one.predict(module, loader([(x, y)]))
    torch.testing.assert_close(found, logits / best.float())


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (nn.Identity(), "logits"),
        (nn.LogSoftmax(-1), "logits"),
        (nn.Softmax(-1), "probabilities"),
    ],
)
def test_scores_whose_classes_are_last_are_divided_as_if_they_were_second(head, form):
    class Tokens(Validated):
        def forward(self, x):
            return head(self.net(x))

        def training_step(self, batch, batch_idx):
            logits = self.net(batch[0]).movedim(-1, 1)
            return F.cross_entropy(logits, batch[1], ignore_index=-100)

        def validation_step(self, batch, batch_idx):
            pass

    x, labels = torch.randn(7, 3, 4), torch.arange(21).view(7, 3) % 6
    data = loader([(x, labels.where(labels < 5, -100))])
    module = Tokens()
    scaling = TemperatureScaling(apply=True, form=form, ignore_index=-100)
    one = trainer(scaling)
    one.fit(module, data, data)
    with torch.no_grad():
        logits = module.eval().net(x)
    best = temperature_scaling(logits.movedim(-1, 1), next(iter(data))[1], ignore_index=-100)
    assert pytest.approx(float(best), rel=1e-4) == scaling.temperature_.T
    torch.testing.assert_close(one.predict(module, data)[0], head(logits / best.float()))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_scores_keep_their_dtype(precision):
    one = fitted(TemperatureScaling(apply=True), precision=precision)
    plain = fitted(precision=precision)
    found, expected = (each.predict(each.model, loader(TEST)) for each in (one, plain))
    assert [each.dtype for each in found] == [each.dtype for each in expected]
    assert not torch.equal(found[0], expected[0])


@pytest.mark.filterwarnings("default:the temperature is 100")
def test_the_end_of_the_range_is_told_once_and_only_if_the_fit_ends_there(recwarn):
    class Learns(Validated):
        lasts = 3

        def forward(self, x):
            wrong = 99 * F.one_hot(torch.arange(len(x)) % 5, 5)
            return self.net(x) - wrong * (self.current_epoch < self.lasts)

    for Learns.lasts in (1, 3):
        fitted(TemperatureScaling(), module=Learns(), valid=[batches(size=7)[0]], max_epochs=2)
        assert (
            len([w for w in recwarn if "temperature is 100" in str(w.message)]) == Learns.lasts // 2
        )


def test_of_several_loaders_the_first_is_fitted_on():
    scaling, module = TemperatureScaling(), Validated()
    one = trainer(scaling, max_epochs=3, check_val_every_n_epoch=2)
    one.fit(module, loader(batches(4)), {"a": loader(VALID), "b": loader(TEST)})
    assert scaling.temperature_.samples == 21
    assert pytest.approx(by_hand(module)[0], rel=1e-6) == scaling.temperature_.T


def test_a_dry_run_is_fitted_on_its_batch():
    scaling = TemperatureScaling(apply=True)
    one = fitted(scaling, fast_dev_run=1)
    assert scaling.temperature_.samples == 7
    one.test(one.model, loader(TEST), verbose=False)


def test_it_is_pickled_before_during_and_after():
    scaling, copies = TemperatureScaling(apply=True), []
    keep = LambdaCallback(
        on_validation_batch_end=lambda *_: copies.append(pickle.loads(pickle.dumps(scaling))),
        on_test_batch_end=lambda *_: copies.append(pickle.loads(pickle.dumps(scaling))),
    )
    one = fitted(scaling, keep, num_sanity_val_steps=0)
    one.test(one.model, loader(TEST), verbose=False)
    copies.append(pickle.loads(pickle.dumps(scaling)))
    assert len(copies) == 3 + 2 + 1
    assert asdict(copies[-1].temperature_) == asdict(scaling.temperature_)
    module = pickle.loads(pickle.dumps(one.model))
    assert "forward" not in vars(module)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_forward_is_the_modules_own(error):
    class Fails(Validated):
        def test_step(self, batch, batch_idx):
            raise error("here")

    one = fitted(TemperatureScaling(apply=True), module=Fails())
    with pytest.raises((error, SystemExit)):
        one.test(one.model, loader(TEST), verbose=False)
    assert "forward" not in vars(one.model)
    assert one.predict(one.model, loader(TEST))


def test_a_forward_of_the_instance_is_given_back():
    module = Validated()
    module.forward = own = module.net.forward
    one = fitted(TemperatureScaling(apply=True), module=module)
    one.test(module, loader(TEST), verbose=False)
    assert module.forward is own


def test_a_network_that_came_to_nan_goes_on_training():
    module = Validated()
    with torch.no_grad():
        module.net[0].weight.fill_(torch.nan)
    scaling = TemperatureScaling()
    with pytest.warns(UserWarning, match="since no label counts, or a prediction is NaN"):
        one = fitted(scaling, module=module, max_epochs=2)
    assert one.state.finished
    assert scaling.temperature_ is None


def test_where_every_prediction_is_right_nothing_is_scaled():
    class Sure(Validated):
        def forward(self, x):
            return super().forward(x) + 20 * F.one_hot(torch.arange(len(x)) % 5, 5)

    scaling = TemperatureScaling(apply=True)
    right = [(x, torch.arange(len(x)) % 5) for x, _ in VALID]
    one = trainer(scaling)
    with pytest.warns(UserWarning, match="all its predictions are right"):
        one.fit(Sure(), loader(right), loader(right))
    found = scaling.temperature_
    assert (found.T, found.samples) == (1.0, 21)
    assert (found.nll_at_T, found.ece_at_T) == (found.nll, found.ece)
    one.predict(one.model, loader(TEST))


def test_it_comes_from_yaml():
    parser = ArgumentParser()
    parser.add_subclass_arguments(L.Callback, "callback")
    made = parser.parse_string(
        """
        callback:
          class_path: lightning_mmix.TemperatureScaling
          init_args: {apply: true, form: probabilities, target: 1, output: probs}
        """
    )
    scaling = parser.instantiate_classes(made).callback
    assert type(scaling) is TemperatureScaling
    assert scaling.apply


def classifier(**kwargs):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
    return ManifoldMixupClassifier(net, 5, **{"layers": ["net.0"], **kwargs})


def test_the_classifier_predicts_at_its_temperature_and_tests_as_trained_and_at_it():
    one = fitted(module=classifier(), max_epochs=2)
    module = one.model
    best, (_, logits, y) = by_hand(module)[0], by_hand(module, TEST)
    assert float(module.temperature_) == pytest.approx(best, rel=1e-6)
    found = torch.cat(one.predict(module, loader(TEST)))
    torch.testing.assert_close(found, (logits / best).softmax(1))
    (tested,) = one.test(module, loader(TEST), verbose=False)
    for name, score in (("nll", naive.negative_log_likelihood), ("brier", naive.brier)):
        for at, scores in (("", logits), ("_at_T", logits / best)):
            assert tested[f"test/{name}{at}"] == pytest.approx(float(score(scores, y)), rel=1e-5)
    assert tested["test/ece_at_T"] == pytest.approx(naive.ece(logits / best, y, 15), rel=1e-4)
    assert tested["test/T"] == pytest.approx(best, rel=1e-6)


def test_the_classifier_takes_no_more_passes_and_trains_as_without(monkeypatch):
    ones, passes = [], []
    for own in (True, False):
        module = classifier()
        if not own:
            configure = super(ManifoldMixupClassifier, module).configure_callbacks
            monkeypatch.setattr(module, "configure_callbacks", configure)
        module.net.register_forward_hook(lambda m, *_: passes.append(m.training))
        ones.append(fitted(module=module, max_epochs=2).model)
        passes.append(None)
    middle = passes.index(None)
    assert passes[:middle].count(False) == passes[middle:].count(False)
    assert all(map(torch.equal, ones[0].net.parameters(), ones[1].net.parameters()))
    assert (ones[0].is_tempered, ones[1].is_tempered) == (True, False)


PREDICT = """
import sys, torch
from test_scaling import TEST, classifier
from lightning_mmix import ManifoldMixupClassifier
module = ManifoldMixupClassifier.load_from_checkpoint(sys.argv[1], net=classifier().net)
module.eval()
with torch.no_grad():
    torch.save([module.predict_step(batch, 0) for batch in TEST], sys.argv[2])
"""


def test_a_checkpoint_of_the_classifier_predicts_so_in_a_new_process(tmp_path):
    one = fitted(saving(tmp_path), module=classifier(), enable_checkpointing=True)
    expected = one.predict(one.model, loader(TEST))
    paths = [str(tmp_path / name) for name in ("step=4.ckpt", "out.pt")]
    folder = Path(__file__).parent
    code = f"import sys; sys.path[:0] = {[str(folder), str(folder.parent)]}\n{PREDICT}"
    subprocess.run([sys.executable, "-c", code, *paths], check=True)
    for found, wanted in zip(torch.load(paths[1], weights_only=True), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    tester = trainer(saving(tmp_path), enable_checkpointing=True)
    (tested,) = tester.test(classifier(), loader(TEST), ckpt_path=paths[0], verbose=False)
    assert tested["test/T"] == pytest.approx(float(one.model.temperature_))


def test_a_checkpoint_from_before_loads_strictly():
    module = classifier()
    module.set_temperature(2.0)
    old = {k: v for k, v in module.state_dict().items() if k != "temperature_"}
    module.load_state_dict(old, strict=True)
    assert not module.is_tempered
    assert "temperature_" not in old


def test_the_classifier_without_validation_data_is_as_it_was():
    module, one = classifier(), trainer()
    one.fit(module, loader(batches(4)))
    (found,) = one.predict(module, loader(TEST[:1]))
    with torch.no_grad():
        assert torch.equal(found, module.net(TEST[0][0]).softmax(1))
    assert "test/T" not in one.test(module, loader(TEST), verbose=False)[0]


@AVERAGES
def test_averaged_weights_of_the_classifier_are_saved_with_their_own(tmp_path):
    kwargs = {"max_epochs": 2, "enable_checkpointing": True}
    one = fitted(ema(), saving(tmp_path), module=classifier(), **kwargs)
    for path in tmp_path.glob("*.ckpt"):
        loaded = classifier()
        loaded.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
        assert float(loaded.temperature_) == pytest.approx(by_hand(loaded)[0], rel=1e-5)
    assert float(one.model.temperature_) == pytest.approx(by_hand(one.model)[0], rel=1e-5)


def test_a_callback_of_the_trainer_takes_the_place_of_the_classifiers_own():
    scaling, module = TemperatureScaling(apply=True), classifier()
    one = fitted(scaling, module=module)
    assert pytest.approx(float(module.temperature_)) == scaling.temperature_.T
    found = torch.cat(one.predict(module, loader(TEST)))
    logits = by_hand(module, TEST)[1]
    torch.testing.assert_close(found, (logits / module.temperature_).softmax(1))


def test_the_classifier_in_half_precision_keeps_the_digits():
    module = classifier()
    module.bfloat16()
    module.set_temperature(1.2345678)
    assert float(module.temperature_) == pytest.approx(1.2345678)
    assert module.temperature_.dtype == torch.float32


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_hugging_face_outputs_are_divided():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 30, "hidden_size": 8, "intermediate_size": 8, "num_labels": 3}
    config = transformers.BertConfig(num_hidden_layers=1, num_attention_heads=1, **sizes)

    class Text(L.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = transformers.BertForSequenceClassification(config)

        def forward(self, **batch):
            return self.net(**batch)

        def training_step(self, batch, batch_idx):
            return self(**batch).loss

        validation_step = training_step

        def predict_step(self, batch, batch_idx):
            return self(**batch)

        configure_optimizers = Net.configure_optimizers

    ids = torch.arange(24).view(6, 4)
    data = loader([{"input_ids": ids, "labels": torch.arange(6) % 3}])
    scaling, module = TemperatureScaling(apply=True), Text()
    one = trainer(scaling)
    one.fit(module, data, data)
    (out,) = one.predict(module, data)
    with torch.no_grad():
        logits = module.eval().net(input_ids=ids).logits
    torch.testing.assert_close(out.logits, logits / scaling.temperature_.T)
    assert torch.equal(out["logits"], out.logits)
