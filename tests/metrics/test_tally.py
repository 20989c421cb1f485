import pickle

import naive
import pytest
import torch
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from lightning_mmix.metrics.classification import (
    BrierScore,
    CalibrationBins,
    CalibrationError,
    NegativeLogLikelihood,
)
from lightning_mmix.metrics.scores import Tally
from lightning_mmix.metrics.smooth import SmoothCalibrationError

GENERATOR = torch.Generator().manual_seed(3)
TARGET = torch.arange(23) % 4
LOGITS = torch.randn(23, 4, generator=GENERATOR) + 2 * torch.eye(4)[TARGET]
PIXELS = torch.randn(3, 2, 4, 5, generator=GENERATOR), torch.arange(60).view(3, 4, 5) % 2
DATA = {
    "multiclass logits": (LOGITS, TARGET, "logits"),
    "multiclass probabilities": (LOGITS.softmax(1), TARGET, "probabilities"),
    "binary logits": (LOGITS[:, 0], TARGET % 2, "logits"),
    "binary probabilities": (LOGITS[:, 0].sigmoid(), TARGET.float() % 2, "probabilities"),
    "segmentation": (*PIXELS, "logits"),
    "half precision": (LOGITS.bfloat16(), TARGET.int(), "logits"),
}
each = pytest.mark.parametrize("name", DATA)


def tallied(preds, target, form, num_bins=15):
    tally = Tally(num_bins, form=form)
    tally.update(preds, target)
    return tally.compute()


def accuracy_of(preds, target, form):
    if preds.shape == target.shape:
        # a tie is class 0 for us and class 1 for theirs, but there is none
        return BinaryAccuracy()(preds, target.long())
    return MulticlassAccuracy(preds.shape[1], average="micro")(preds, target)


@each
@pytest.mark.parametrize("num_bins", [1, 15])
def test_every_score_is_that_of_the_metric_for_it_alone(name, num_bins):
    preds, target, form = DATA[name]
    errors = {"ece": "l1", "mce": "max", "gap": "signed"}
    metrics = {
        "nll": NegativeLogLikelihood(form),
        "brier": BrierScore(form),
        "smece": SmoothCalibrationError(form),
        "bins": CalibrationBins(num_bins, form=form),
        **{k: CalibrationError(num_bins, norm=norm, form=form) for k, norm in errors.items()},
    }
    expected = {key: metric(preds, target) for key, metric in metrics.items()}
    expected["accuracy"] = accuracy_of(preds, target, form)
    expected["samples"] = torch.tensor(float(target.numel()))
    torch.testing.assert_close(tallied(preds, target, form, num_bins), expected)


def test_the_scores_are_those_of_the_naive_form():
    found = tallied(LOGITS, TARGET, "logits", 7)
    assert float(found["accuracy"]) == pytest.approx(naive.accuracy(LOGITS, TARGET))
    assert float(found["nll"]) == pytest.approx(
        float(naive.negative_log_likelihood(LOGITS, TARGET))
    )
    assert float(found["brier"]) == pytest.approx(float(naive.brier(LOGITS, TARGET)))
    assert float(found["ece"]) == pytest.approx(naive.ece(LOGITS, TARGET, 7), abs=1e-6)


@each
def test_parts_add_up_to_the_whole(name):
    preds, target, form = DATA[name]
    first, second = Tally(form=form), Tally(form=form)
    first.update(preds[:1], target[:1])
    for rows in (slice(1, 2), slice(2, None)):
        second.update(preds[rows], target[rows])
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), tallied(preds, target, form))


def test_a_result_stays_when_more_is_added():
    tally = Tally()
    tally.update(LOGITS[:5], TARGET[:5])
    early = tally.compute()
    tally.update(LOGITS[5:], TARGET[5:])
    torch.testing.assert_close(early, tallied(LOGITS[:5], TARGET[:5], "logits"))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_samples_all_but_their_number_is_nan():
    scores = Tally().compute()
    assert scores.pop("samples") == 0
    assert not scores.pop("bins").any()
    assert all(score.isnan() and score.dim() == 0 for score in scores.values())


def test_no_gradient_is_kept_and_what_is_pickled_goes_on():
    tally = Tally()
    tally.update(LOGITS[:5].clone().requires_grad_(), TARGET[:5])
    copied = pickle.loads(pickle.dumps(tally))
    copied.update(LOGITS[5:], TARGET[5:])
    scores = copied.compute()
    torch.testing.assert_close(scores, tallied(LOGITS, TARGET, "logits"))
    assert not any(score.requires_grad for score in scores.values())


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"but got \(22,\) and \(23, 4\)"):
        Tally().update(LOGITS, TARGET[1:])


@each
@pytest.mark.parametrize("void", [-1, 1])
def test_an_ignored_label_counts_nowhere(name, void):
    preds, target, form = DATA[name]
    target = target.clone()
    target[::3] = void
    tally, metric = Tally(form=form, ignore_index=void), BrierScore(form, ignore_index=void)
    tally.update(preds, target)
    kept = target != void
    if preds.shape != target.shape:
        rows = preds.movedim(1, -1)[kept], target[kept]
    else:
        rows = preds[kept], target[kept]
    torch.testing.assert_close(tally.compute(), tallied(*rows, form))
    torch.testing.assert_close(tally.compute()["brier"], metric(preds, target))
