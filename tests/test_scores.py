import naive
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_mmix.scores import (
    brier_sum,
    calibration_bins,
    expected_calibration_error,
    log_probabilities,
    nll_sum,
)

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)


def test_nll_and_brier_are_those_of_a_sample_at_a_time():
    log_probs = log_probabilities(LOGITS)
    assert float(nll_sum(log_probs, TARGET) / 57) == pytest.approx(
        float(naive.negative_log_likelihood(LOGITS, TARGET))
    )
    assert float(brier_sum(log_probs, TARGET) / 57) == pytest.approx(
        float(naive.brier(LOGITS, TARGET))
    )


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_the_calibration_error_is_that_of_bins_filled_by_hand(num_bins):
    bins = calibration_bins(log_probabilities(LOGITS), TARGET, num_bins)
    expected = float(naive.ece(LOGITS, TARGET, num_bins))
    assert float(expected_calibration_error(bins)) == pytest.approx(expected, abs=1e-6)


def test_the_calibration_error_is_torchmetrics_where_no_confidence_is_one():
    bins = calibration_bins(log_probabilities(LOGITS), TARGET, 15)
    theirs = multiclass_calibration_error(LOGITS.softmax(1), TARGET, 4, n_bins=15)
    torch.testing.assert_close(expected_calibration_error(bins), theirs)


def test_confidence_one_is_in_the_last_bin():
    bins = calibration_bins(torch.tensor([[1.0, 0.0], [0.5, 0.5]]).log(), torch.tensor([0, 1]), 2)
    assert bins.tolist() == [[0, 2], [0, 1.5], [0, 1]]


def test_a_perfect_prediction_has_brier_zero_and_the_worst_two():
    perfect = torch.eye(3).log()
    assert float(brier_sum(perfect, torch.arange(3))) == 0
    assert float(brier_sum(perfect, torch.tensor([1, 2, 0]))) == 6


def test_logits_and_probabilities_are_told_apart_by_the_caller_alone():
    probs = LOGITS.softmax(1)
    torch.testing.assert_close(log_probabilities(probs, "probabilities"), log_probabilities(LOGITS))
    assert not torch.allclose(log_probabilities(probs), log_probabilities(LOGITS))


def test_further_dimensions_are_samples():
    volume = LOGITS.view(3, 19, 4).movedim(2, 1)
    torch.testing.assert_close(log_probabilities(volume), log_probabilities(LOGITS))


def test_half_precision_is_scored_in_single():
    assert log_probabilities(LOGITS.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_predictions_without_classes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected preds of shape \(N, C, ...\) with C ≥ 2"):
        log_probabilities(torch.ones(shape))
