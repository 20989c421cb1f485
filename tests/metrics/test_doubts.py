"""What looks like something else than what it is taken for is said so once, and nothing else is."""

import pytest
import torch
import torch.nn.functional as F

from lightning_mmix.metrics.classification import (
    BrierScore,
    CalibrationBins,
    CalibrationError,
    MixedAccuracy,
    NegativeLogLikelihood,
)
from lightning_mmix.metrics.doubts import look
from lightning_mmix.metrics.scores import Tally
from lightning_mmix.metrics.smooth import SmoothCalibrationError

LOGITS, TARGET = (
    torch.randn(7, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(7) % 4,
)
ONE_HOT = F.one_hot(TARGET, 4)
METRICS = [
    BrierScore,
    CalibrationBins,
    CalibrationError,
    MixedAccuracy,
    NegativeLogLikelihood,
    SmoothCalibrationError,
    Tally,
]
each = pytest.mark.parametrize("cls", METRICS)
SHARES = (
    "expected logits, but the predictions, {}, lie in [0, 1] and sum to one over the classes, as "
    "probabilities do; if they are, give form='probabilities', or leave the softmax out of the "
    "network"
)
YES_OR_NO = (
    "every row of the labels, {}, is one-hot, and is scored as 4 answers of yes or no; if each "
    "is one class, give target.argmax(1)"
)


def warned(action):
    with pytest.warns(UserWarning, match="class") as caught:
        action()
    return [str(warning.message) for warning in caught]


@each
def test_probabilities_that_are_called_logits_are_doubted_once(cls):
    metric, probs = cls(), LOGITS.softmax(1)
    assert warned(lambda: metric.update(probs, TARGET)) == [SHARES.format("float32 (7, 4)")]
    metric.update(probs, TARGET)
    metric.reset()
    metric.update(probs, TARGET)


@each
def test_one_hot_labels_of_logits_are_doubted_once(cls):
    metric = cls()
    assert warned(lambda: metric.update(LOGITS, ONE_HOT)) == [YES_OR_NO.format("int64 (7, 4)")]
    metric.update(LOGITS, ONE_HOT)


@each
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_one_hot_labels_of_a_softmax_are_refused(cls, dtype):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        cls(form="probabilities").update(LOGITS.softmax(1), ONE_HOT.to(dtype))
    assert str(error.value) == (
        f"expected class indices of shape (7,), but got one-hot rows, {str(dtype)[6:]} (7, 4), for "
        "predictions that sum to one over the classes; give target.argmax(1), or flatten both to "
        "score each entry as yes or no"
    )


def test_what_the_refusal_proposes_is_scored():
    probs = LOGITS.softmax(1)
    flat = NegativeLogLikelihood("probabilities")(probs.flatten(), ONE_HOT.flatten())
    torch.testing.assert_close(flat, F.binary_cross_entropy(probs, ONE_HOT.float()))
    found = NegativeLogLikelihood("probabilities")(probs, ONE_HOT.argmax(1))
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, TARGET))


def test_a_log_softmax_with_one_hot_labels_is_refused_too():
    with pytest.raises(ValueError, match="expected class indices"):
        look(LOGITS.log_softmax(1), ONE_HOT, "logits")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_probabilities_are_told_in_any_precision(dtype):
    assert warned(lambda: look(LOGITS.softmax(1).to(dtype), TARGET, "logits"))


def test_probabilities_of_pixels_are_told_where_labels_count():
    probs = LOGITS[:6].view(2, 3, 4).movedim(2, 1).softmax(1)
    target = torch.tensor([[0, 1, -1], [2, 3, 0]])
    probs[0, :, 2] = 9
    assert warned(lambda: look(probs, target, "logits", -1))


@pytest.mark.parametrize(
    ("preds", "target", "form"),
    [
        (LOGITS, TARGET, "logits"),
        (LOGITS.sigmoid(), TARGET, "logits"),
        (LOGITS.log_softmax(1), TARGET, "logits"),
        (LOGITS.softmax(1), TARGET, "probabilities"),
        (LOGITS.softmax(1)[:0], TARGET[:0], "logits"),
        (torch.full((7, 4), torch.nan), TARGET, "logits"),
        (LOGITS[:, 0].sigmoid(), TARGET % 2, "logits"),
        (LOGITS, ONE_HOT.roll(1, 0) | ONE_HOT, "logits"),
        (LOGITS, 1 - ONE_HOT, "logits"),
        (LOGITS[:1], ONE_HOT[:1], "logits"),
        (LOGITS[:, :1], ONE_HOT[:, :1], "logits"),
        (LOGITS[None].expand(2, 7, 4), ONE_HOT[None].expand(2, 7, 4), "logits"),
        (LOGITS.sigmoid(), 1 - ONE_HOT, "probabilities"),
    ],
)
def test_what_it_is_taken_for_is_not_doubted(preds, target, form):
    look(preds, target, form)
