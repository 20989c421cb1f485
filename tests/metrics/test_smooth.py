import math

import naive
import pytest
import torch

from lightning_mmix.metrics.calibration import calibration_bins, calibration_error
from lightning_mmix.metrics.samples import log_probabilities
from lightning_mmix.metrics.smooth import (
    SmoothCalibrationError,
    calibration_grid,
    smooth_calibration_error,
)

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)


def gridded(logits, target):
    return calibration_grid(log_probabilities(logits.double()), target)


def smece(logits, target):
    return float(smooth_calibration_error(gridded(logits, target)))


def calibrated(samples, seed, sharpness=1.0):
    """Labels drawn from the probabilities themselves, which are then sharpened."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 4, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return sharpness * logits, target


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0, 50.0])
@pytest.mark.parametrize("bandwidth", [0.02, 0.1, 0.5, 1.0])
def test_the_error_of_a_width_is_that_of_every_sample_smoothed_by_hand(scale, bandwidth):
    expected = naive.smooth_error(scale * LOGITS, TARGET, bandwidth)
    found = smooth_calibration_error(gridded(scale * LOGITS, TARGET), bandwidth)
    assert float(found) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("target", [TARGET, LOGITS.argmax(1), LOGITS.argmin(1)])
def test_the_width_of_the_error_is_the_error_itself(scale, target):
    found = smece(scale * LOGITS, target)
    assert 0.05 < found < 1
    assert naive.smooth_error(scale * LOGITS, target, found) == pytest.approx(found, abs=2e-5)


def test_a_coarse_grid_is_reflected_at_its_ends():
    miss = torch.randn(17, generator=torch.Generator().manual_seed(2)).double()
    grid = torch.stack([torch.ones_like(miss), miss, torch.zeros_like(miss)])
    at = torch.linspace(0, 1, 17).double()
    images = [2 * i + sign * at for i in range(-2, 3) for sign in (1, -1)]
    kernel = sum(torch.exp(-(((at[:, None] - each) / 0.1) ** 2) / 2) for each in images)
    smoothed = kernel @ miss / (17 * 0.1 * math.sqrt(2 * math.pi))
    expected = torch.trapezoid(smoothed.abs(), at)
    torch.testing.assert_close(smooth_calibration_error(grid, 0.1), expected, rtol=1e-4, atol=0)


def test_sums_in_single_precision_give_the_error_to_the_digit():
    grid = calibration_grid(log_probabilities(LOGITS), TARGET)
    expected = float(smooth_calibration_error(grid.double()))
    assert float(smooth_calibration_error(grid)) == pytest.approx(expected, rel=1e-6)


# relplot 1.0.3, on f, y = confidences and hits: smECE(f, y), and smECE_sigma(f, y, 0.1)
@pytest.mark.parametrize(
    ("samples", "sharpness", "theirs", "of_width"),
    [
        (200, 1.0, 0.056490, 0.050188),
        (200, 2.0, 0.189147, 0.188892),
        (3000, 0.5, 0.165202, 0.165205),
        (3000, 1.0, 0.017846, 0.006304),
    ],
)
def test_the_error_is_that_of_its_authors(samples, sharpness, theirs, of_width):
    grid = gridded(*calibrated(samples, 3, sharpness))
    # their sums on a coarser mesh are off by some percent, and their width by a thousandth
    assert float(smooth_calibration_error(grid)) == pytest.approx(theirs, rel=0.03, abs=1e-3)
    assert float(smooth_calibration_error(grid, 0.1)) == pytest.approx(of_width, rel=0.03)


def test_one_sample_in_closed_form():
    """A mass of 0.1 at 0.9, whatever the width, as the kernel loses nothing at the ends."""
    grid = calibration_grid(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([0]))
    assert float(smooth_calibration_error(grid)) == pytest.approx(0.1)
    assert float(smooth_calibration_error(grid, 0.7)) == pytest.approx(0.1)


def test_few_samples_of_a_calibrated_network_have_less_smooth_error_than_error_over_bins():
    draws = [calibrated(200, seed) for seed in range(20)]
    smooth = [smece(*draw) for draw in draws]
    rows = [(log_probabilities(logits), target) for logits, target in draws]
    binned = [float(calibration_error(calibration_bins(*each, 15))) for each in rows]
    assert sum(binned) / 20 > 0.07
    assert sum(smooth) / 20 < 0.055
    assert all(a < b for a, b in zip(smooth, binned, strict=True))


def test_the_smooth_error_of_a_calibrated_network_vanishes_with_samples():
    assert smece(*calibrated(200_000, 3)) < 0.006


def test_the_smooth_error_of_an_over_confident_network_is_its_gap():
    logits, target = calibrated(20_000, 3, sharpness=3)
    log_probs = log_probabilities(logits)
    gap = float(calibration_error(calibration_bins(log_probs, target, 15), "signed"))
    assert smece(logits, target) == pytest.approx(gap, abs=1e-3)


def test_a_sample_counts_at_two_points_and_their_mean_is_its_confidence():
    logits = LOGITS[:1].double()
    count, confidence, correct = calibration_grid(log_probabilities(logits), LOGITS[:1].argmax(1))
    points = torch.linspace(0, 1, 4097).double()
    expected = logits.softmax(1).max()
    assert (count > 0).sum() == 2
    torch.testing.assert_close(count @ points, expected)
    torch.testing.assert_close(confidence, count * expected)
    torch.testing.assert_close(correct, count)


def test_the_grid_is_summed_from_its_parts_in_the_state():
    metric = SmoothCalibrationError()
    for part in (slice(0, 20), slice(20, 57)):
        metric.update(LOGITS[part], TARGET[part])
    whole = calibration_grid(log_probabilities(LOGITS), TARGET)
    torch.testing.assert_close(metric.grid, whole)
    assert float(metric.compute()) == pytest.approx(smece(LOGITS, TARGET), abs=1e-6)


def test_a_perfect_prediction_has_no_error_and_keeps_its_dtype():
    grid = calibration_grid(torch.eye(4).log(), torch.arange(4))
    assert grid[:, -1].tolist() == [4, 4, 4]
    assert smooth_calibration_error(grid).tolist() == 0
    assert smooth_calibration_error(grid).dtype == torch.float32


def test_a_confidence_just_above_one_counts_as_one():
    log_probs = torch.tensor([[1 + 2**-23, 0.0]]).log()  # as an average of networks may give
    grid = calibration_grid(log_probs, torch.tensor([0]))
    assert grid[:, -1].tolist() == pytest.approx([1, 1, 1])
    assert grid[0, -2] == 0


def test_without_samples_and_with_nan_the_error_is_nan():
    assert smooth_calibration_error(torch.zeros(3, 9)).isnan()
    grid = calibration_grid(torch.full((2, 3), math.nan), torch.tensor([0, 1]))
    assert smooth_calibration_error(grid).isnan()


def test_a_batch_of_millions_of_pixels_is_summed_to_the_digit():
    log_probs = torch.tensor([[0.93, 0.07]]).log().expand(2**21, 2)
    grid = calibration_grid(log_probs, torch.zeros(2**21, dtype=torch.int64))
    assert grid.sum(1).tolist() == pytest.approx([2**21, 0.93 * 2**21, 2**21], rel=1e-5)
    assert float(smooth_calibration_error(grid)) == pytest.approx(0.07, abs=1e-5)
