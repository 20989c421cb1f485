"""Smooth calibration error: what confidence misses by at any confidence, without bins."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mmix.metrics.calibration import filled, sample_rows
from lightning_mmix.metrics.samples import Form
from lightning_mmix.metrics.summed import Scalar, Scored

STEPS = 2**12  # between the points of the grid
_HALVINGS = 30


def calibration_grid(log_probs: Tensor, target: Tensor) -> Tensor:
    """Share samples out to points from 0 to 1, each to the two that its confidence lies between.

    The nearer point gets the larger share, so that the mean over both is the confidence.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).

    Returns:
        Shape (3, 2¹² + 1): of each point the number of samples, the sum of their confidences and
        the number of correct ones.

    Example:
        >>> grid = calibration_grid(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([0]))
        >>> grid.shape, grid.sum(1)
        (torch.Size([3, 4097]), tensor([1.0000, 0.7500, 1.0000]))
    """
    rows = sample_rows(log_probs, target)
    position = rows[1] * STEPS
    left = position.long().clamp_(0, STEPS - 1)
    share = (position - left).clamp(0, 1)
    below, above = filled(left, rows * (1 - share), STEPS + 1), rows * share
    return below + filled(left + 1, above, STEPS + 1)


def smooth_calibration_error(grid: Tensor, bandwidth: float | None = None) -> Tensor:
    """The smooth expected calibration error, smECE (Błasiok & Nakkiran, 2023).

    With confidence f and correctness y of M samples, and a Gaussian K of width σ that is reflected
    at 0 and 1, smECE_σ = ∫ abs(Σ (f - y)·K(t, f)/M) dt over [0, 1]. It falls with σ, and smECE
    is where it meets it: smECE_σ = σ. Unlike the error over bins it has none to choose, moves
    little where predictions move little, and is small for few samples of a calibrated network.

    Args:
        grid: Shape (3, G + 1), sums at G + 1 equally distant points, as :func:`calibration_grid`
            gives them.
        bandwidth: σ, > 0; None for the one that is its own error.

    Returns:
        0-d, in [0, 1]; NaN without samples.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> smooth_calibration_error(calibration_grid(probs.log(), torch.tensor([0, 0])))
        tensor(0.3500)
    """
    count, confidence, correct = grid
    miss, steps = (confidence - correct) / count.sum(), len(count) - 1
    # reflected at 0 and 1 the sums are even and periodic, and a Gaussian damps their frequencies
    once = F.pad(miss, (0, steps - 1))
    waves = torch.fft.rfft(once + once.flip(0).roll(1))
    decay = -((math.pi * torch.arange(steps + 1).to(miss)) ** 2) / 2

    def error(sigma: Tensor) -> Tensor:
        smoothed = torch.fft.irfft(waves * (decay * sigma**2).exp(), n=2 * steps)
        total: Tensor = smoothed.abs().sum() / 2
        return total

    low, high = miss.new_zeros(()), miss.new_ones(())
    if bandwidth is not None:
        return error(high * bandwidth)
    for _ in range(_HALVINGS):  # without a look at values, for which a GPU would be waited for
        middle = (low + high) / 2
        is_above = error(middle) > middle
        low, high = middle.where(is_above, low), high.where(is_above, middle)
    return error((low + high) / 2)


class SmoothCalibrationError(Scalar, Scored):
    """The smooth expected calibration error, smECE, in [0, 1] (:func:`smooth_calibration_error`).

    Of a calibrated network it is nearer to 0 than the ECE where samples are few. Its state is sums
    at 4097 points, whatever the number of samples and classes.

    Args:
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
        kwargs: For :class:`torchmetrics.Metric`.

    Example:
        >>> metric = SmoothCalibrationError(form="probabilities")
        >>> metric(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
        tensor(0.3500)
    """

    grid: Tensor

    def __init__(
        self, form: Form = "logits", *, ignore_index: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(form, ignore_index, **kwargs)
        self.add_state("grid", torch.zeros(3, STEPS + 1), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions of shape (N, C, ...) and labels of shape (N, ...)."""
        self.grid = self.grid + calibration_grid(*self._samples(preds.detach(), target))

    def compute(self) -> Tensor:
        """The error; NaN without samples."""
        return smooth_calibration_error(self.grid)
