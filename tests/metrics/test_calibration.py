import math
from typing import get_args

import naive
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_mmix.metrics.calibration import (
    Norm,
    bin_edges,
    calibration_bins,
    calibration_error,
    equal_mass,
    fine_bins,
)
from lightning_mmix.metrics.samples import log_probabilities

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)
NORMS = get_args(Norm)
# gaps of -0.4, 0.9 and none
BINS = torch.tensor([[3, 1, 0], [1.8, 0.9, 0], [3, 0, 0]])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("num_bins", [1, 7, 15, 400])
def test_the_calibration_error_is_that_of_bins_filled_by_hand(num_bins, norm):
    expected = naive.bins(LOGITS, TARGET, naive.equal_width(LOGITS, num_bins))
    bins = calibration_bins(log_probabilities(LOGITS), TARGET, num_bins)
    torch.testing.assert_close(bins, expected)
    found = float(calibration_error(bins, norm))
    assert found == pytest.approx(naive.calibration_error(expected, norm), abs=1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_the_calibration_error_is_torchmetrics_where_no_confidence_is_one(num_bins, norm):
    bins = calibration_bins(log_probabilities(LOGITS), TARGET, num_bins)
    theirs = multiclass_calibration_error(LOGITS.softmax(1), TARGET, 4, num_bins, norm)
    torch.testing.assert_close(calibration_error(bins, norm), theirs)


def test_confidence_one_is_in_the_last_bin():
    log_probs, target = torch.tensor([[1.0, 0.0], [0.5, 0.5]]).log(), torch.tensor([0, 1])
    assert calibration_bins(log_probs, target, 2).tolist() == [[0, 2], [0, 1.5], [0, 1]]
    assert fine_bins(log_probs, target)[:, -1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("l1", 0.75 * 0.4 + 0.25 * 0.9),
        ("l2", math.sqrt(0.75 * 0.4**2 + 0.25 * 0.9**2)),
        # a bin of three that are all right has no variance, and one of one sample does not count
        ("debiased", math.sqrt(0.75 * 0.4**2)),
        ("max", 0.9),
        ("signed", 0.75 * -0.4 + 0.25 * 0.9),
    ],
)
def test_the_calibration_error_in_closed_form(norm, expected):
    assert float(calibration_error(BINS, norm)) == pytest.approx(expected)
    assert float(calibration_error(BINS.double(), norm)) == pytest.approx(expected, rel=1e-6)


# uncertainty-calibration 0.1.4: lower_bound_scaling_ce(LOGITS.double().softmax(1), TARGET, p,
# debias, 15, get_equal_prob_bins, mode="top-label")
@pytest.mark.parametrize(
    ("norm", "theirs"), [("l1", 0.3687155), ("l2", 0.4003967), ("debiased", 0.3326107)]
)
def test_the_error_is_that_of_kumar_and_others(norm, theirs):
    bins = calibration_bins(log_probabilities(LOGITS), TARGET, 15)
    assert float(calibration_error(bins, norm)) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.9, 1.0])
def test_the_square_of_the_debiased_error_is_right_on_average(accuracy):
    """Over all numbers of correct ones in a bin of five that are sure to be right."""
    total = 0.0
    for k in range(6):
        chance = math.comb(5, k) * accuracy**k * (1 - accuracy) ** (5 - k)
        bins = torch.tensor([[5.0], [5.0], [k]]).double()
        total += chance * float(calibration_error(bins, "debiased")) ** 2
    assert total == pytest.approx((1 - accuracy) ** 2)


def test_the_debiased_error_of_a_calibrated_network_is_the_least_with_few_samples():
    generator, found = torch.Generator().manual_seed(5), {"l1": 0.0, "l2": 0.0, "debiased": 0.0}
    for _ in range(20):
        log_probs = log_probabilities(2 * torch.randn(200, 4, generator=generator))
        target = torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]
        bins = calibration_bins(log_probs, target, 15)
        for norm in found:
            found[norm] += float(calibration_error(bins, norm)) / 20
    assert found["l2"] > found["l1"] > 0.06
    assert found["debiased"] < 0.035


def test_a_bin_of_one_sample_tells_nothing_debiased():
    bins = torch.tensor([[1.0, 2], [0.9, 1.9], [0, 2]])
    expected = math.sqrt(2 / 3) * 0.05
    assert float(calibration_error(bins, "debiased")) == pytest.approx(expected)


@pytest.mark.parametrize("norm", NORMS)
def test_a_perfect_prediction_has_no_error_and_keeps_its_dtype(norm):
    bins = calibration_bins(torch.eye(4).log(), torch.arange(4), 5)
    assert calibration_error(bins, norm).tolist() == 0
    assert calibration_error(bins, norm).dtype == torch.float32


@pytest.mark.parametrize("norm", NORMS)
def test_without_samples_the_error_is_nan(norm):
    assert calibration_error(torch.zeros(3, 5), norm).isnan()


@pytest.mark.parametrize("scale", [0.0, 1.0, 9.0])
def test_the_signed_gap_is_confidence_less_accuracy_for_any_binning(scale):
    logits = scale * LOGITS
    log_probs = log_probabilities(logits)
    expected = float(logits.softmax(1).max(1).values.mean()) - naive.accuracy(logits, TARGET)
    binnings = [calibration_bins(log_probs, TARGET, n) for n in (1, 7, 60)]
    binnings += [equal_mass(fine_bins(log_probs, TARGET), n) for n in (1, 7, 60)]
    for bins in binnings:
        assert float(calibration_error(bins, "signed")) == pytest.approx(expected, abs=1e-6)


def test_the_signed_gap_of_an_under_confident_network_is_negative():
    probs = torch.tensor([[0.4, 0.3, 0.3], [0.2, 0.2, 0.6]])
    bins = calibration_bins(probs.log(), torch.tensor([0, 2]), 10)
    assert float(calibration_error(bins, "signed")) == pytest.approx(-0.5)
    assert float(calibration_error(bins, "l1")) == pytest.approx(0.5)


def many(scale):
    """Correct for about half of them, whatever the scale."""
    generator = torch.Generator().manual_seed(4)
    logits, target = torch.randn(2000, 6, generator=generator), torch.arange(2000) % 6
    return scale * (logits + torch.eye(6)[target]), target


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0, 20.0])
def test_bins_of_equal_mass_are_about_those_of_sorted_samples(scale, norm):
    logits, target = many(scale)
    expected = naive.bins(logits, target, naive.equal_mass(logits, 8))
    bins = equal_mass(fine_bins(log_probabilities(logits), target), 8)
    found = float(calibration_error(bins, norm))
    assert found == pytest.approx(naive.calibration_error(expected, norm), abs=0.02)


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_bins_of_equal_mass_hold_about_the_same_number(scale):
    logits, target = many(scale)
    counts = equal_mass(fine_bins(log_probabilities(logits), target), 8)[0]
    assert counts.tolist() == pytest.approx([250] * 8, rel=0.05)


def test_bins_of_equal_mass_are_filled_by_an_under_confident_network_of_many_classes():
    generator = torch.Generator().manual_seed(4)
    log_probs = log_probabilities(0.1 * torch.randn(2000, 100, generator=generator))
    counts = equal_mass(fine_bins(log_probs, torch.arange(2000) % 100), 8)[0]
    assert counts.min() > 100
    assert counts.max() < 500


@pytest.mark.parametrize("num_bins", [1, 8, 5000])
def test_bins_of_equal_mass_lose_nothing_and_go_up(num_bins):
    logits, target = many(5.0)
    log_probs = log_probabilities(logits)
    bins = equal_mass(fine_bins(log_probs, target), num_bins)
    torch.testing.assert_close(bins.sum(1), calibration_bins(log_probs, target, 1)[:, 0])
    assert bins[0].sum() == 2000
    filled = bins[:, bins[0] > 0]
    assert ((filled[1] / filled[0]).diff() > -1e-6).all()


def test_a_fine_bin_is_a_256th_of_the_logit_of_confidence_wide():
    logits, target = (part.double() for part in many(3.0))
    count, confidence, _ = fine_bins(log_probabilities(logits), target)
    index = count.nonzero()[:, 0]
    steps = ((confidence / count)[index].logit() + 12) * 256
    assert len(index) > 500
    assert (steps - index).min() > -1e-6
    assert (steps - index).max() < 1 + 1e-6


def test_edges_lie_between_bins_and_one_without_samples_has_no_width():
    bins = torch.tensor([[2.0, 0, 1], [0.8, 0, 0.6], [1, 0, 1]])
    torch.testing.assert_close(bin_edges(bins), torch.tensor([0, 0.4, 0.5, 1]))


def test_no_samples_fill_no_bin():
    fine = fine_bins(log_probabilities(LOGITS[:0]), TARGET[:0])
    assert not equal_mass(fine, 5).any()
    assert not calibration_bins(log_probabilities(LOGITS[:0]), TARGET[:0], 5).any()


@pytest.mark.parametrize("binned", [fine_bins, lambda *rows: calibration_bins(*rows, 5)])
def test_a_confidence_just_above_one_counts_as_one(binned):
    log_probs = torch.tensor([[1 + 2**-23, 0.0]]).log()  # as an average of networks may give
    assert binned(log_probs, torch.tensor([0]))[:, -1].tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("binned", [fine_bins, lambda *rows: calibration_bins(*rows, 5)])
def test_a_prediction_that_is_nan_makes_the_error_nan(binned):
    bins = binned(torch.full((2, 3), math.nan), torch.tensor([0, 1]))
    assert calibration_error(equal_mass(bins, 5)).isnan()


@pytest.mark.parametrize("binned", [fine_bins, lambda *rows: calibration_bins(*rows, 5)])
def test_a_batch_of_millions_of_pixels_is_summed_to_the_digit(binned):
    count = 2**21
    log_probs = torch.tensor([[0.93, 0.07]]).log().expand(count, 2)
    sums = binned(log_probs, torch.zeros(count, dtype=torch.int64)).sum(1)
    assert sums.tolist() == pytest.approx([count, 0.93 * count, count], rel=1e-5)
