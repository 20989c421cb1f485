"""The measurement in real Trainers, against direct evaluation, and the visits it consists of."""

import json
from dataclasses import asdict

import lightning.pytorch as L
import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, loader, trainer
from torch import nn

from lightning_mmix import ManifoldMixup, ManifoldMixupClassifier, TemperatureScaling
from lightning_mmix.compare.instructions import Instructions
from lightning_mmix.compare.measurement import measure
from lightning_mmix.evaluation.boundaries import interpolate_between
from lightning_mmix.evaluation.robustness import Units, evaluate
from lightning_mmix.evaluation.standard import standard_conditions
from lightning_mmix.metrics.scores import Tally
from lightning_mmix.metrics.temperature import temperature_scaling, tempered
from lightning_mmix.training.visits import has, visited

VALID, TEST = batches(2, size=7), batches(5, size=8)
KEYS = {"clean", "tempered", "temperature", "bins", "spectrum", "interpolation", "conditions"}


class Measured(Net):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val", self.criterion(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("tested", self.criterion(self(batch[0]), batch[1]))


class OnlyValid(L.LightningDataModule):
    def __init__(self, valid=VALID):
        super().__init__()
        self.valid = valid

    def train_dataloader(self):
        return loader(self.valid[:1])

    def val_dataloader(self):
        return loader(self.valid)


class Both(OnlyValid):
    def __init__(self, valid=VALID, test=TEST):
        super().__init__(valid)
        self.test = test

    def test_dataloader(self):
        return loader(self.test)


def measured(module, data, **instructions):
    return measure(
        trainer(), module, data, Instructions(**{"fast": True, "samples": 0, **instructions})
    )


MODULES = {
    "classifier": lambda: ManifoldMixupClassifier(Net().net, 5, layers=["net.0"], stop=1.0),
    "module": Measured,
}


@pytest.fixture(scope="module", params=MODULES)
def after_fit(request):
    """A trained module, and what is measured of it on test data."""
    torch.manual_seed(0)
    module, data, one = MODULES[request.param](), Both(), trainer()
    one.fit(module, datamodule=data)
    return module, measure(one, module, data, Instructions(fast=True, samples=0))


def test_it_is_measured_as_trained_also_where_a_callback_divides_the_logits():
    torch.manual_seed(0)
    module, data, scaling = Measured(), Both(), TemperatureScaling(apply=True)
    one = trainer(scaling)
    one.fit(module, datamodule=data)
    found = measure(one, module, data, Instructions(fast=True, samples=0))
    assert found["clean"] == pytest.approx(scores(*predictions(module, TEST)))
    assert found["temperature"] == pytest.approx(scaling.temperature_.T, rel=1e-6)
    assert scaling.apply


def predictions(module, data):
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    with torch.no_grad():
        return module.eval()(x), y


def scores(preds, target):
    tally = Tally()
    tally.update(preds, target)
    found = tally.compute()
    del found["bins"]
    return {name: float(value) for name, value in found.items()}


def test_a_measurement_is_made_of_plain_containers(after_fit):
    _, found = after_fit
    assert found.keys() == KEYS | {"stage", "own", "unperturbed"}
    assert found["stage"] == "test"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_scores_are_those_of_the_test_data(after_fit):
    module, found = after_fit
    preds, target = predictions(module, TEST)
    assert found["clean"] == pytest.approx(scores(preds, target))
    groups = naive.equal_width(preds, 15)
    bins = torch.tensor(found["bins"]).nan_to_num()
    torch.testing.assert_close(bins, naive.bins(preds, target, groups))


def test_the_conditions_are_those_of_direct_evaluation(after_fit):
    module, found = after_fit
    x = torch.cat([x for x, _ in TEST])
    low, high, std = float(x.min()), float(x.max()), float(f"{x.std(correction=0):.2g}")
    assert 4 * std < high - low
    conditions = standard_conditions((low, high), images=False, fast=True, std=std)
    rows = evaluate(module, TEST, conditions, units=Units(low, high), progress=False)
    assert found["conditions"] == [asdict(row) for row in rows]


def test_the_temperature_is_that_of_the_validation_data_applied_to_the_test_data(after_fit):
    module, found = after_fit
    temperature = temperature_scaling(*predictions(module, VALID))
    assert found["temperature"] == pytest.approx(float(temperature), rel=1e-5)
    expected = scores(*tempered(*predictions(module, TEST), temperature))
    assert found["tempered"] == pytest.approx(expected, rel=1e-5)


def test_what_the_module_logs_is_kept(after_fit):
    module, found = after_fit
    preds, target = predictions(module, TEST)
    nll = pytest.approx(float(F.cross_entropy(preds, target)))
    if isinstance(module, Measured):
        assert found["own"] == {"tested": nll}
    else:
        assert (found["own"]["test/nll"], found["own"]["test/loss"]) == (nll, nll)


def test_layers_that_auto_would_mix_have_a_spectrum(after_fit):
    module, found = after_fit
    x, y = (torch.cat(parts) for parts in zip(*TEST, strict=True))
    assert list(found["spectrum"]) == ["net.1"]
    expected = naive.singular_values(module.net[:2](x).detach(), y, 5, centred=True)
    values = torch.tensor(found["spectrum"]["net.1"], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)


def test_layers_that_auto_would_mix_have_a_path_over_four_batches(after_fit):
    module, found = after_fit
    assert list(found["interpolation"]) == ["input", "net.1"]
    for layer, path in found["interpolation"].items():
        paths = [interpolate_between(module, batch, layer) for batch in TEST[:4]]
        for name, values in path.items():
            means = torch.stack([getattr(each, name) for each in paths]).mean(0)
            assert values == pytest.approx(means.tolist(), abs=1e-6)


def test_without_test_data_validation_data_are_measured_and_no_temperature_is_fitted():
    module = Measured()
    found = measured(module, OnlyValid())
    assert (found["stage"], found["temperature"], found["tempered"]) == ("validate", None, None)
    assert found["clean"] == pytest.approx(scores(*predictions(module, VALID)))


def test_a_batch_of_one_class_has_no_path_but_all_else():
    module, (x, y) = Measured(), VALID[0]
    data = OnlyValid([(x, y), (x + 1, 0 * y)])
    found, alone = measured(module, data), measured(module, OnlyValid([(x, y)]))
    assert found["interpolation"] == alone["interpolation"]
    assert found["clean"]["samples"] == 2 * len(y)


def test_data_are_measured_in_their_units_and_their_range():
    module, how = Measured(), {"mean": (1.0, 2.0, 3.0, 4.0), "std": 0.5}
    found = measured(module, Both(), **how)
    data = torch.cat([x for x, _ in TEST]) * 0.5 + torch.tensor(how["mean"])
    low, high, std = float(data.min()), float(data.max()), float(f"{data.std(correction=0):.2g}")
    assert low < 0
    assert high > 1
    conditions = standard_conditions((low, high), images=False, fast=True, std=std)
    rows = evaluate(module, TEST, conditions, units=Units(low, high, **how), progress=False)
    assert found["conditions"] == [asdict(row) for row in rows]


def test_a_range_that_is_said_is_taken():
    found = measured(Measured(), Both(), low=-10.0, high=30.0)
    assert [row["strength"] for row in found["conditions"]] == pytest.approx([0, 0.4, 1.2, 4.0])
    with pytest.raises(ValueError, match=r"outside of the data's range \[0, 1\]; give their range"):
        measured(Measured(), Both(), low=0.0, high=1.0)


@pytest.mark.parametrize("samples", [3, 8, 13])
def test_the_first_samples_are_put_under_the_conditions(samples):
    module = Measured()
    found = measured(module, Both(), samples=samples)
    assert {row["samples"] for row in found["conditions"]} == {samples}
    preds, target = predictions(module, TEST)
    expected = scores(preds[:samples], target[:samples])
    assert found["conditions"][0]["nll"] == pytest.approx(expected["nll"])
    assert found["clean"]["samples"] == 40


class Regression(Measured):
    def __init__(self):
        super().__init__(lambda preds, target: (preds[:, :1] - target).square().mean())


def test_of_a_regression_only_what_it_logs_is_kept():
    data = [[(x, 9 * x[:, :1]) for x, _ in part] for part in (VALID, TEST)]
    found = measured(Regression(), Both(*data))
    assert found.keys() == {"stage", "own", "unmeasured"}
    assert found["own"].keys() == {"tested"}
    assert found["unmeasured"].endswith("; a regression has no such scores")


class Detection(Measured):
    def validation_step(self, batch, batch_idx):
        self.log("val", self(batch[0]).mean())

    test_step = validation_step


def test_a_batch_without_labels_is_no_reason_to_fail():
    data = [[(x, [{"boxes": y}]) for x, y in part] for part in (VALID, TEST)]
    found = measured(Detection(), Both(*data))
    assert found.keys() == {"stage", "own", "unmeasured"}
    assert found["unmeasured"].startswith(
        "expected targets of shape (B, ...), but got a list of 1 dict"
    )


class Tokens(Measured):
    def __init__(self):
        super().__init__()
        layers = [nn.EmbeddingBag(9, 4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)]
        self.net = nn.Sequential(*layers)


def test_token_inputs_have_the_clean_condition_and_no_path_between_them():
    data = [[((3 * x).long().abs() % 9, y) for x, y in part] for part in (VALID, TEST)]
    found = measured(Tokens(), Both(*data))
    assert [row["condition"] for row in found["conditions"]] == ["clean"]
    assert found["interpolation"].keys() == found["spectrum"].keys() > {"net.0"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


class Images(Measured):
    def __init__(self, channels, last):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), *last)


def images(channels):
    return [(torch.rand(6, channels, 4, 5), torch.arange(6) % 5)]


@pytest.mark.parametrize("channels", [2, 3])
def test_images_are_distorted_but_not_compressed_if_they_have_no_colours(channels):
    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    found = measured(Images(channels, last), OnlyValid(images(channels)), fast=False)
    families = {row["family"] for row in found["conditions"]}
    assert {"FGSM", "PGD", "Gaussian noise", "rotation", "shear", "zoom", "contrast"} < families
    assert ("jpeg" in families) == (channels != 2)


@pytest.mark.parametrize("is_dense", [False, True])
def test_dark_images_are_attacked_at_strengths_of_their_range(is_dense):
    dark = torch.zeros(6, 2, 4, 5)
    dark[0, 0, 0, 0] = 1
    target = (dark[:, 0] > 0.5).long() if is_dense else torch.arange(6) % 5
    last = [nn.Conv2d(4, 2, 1)] if is_dense else [nn.Flatten(), nn.Linear(80, 5)]
    found = measured(Images(2, last), OnlyValid([(dark, target)]))
    assert [row["strength"] for row in found["conditions"]][1:4] == pytest.approx([0.01, 0.03, 0.1])


def test_a_segmentation_is_attacked_only():
    data = [(x, (x[:, 0] > 0.5).long()) for x, _ in images(2)]
    found = measured(Images(2, [nn.Conv2d(4, 2, 1)]), OnlyValid(data))
    assert {row["family"] for row in found["conditions"]} == {"clean", "FGSM"}
    assert found["clean"]["samples"] == 6 * 4 * 5
    assert (found["spectrum"], found["interpolation"]) == ({}, {})


class Binary(Measured):
    def __init__(self):
        super().__init__(F.binary_cross_entropy_with_logits)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))


def test_two_classes_with_one_score_are_measured_too():
    data = [[(x, y.float() % 2) for x, y in part] for part in (VALID, TEST)]
    found = measured(Binary(), Both(*data))
    assert found.keys() == KEYS | {"stage", "own", "unperturbed"}
    assert len(found["spectrum"]["net.1"]) == 2
    assert list(found["interpolation"]) == ["input", "net.1"]


class TimeFirst(Measured):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 6), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.lstm(x.transpose(0, 1))[0][-1])


def test_a_layer_with_time_first_has_a_spectrum():
    data = [(x[:, None].repeat(1, 3, 1), y) for x, y in VALID]
    found = measured(TimeFirst(), OnlyValid(data))
    assert "lstm" in found["spectrum"]
    assert "lstm" in found["interpolation"]


class Elsewhere(Measured):
    def forward(self, a, b):
        return {"other": torch.zeros(len(a), 5), "probs": self.net(b).softmax(1)}

    def validation_step(self, batch, batch_idx):
        self.log("val", 0.0)


def test_it_is_told_where_a_batch_holds_what():
    module, plain = Elsewhere(), Measured()
    data = [{"a": x[:, :1].expand(-1, 5), "b": x, "c": [y]} for x, y in VALID]
    where = {"form": "probabilities", "target": "c.0", "input": "b", "output": "probs"}
    found = measured(module, OnlyValid(data), **where)
    plain.net = module.net
    expected = measured(plain, OnlyValid())
    for key in ("spectrum", "interpolation"):
        assert found[key].keys() == expected[key].keys()
    for one, other in zip(found["conditions"], expected["conditions"], strict=True):
        assert one["nll"] == pytest.approx(other["nll"], rel=1e-4)


@pytest.mark.parametrize("mixing", [[], [ManifoldMixup(layers=["net.1"], stop=1.0)]])
def test_module_and_trainer_are_left_as_they_were(mixing):
    module, one = Measured(), trainer(*mixing)
    one.fit(module, datamodule=Both())
    before = [p.tolist() for p in module.parameters()], list(one.callbacks)
    measure(one, module, Both(), Instructions(fast=True))
    assert ([p.tolist() for p in module.parameters()], one.callbacks) == before
    assert not any(m._forward_hooks for m in module.modules())


def shown(module, data, stage, visit=None, **kwargs):
    """What a visit is shown, and what the module logs."""
    seen, one = [], trainer(**kwargs)
    logged = visited(one, module, data, stage, visit or (lambda *args: seen.append(args)))
    return seen, logged, one


@pytest.mark.parametrize(("stage", "data"), [("validate", VALID), ("test", TEST)])
def test_a_visit_is_shown_each_batch_and_its_position(stage, data):
    seen, logged, one = shown(Measured(), Both(), stage)
    for i, ((x, y), batch_idx, count) in enumerate(seen):
        assert (batch_idx, count >= len(y)) == (i, True)
        assert torch.equal(x, data[i][0])
        assert torch.equal(y, data[i][1])
    assert len(seen) == len(data)
    assert logged.keys() == {"val" if stage == "validate" else "tested"}
    assert not any("Visitor" in type(callback).__name__ for callback in one.callbacks)


def test_of_several_loaders_the_first_is_shown_and_all_are_logged():
    class Several(Both):
        def val_dataloader(self):
            return [loader(VALID), loader(TEST)]

    seen, logged, _ = shown(Measured(), Several(), "validate")
    assert len(seen) == len(VALID)
    assert logged.keys() == {"val/dataloader_idx_0", "val/dataloader_idx_1"}


def test_a_visit_may_take_gradients_and_write_into_its_batch():
    def visit(batch, *_):
        assert not torch.is_grad_enabled()
        with torch.enable_grad():
            x = batch[0].requires_grad_()
            module.net(x).sum().backward()
        batch[1].zero_()

    module, data = Measured(), Both()
    untouched = batches(5, size=8)
    _, logged, _ = shown(module, data, "test", visit)
    assert logged["tested"] == pytest.approx(scores(*predictions(module, untouched))["nll"])
    assert all(torch.equal(*pair) for pair in zip(TEST[4], untouched[4], strict=True))


def test_a_visit_that_fails_is_not_there_the_next_time():
    def visit(*_):
        raise KeyError

    module, one = Measured(), trainer()
    with pytest.raises(KeyError):
        visited(one, module, Both(), "test", visit)
    assert not any("Visitor" in type(callback).__name__ for callback in one.callbacks)


class Own(Measured):
    test_dataloader = Both.test_dataloader
    test = TEST


class WithoutStep(Net):
    pass


@pytest.mark.parametrize(
    ("module", "data", "stages"),
    [
        (Measured, Both, ["validation", "test"]),
        (Measured, OnlyValid, ["validation"]),
        (WithoutStep, Both, []),
        (Measured, None, []),
        (Own, None, ["test"]),
        (Own, OnlyValid, ["validation"]),
    ],
)
def test_a_stage_needs_a_step_and_a_loader(module, data, stages):
    made = module(), None if data is None else data()
    assert [stage for stage in ("validation", "test") if has(*made, stage)] == stages


def test_of_a_trainer_that_is_given_data_the_modules_own_are_not_asked():
    assert measured(Own(), OnlyValid())["stage"] == "validate"


def test_a_module_may_bring_its_data():
    found = measured(Own(), None)
    assert (found["stage"], found["temperature"]) == ("test", None)


def test_validation_data_of_which_some_have_no_labels_give_no_temperature():
    odd = VALID[0][1].clone()
    odd[0] = -100
    found = measured(Measured(), Both([*VALID, (VALID[0][0], odd)]))
    assert found["temperature"] is found["tempered"] is None
    assert found["clean"]["samples"] == 40


def test_one_column_of_logits_for_several_classes_is_not_measured():
    found = measured(Column(), Both())
    assert "temperature" not in found
    assert found["unmeasured"].startswith(
        "expected labels that are whole numbers in [0, 2), for one score a label, but got int64"
    )


class Column(Measured):
    """A network of one score, whatever its labels are."""

    def __init__(self):
        super().__init__(lambda preds, target: preds.square().mean())

    def forward(self, x):
        return super().forward(x)[:, :1]


class Pixels(Images):
    def test_step(self, batch, batch_idx):
        self.log("tested", F.cross_entropy(self(batch[0]), batch[1], ignore_index=255))

    validation_step = test_step


def test_an_ignored_label_counts_nowhere():
    data = [(x, (x[:, 0] > 0.5).long()) for x, _ in images(2)]
    voided = [(x, torch.cat([torch.full_like(y[:, :1], 255), y[:, 1:]], 1)) for x, y in data]
    module = Pixels(2, [nn.Conv2d(4, 2, 1)])
    found = measured(module, Both(voided, voided), ignore_index=255)
    logits = torch.cat([module(x)[:, :, 1:] for x, _ in data])
    target = torch.cat([y[:, 1:] for _, y in data])
    assert found["clean"]["samples"] == found["tempered"]["samples"] == target.numel()
    assert found["clean"]["nll"] == pytest.approx(F.cross_entropy(logits, target).item(), rel=1e-5)
    assert found["temperature"] == pytest.approx(float(temperature_scaling(logits, target)))
    assert {row["samples"] for row in found["conditions"]} == {target.numel()}
