import copy
import pickle
from functools import partial
from typing import get_args

import matplotlib as mpl
import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import brier_score_loss, log_loss
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional.classification import (
    binary_accuracy,
    multiclass_calibration_error,
    multilabel_accuracy,
)

from lightning_mmix import ManifoldMixup, MixPlan, mixing
from lightning_mmix.metrics.calibration import Norm
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

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)
PERFECT = torch.eye(4)[TARGET] * 1000
SCORES = {
    "nll": NegativeLogLikelihood,
    "brier": BrierScore,
    "accuracy": MixedAccuracy,
    **{norm: partial(CalibrationError, norm=norm) for norm in get_args(Norm)},
    "mass": partial(CalibrationError, binning="mass"),
    "smooth": SmoothCalibrationError,
    "classwise": partial(ClasswiseCalibrationError, 4),
    "classwise debiased": partial(ClasswiseCalibrationError, 4, norm="debiased"),
    "mass max": partial(CalibrationError, 3, norm="max", binning="mass"),
    "bins": CalibrationBins,
    "mass bins": partial(CalibrationBins, 7, binning="mass"),
}
METRICS = SCORES | {
    "spectrum": partial(ClassSpectrum, 4, 4),
    "rank": partial(ClassSpectrum, 4, 4, statistic="rank", centred=False),
}
# brier is scaled for one score a label, and the class-wise ones are made for four classes
BINARY = [name for name in SCORES if name != "brier" and not name.startswith("classwise")]
NUMBERS = [name for name in METRICS if name not in ("bins", "mass bins", "spectrum")]
EACH = pytest.mark.parametrize("name", METRICS)


def updated(name, *parts):
    metric = METRICS[name]()
    for logits, target in parts or [(LOGITS, TARGET)]:
        metric.update(logits, target)
    return metric


def states(metric):
    return {name: getattr(metric, name) for name in metric._defaults}


@EACH
def test_the_sum_over_parts_is_the_whole(name):
    parts = updated(name, (LOGITS[:20], TARGET[:20]), (LOGITS[20:20], TARGET[20:20]))
    parts.merge_state(updated(name, (LOGITS[20:], TARGET[20:])))
    torch.testing.assert_close(parts.compute(), updated(name).compute())


@EACH
def test_a_batch_has_its_own_value_and_adds_to_that_of_all(name):
    metric = updated(name, (LOGITS[:20], TARGET[:20]))
    expected = updated(name, (LOGITS[20:], TARGET[20:])).compute()
    torch.testing.assert_close(metric(LOGITS[20:], TARGET[20:]), expected)
    torch.testing.assert_close(metric.compute(), updated(name).compute())


@pytest.mark.parametrize("name", SCORES)
def test_the_form_of_the_predictions_is_a_choice(name):
    metric = SCORES[name](form="probabilities")
    torch.testing.assert_close(metric(LOGITS.softmax(1), TARGET), updated(name).compute())


@EACH
def test_the_state_is_of_fixed_size_and_pickles(name):
    before = {key: state.shape for key, state in states(METRICS[name]()).items()}
    metric = updated(name)
    assert {key: state.shape for key, state in states(metric).items()} == before
    copied = pickle.loads(pickle.dumps(metric))
    assert torch.equal(copied.compute(), metric.compute())


@EACH
def test_after_a_reset_it_starts_anew(name):
    metric = updated(name, (PERFECT, TARGET))
    metric.reset()
    metric.update(LOGITS, TARGET)
    assert torch.equal(metric.compute(), updated(name).compute())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("name", NUMBERS)
def test_without_samples_the_number_is_nan(name):
    assert METRICS[name]().compute().isnan()


@pytest.mark.parametrize("first", [LOGITS, PERFECT, LOGITS[:0]])
def test_a_collection_tells_them_apart_whatever_came_first(first):
    parts = [(first, TARGET[: len(first)]), (LOGITS, TARGET)]
    collection = MetricCollection({name: cls() for name, cls in METRICS.items()})
    for part in parts:
        collection.update(*part)
    expected = {name: updated(name, *parts).compute() for name in METRICS}
    assert collection.compute().keys() == expected.keys()
    for name, value in collection.compute().items():
        torch.testing.assert_close(value, expected[name])


def test_a_collection_tells_as_many_bins_of_width_as_there_are_fine_ones_from_those():
    both = {"width": CalibrationError(4096), "mass": CalibrationError(15, binning="mass")}
    collection = MetricCollection(copy.deepcopy(both))
    for metrics in (collection, *both.values()):
        metrics.update(PERFECT, TARGET)
        metrics.update(LOGITS, TARGET)
    for name, value in collection.compute().items():
        torch.testing.assert_close(value, both[name].compute())


@EACH
def test_in_inference_mode_they_count_the_same(name):
    metric = updated(name, (LOGITS[:20], TARGET[:20]))
    with torch.inference_mode():
        metric.update(LOGITS[20:40], TARGET[20:40])
        metric.compute()
    metric.update(LOGITS[40:], TARGET[40:])
    torch.testing.assert_close(metric.compute(), updated(name).compute())


@EACH
def test_a_reset_in_inference_mode_leaves_it_usable_outside(name):
    metric = METRICS[name]()
    with torch.inference_mode():
        metric.reset()
    metric.update(LOGITS, TARGET)
    torch.testing.assert_close(metric.compute(), updated(name).compute())


@EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_counted_in_single(name, dtype):
    half = LOGITS.to(dtype)
    expected = updated(name, (half.float(), TARGET))
    torch.testing.assert_close(updated(name, (half, TARGET)).compute(), expected.compute())


@EACH
def test_a_module_that_is_converted_to_half_precision_counts_as_before(name):
    module = nn.ModuleList([METRICS[name]()]).to(torch.bfloat16)
    for _ in range(6):
        module[0].update(LOGITS, TARGET)
    expected = updated(name, *[(LOGITS, TARGET)] * 6)
    torch.testing.assert_close(module[0].compute(), expected.compute())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_the_same():
    collection = MetricCollection({name: cls() for name, cls in METRICS.items()}).to("cuda")
    for name, found in collection(LOGITS.cuda(), TARGET.cuda()).items():
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), updated(name).compute())


@EACH
def test_each_plots(name):
    metric = updated(name)
    with mpl.rc_context({"backend": "agg"}):
        figure, axes = metric.plot()
    assert isinstance(figure, Figure)
    assert all(isinstance(each, Axes) for each in (axes if isinstance(axes, list) else [axes]))


def test_the_plot_shows_the_value_or_those_of_several_calls():
    metric = updated("nll")
    with mpl.rc_context({"backend": "agg"}):
        _, axes = metric.plot()
        _, several = metric.plot([torch.tensor(2.0), torch.tensor(3.0)])
        assert metric.plot(ax=axes)[1] is axes
    assert axes.lines[0].get_ydata().tolist() == [float(metric.compute())]
    assert several.lines[0].get_ydata().tolist() == [2, 3]


@pytest.mark.parametrize(
    ("name", "naive_score"), [("nll", naive.negative_log_likelihood), ("brier", naive.brier)]
)
def test_gradients_of_the_mean_are_those_of_the_naive_score(name, naive_score):
    logits = LOGITS.clone().requires_grad_()
    (ours,) = torch.autograd.grad(METRICS[name]()(logits, TARGET), logits)
    (expected,) = torch.autograd.grad(naive_score(logits, TARGET), logits)
    torch.testing.assert_close(ours, expected)


@EACH
def test_no_graph_is_kept(name):
    metric, logits = METRICS[name](), LOGITS.clone().requires_grad_()
    metric.update(logits, TARGET)
    metric(logits, TARGET)
    assert not any(state.requires_grad for state in states(metric).values())
    assert METRICS[name]()(logits, TARGET).requires_grad == bool(metric.is_differentiable)


def binary(*shape):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(shape, generator=generator)
    return scores, torch.randint(2, shape, generator=generator)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shape", [(30,), (30, 1), (10, 3)])
@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_one_score_a_label_counts_as_two_classes(name, shape, form):
    scores, target = binary(*shape)
    preds = scores if form == "logits" else scores.sigmoid()
    expected = updated(name, (naive.two_classes(scores, "logits"), target.flatten())).compute()
    torch.testing.assert_close(SCORES[name](form=form)(preds, target.float()), expected)


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_the_scores_of_one_score_a_label_are_those_of_sklearn(form):
    scores, target = binary(6, 5)
    preds, p = scores if form == "logits" else scores.sigmoid(), scores.double().sigmoid().flatten()
    y = target.flatten()
    assert float(BrierScore(form)(preds, target)) == pytest.approx(brier_score_loss(y, p))
    assert float(NegativeLogLikelihood(form)(preds, target)) == pytest.approx(log_loss(y, p))


def brier_of_sklearn(target, logits):
    """Class by class, since older versions know two classes alone."""
    each = enumerate(logits.double().softmax(1).T)
    return sum(brier_score_loss(target == label, probs) for label, probs in each)


def test_the_brier_score_of_classes_is_that_of_sklearn():
    expected = brier_of_sklearn(TARGET, LOGITS)
    assert float(updated("brier").compute()) == pytest.approx(expected)


def test_the_accuracy_is_that_of_torchmetrics():
    expected = MulticlassAccuracy(4, average="micro")(LOGITS, TARGET)
    torch.testing.assert_close(updated("accuracy").compute(), expected)
    scores, target = binary(10, 3)
    ours, expected = MixedAccuracy()(scores, target), binary_accuracy(scores.sigmoid(), target)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(ours, multilabel_accuracy(scores, target, 3, average="micro"))


def shuffled(lam=0.7, size=57):
    partner = torch.randperm(size, generator=torch.Generator().manual_seed(3))
    return MixPlan("0", torch.tensor(lam, dtype=torch.float64), partner)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.7, 1.0])
def test_the_accuracy_of_a_plan_counts_both_labels(lam):
    metric = MixedAccuracy()
    metric.update(LOGITS, TARGET, shuffled(lam))
    expected = naive.mixed_accuracy(LOGITS, TARGET, shuffled(lam))
    assert float(metric.compute()) == pytest.approx(expected)


def test_a_plan_mixes_whole_samples_of_many_labels():
    logits, target = LOGITS.view(3, 19, 4).movedim(2, 1), TARGET.view(3, 19)
    plan = MixPlan("0", torch.tensor(0.7), torch.tensor([2, 0, 1]))
    rows = torch.tensor([19 * j + i for j in (2, 0, 1) for i in range(19)])
    expected = naive.mixed_accuracy(LOGITS, TARGET, MixPlan("0", plan.lam, rows))
    assert float(MixedAccuracy()(logits, target, plan)) == pytest.approx(expected)


def test_batches_that_were_mixed_and_not_are_counted_together():
    metric = MixedAccuracy()
    metric.update(LOGITS, TARGET, shuffled())
    metric.update(PERFECT[:7], TARGET[:7])
    expected = (57 * naive.mixed_accuracy(LOGITS, TARGET, shuffled()) + 7) / 64
    assert float(metric.compute()) == pytest.approx(expected)


def test_a_collection_gives_the_plan_to_the_metric_that_takes_it():
    collection = MetricCollection({"nll": NegativeLogLikelihood(), "accuracy": MixedAccuracy()})
    found = collection(LOGITS, TARGET, plan=shuffled())
    expected = naive.mixed_accuracy(LOGITS, TARGET, shuffled())
    assert float(found["accuracy"]) == pytest.approx(expected)
    torch.testing.assert_close(found["nll"], updated("nll").compute())


def mixed_batch():
    generator = torch.Generator().manual_seed(6)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.randn(57, 4, generator=generator)


def test_the_accuracy_of_a_paired_target_needs_no_plan():
    (model, x), metric = mixed_batch(), MixedAccuracy()
    with mixing(model, shuffled(), TARGET) as paired:
        logits = model(x)
        value = metric(logits, paired)
    expected = naive.mixed_accuracy(logits, TARGET, shuffled())
    assert expected != naive.accuracy(logits, TARGET)
    assert float(value) == pytest.approx(expected)
    assert float(metric.compute()) == pytest.approx(expected)


def test_a_plan_given_with_a_paired_target_does_not_mix_it_twice():
    (model, x), metric = mixed_batch(), MixedAccuracy()
    with mixing(model, shuffled(), TARGET) as paired:
        logits = model(x)
        value = metric(logits, paired, shuffled())
    expected = naive.mixed_accuracy(logits, TARGET, shuffled())
    assert float(value) == pytest.approx(expected)
    assert float(metric.compute()) == pytest.approx(expected)


def test_until_the_layer_has_run_the_accuracy_is_the_plain_one():
    (model, x), metric = mixed_batch(), MixedAccuracy()
    with mixing(model, shuffled(), TARGET) as paired:
        metric.update(LOGITS, paired)
        model(x)
    assert float(metric.compute()) == pytest.approx(naive.accuracy(LOGITS, TARGET))


class Counts(Net):
    """Logs the accuracy of its training batches, and keeps what it is made of."""

    def __init__(self):
        super().__init__()
        self.accuracy, self.seen = MixedAccuracy(), []

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.accuracy.update(logits, y)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        mixups = [c for c in self.trainer.callbacks if isinstance(c, ManifoldMixup)]
        self.seen.append((logits.detach(), mixups[0].plan if mixups else None))
        return F.cross_entropy(logits, y)


@pytest.mark.parametrize("layers", [["net.0"], ["input", "net.1"]])
def test_a_training_step_logs_the_accuracy_of_mixed_batches(layers):
    data, module = batches(4, 30), Counts()
    fit(module, ManifoldMixup(layers=layers, stop=1.0), data=data)
    rows = [
        (logits, y, plan) for (logits, plan), (_, y) in zip(module.seen[-4:], data, strict=True)
    ]
    expected = sum(naive.mixed_accuracy(*row) for row in rows) / 4
    logged = module.trainer.callback_metrics["accuracy"]
    assert float(logged) == pytest.approx(expected)
    assert expected != sum(naive.accuracy(logits, y) for logits, y, _ in rows) / 4


def test_a_training_step_without_mixing_logs_the_plain_accuracy():
    data, module = batches(4, 30), Counts()
    fit(module, data=data)
    found = [logits for logits, _ in module.seen]
    expected = naive.accuracy(torch.cat(found), torch.cat([y for _, y in data]))
    assert float(module.trainer.callback_metrics["accuracy"]) == pytest.approx(expected)


def test_a_fit_in_half_precision_counts_every_sample():
    data, module = batches(12, 30), Counts()
    fit(module, data=data, precision="bf16-true")
    found = [logits for logits, _ in module.seen]
    expected = naive.accuracy(torch.cat(found), torch.cat([y for _, y in data]))
    assert float(module.trainer.callback_metrics["accuracy"]) == pytest.approx(expected)


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("num_bins", [1, 7])
def test_the_bins_are_those_that_are_filled_by_hand(binning, num_bins):
    groups = {"width": naive.equal_width, "mass": naive.equal_mass}[binning](LOGITS, num_bins)
    found = CalibrationBins(num_bins, binning=binning)(LOGITS, TARGET)
    tolerance = 1e-5 if binning == "width" else 1.0
    torch.testing.assert_close(found, naive.bins(LOGITS, TARGET, groups), rtol=0, atol=tolerance)


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("norm", get_args(Norm))
def test_the_error_is_that_of_the_bins(norm, binning):
    bins = CalibrationBins(5, binning=binning)(LOGITS, TARGET)
    error = CalibrationError(5, norm=norm, binning=binning)(LOGITS, TARGET)
    assert float(error) == pytest.approx(naive.calibration_error(bins, norm))


@pytest.mark.parametrize("cls", [CalibrationBins, CalibrationError])
def test_what_is_no_binning_is_refused(cls):
    with pytest.raises(ValueError, match="expected num_bins ≥ 1, but got 0"):
        cls(0)
    with pytest.raises(ValueError, match=r"binning in .*'width', 'mass'.*, but got 'depth'"):
        cls(binning="depth")


def test_a_norm_that_is_none_is_refused():
    with pytest.raises(
        ValueError, match=r"norm in .*'l1', 'l2', 'debiased', 'max', 'signed'.* got 'l3'"
    ):
        CalibrationError(norm="l3")


@pytest.mark.parametrize("name", SCORES)
def test_shapes_that_do_not_fit_are_refused(name):
    with pytest.raises(ValueError, match=r"expected a target of shape \(N, ...\)"):
        SCORES[name]().update(LOGITS, TARGET[:-1])


def voided(void):
    """Labels of which every fifth is not to be scored, and where the others are."""
    target = torch.where(torch.arange(57) % 5 == 0, void, TARGET)
    return target, [i for i in range(57) if target[i] != void]


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("void", [-100, -1, 2, 255])
def test_an_ignored_label_counts_nowhere(name, void):
    target, kept = voided(void)
    metric = SCORES[name](ignore_index=void)
    for part in (slice(0, 20), slice(20, 21), slice(21, 57)):
        metric.update(LOGITS[part], target[part])
    expected = updated(name, (LOGITS[kept], TARGET[kept])).compute()
    torch.testing.assert_close(metric.compute(), expected)
    assert torch.equal(target, voided(void)[0])


@pytest.mark.parametrize("name", BINARY)
def test_an_ignored_label_of_one_score_counts_nowhere(name):
    scores, target = binary(6, 5)
    target[1:3, 2] = 255
    kept = target.flatten() != 255
    rows = naive.two_classes(scores, "logits")[kept], target.flatten()[kept]
    found = SCORES[name](ignore_index=255)(scores, target)
    torch.testing.assert_close(found, updated(name, rows).compute())


def test_the_scores_without_an_ignored_label_are_those_of_the_naive_form_and_sklearn():
    target, kept = voided(-1)
    nll, brier = (cls(ignore_index=-1)(LOGITS, target) for cls in (SCORES["nll"], SCORES["brier"]))
    rows = LOGITS[kept], TARGET[kept]
    torch.testing.assert_close(nll, naive.negative_log_likelihood(*rows))
    torch.testing.assert_close(brier, naive.brier(*rows))
    torch.testing.assert_close(nll, F.cross_entropy(LOGITS, target, ignore_index=-1))
    expected = brier_of_sklearn(*reversed(rows))
    assert float(brier) == pytest.approx(expected)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("void", [-1, 2])
def test_an_ignored_label_is_that_of_torchmetrics(norm, void):
    target, probs = voided(void)[0], LOGITS.softmax(1)
    theirs = multiclass_calibration_error(probs, target, 4, 15, norm, void)
    torch.testing.assert_close(
        CalibrationError(norm=norm, ignore_index=void)(LOGITS, target), theirs
    )
    accuracy = MulticlassAccuracy(4, average="micro", ignore_index=void)(LOGITS, target)
    torch.testing.assert_close(MixedAccuracy(ignore_index=void)(LOGITS, target), accuracy)


def test_the_accuracy_of_a_plan_counts_the_partners_that_are_not_ignored():
    target, kept = voided(-1)
    plan = shuffled()
    partners = target[plan.partner]
    hits = [LOGITS[i].argmax() == target[i] for i in kept]
    others = [LOGITS[i].argmax() == partners[i] for i in range(57) if partners[i] != -1]
    found = MixedAccuracy(ignore_index=-1)(LOGITS, target, plan)
    expected = (0.7 * sum(map(float, hits)) + 0.3 * sum(map(float, others))) / len(kept)
    assert float(found) == pytest.approx(expected)


@pytest.mark.parametrize("name", NUMBERS[: len(SCORES) - 2])
def test_nothing_but_ignored_labels_is_no_sample(name):
    assert SCORES[name](ignore_index=-1)(LOGITS, TARGET.new_full((57,), -1)).isnan()


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("void", [-100, 255])
def test_a_label_out_of_range_is_refused_by_name(name, void):
    with pytest.raises(ValueError, match=f"is not to be scored, give ignore_index={void}"):
        SCORES[name]().update(LOGITS, voided(void)[0])


@pytest.mark.parametrize("name", SCORES)
def test_nan_stays_nan_unless_it_is_ignored(name):
    logits, target = LOGITS.clone(), TARGET.clone()
    logits[3], target[3] = torch.nan, -1
    assert not SCORES[name](ignore_index=-1)(logits, target).isnan().any()
    if name in ("nll", "brier", "l1", "l2", "debiased", "signed", "smooth", "classwise"):
        assert SCORES[name]()(logits, TARGET).isnan()


@pytest.mark.parametrize("name", SCORES)
def test_labels_in_a_column_are_those_in_a_row(name):
    torch.testing.assert_close(SCORES[name]()(LOGITS, TARGET[:, None]), updated(name).compute())


@pytest.mark.parametrize("name", [*BINARY, "brier"])
def test_scores_and_labels_in_a_column_are_those_in_a_row(name):
    scores, target = binary(30)
    expected = SCORES[name]()(scores, target)
    torch.testing.assert_close(SCORES[name]()(scores[:, None], target), expected)
    torch.testing.assert_close(SCORES[name]()(scores, target[:, None]), expected)


def test_a_paired_target_is_looked_at_in_its_own_labels():
    (model, x), metric = mixed_batch(), NegativeLogLikelihood()
    with mixing(model, shuffled(), TARGET) as paired:
        logits = model(x)
        metric.update(logits, paired)
    assert float(metric.count) == 57
