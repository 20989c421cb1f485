import math

import naive
import pytest
import torch

from lightning_mmix.metrics.calibration import calibration_bins, calibration_error
from lightning_mmix.metrics.classwise import (
    _AT_ONCE,
    ClasswiseCalibrationError,
    class_bins,
    classwise_error,
)
from lightning_mmix.metrics.samples import log_probabilities

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)
LOG_PROBS = log_probabilities(LOGITS)


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_the_bins_of_each_class_are_those_that_are_filled_by_hand(num_bins):
    found = class_bins(LOG_PROBS, TARGET, num_bins)
    torch.testing.assert_close(found, naive.class_bins(LOGITS, TARGET, num_bins))


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_the_class_wise_error_is_that_of_its_formula(num_bins):
    metric = ClasswiseCalibrationError(4, num_bins)
    expected = naive.classwise_ece(LOGITS, TARGET, num_bins)
    assert float(metric(LOGITS, TARGET)) == pytest.approx(expected, abs=1e-6)


# uncertainty-calibration 0.1.4, of LOGITS.double().softmax(1): lower_bound_scaling_ce(
# probs, labels, p, debias, 15, get_equal_prob_bins, mode="marginal")
@pytest.mark.parametrize(
    ("norm", "theirs"), [("l1", 0.2214766), ("l2", 0.2720990), ("debiased", 0.1699436)]
)
def test_the_error_over_classes_is_that_of_kumar_and_others(norm, theirs):
    found = classwise_error(class_bins(LOG_PROBS, TARGET, 15), norm)
    assert float(found) == pytest.approx(theirs, abs=1e-6)


def test_the_maximum_is_that_over_all_classes():
    bins = class_bins(LOG_PROBS, TARGET, 7)
    each = [naive.calibration_error(bins[:, c], "max") for c in range(4)]
    assert float(classwise_error(bins, "max")) == pytest.approx(max(each))


@pytest.mark.parametrize("norm", ["l1", "l2", "debiased", "max", "signed"])
def test_an_error_a_class_is_that_of_its_bins(norm):
    bins = class_bins(LOG_PROBS, TARGET, 7)
    expected = [naive.calibration_error(bins[:, c], norm) for c in range(4)]
    assert calibration_error(bins, norm).tolist() == pytest.approx(expected, abs=1e-6)


def test_it_sees_a_class_that_the_most_likely_one_hides():
    """Always right, and as sure of it as it should be, but for the share of the other classes."""
    target = torch.tensor([0] * 6 + [1] * 4)
    log_probs = torch.tensor([[0.6, 0.1, 0.3]]).log().expand(10, 3)
    top = calibration_error(calibration_bins(log_probs, target, 10))
    assert float(top) == pytest.approx(0, abs=1e-6)
    found = classwise_error(class_bins(log_probs, target, 10))
    assert float(found) == pytest.approx((0 + 0.3 + 0.3) / 3)


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_one_score_a_label_is_one_of_two_classes(form):
    scores, target = LOGITS[:, 0], TARGET % 2
    preds = scores if form == "logits" else scores.sigmoid()
    expected = naive.classwise_ece(naive.two_classes(scores, "logits"), target, 15)
    found = ClasswiseCalibrationError(2, form=form)(preds, target)
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_pixels_in_several_parts_are_summed_to_the_digit():
    count = _AT_ONCE + 1
    log_probs = torch.tensor([[0.93, 0.07]]).log().expand(count, 2)
    sums = class_bins(log_probs, torch.zeros(count, dtype=torch.int64), 4).sum(2)
    expected = torch.tensor([[1, 1], [0.93, 0.07], [1, 0]]) * count
    torch.testing.assert_close(sums, expected)


def test_no_samples_fill_no_bin_and_nan_makes_the_error_nan():
    assert not class_bins(LOG_PROBS[:0], TARGET[:0], 5).any()
    assert classwise_error(torch.zeros(3, 4, 5)).isnan()
    nan = class_bins(torch.full((1, 3), math.nan), torch.tensor([0]), 5)
    for norm in ("l1", "l2", "debiased", "max"):
        assert classwise_error(nan, norm).isnan()


def test_a_perfect_prediction_has_no_error_and_keeps_its_dtype():
    bins = class_bins(torch.eye(4).log(), torch.arange(4), 5)
    for norm in ("l1", "l2", "debiased", "max"):
        assert classwise_error(bins, norm).tolist() == 0
        assert classwise_error(bins, norm).dtype == torch.float32


@pytest.mark.parametrize("args", [(1,), (4, 0)])
def test_what_are_no_classes_or_bins_is_refused(args):
    with pytest.raises(ValueError, match="expected num_classes ≥ 2 and num_bins ≥ 1, but got"):
        ClasswiseCalibrationError(*args)


def test_a_norm_that_is_none_of_classes_is_refused():
    with pytest.raises(ValueError, match=r"expected norm in .* but got 'signed'"):
        ClasswiseCalibrationError(4, norm="signed")


def test_predictions_of_other_classes_are_refused():
    with pytest.raises(ValueError, match="of num_classes=3 classes, but got those of 4"):
        ClasswiseCalibrationError(3).update(LOGITS, TARGET)
