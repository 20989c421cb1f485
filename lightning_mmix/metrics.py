"""The scores as torchmetrics, with states of fixed size that are summed over batches and ranks."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_mmix.scores import (
    Form,
    brier_sum,
    calibration_bins,
    expected_calibration_error,
    log_probabilities,
    nll_sum,
)


class _Mean(Metric):
    """The mean over samples of a score that comes as a sum."""

    is_differentiable = True
    higher_is_better = False
    full_state_update = False

    # a MetricCollection takes two metrics for one whose states have the same names and, after a
    # first batch of perfect predictions, the same values
    _sum_name: str
    count: Tensor

    def __init__(self, form: Form = "logits", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.form = form
        self.add_state(self._sum_name, torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean; NaN without samples."""
        total: Tensor = getattr(self, self._sum_name)
        return total / self.count


class NegativeLogLikelihood(_Mean):
    """The mean of -log p(y) over samples, in nats: 0 is best (:func:`~.scores.nll_sum`).

    Args:
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        kwargs: For :class:`torchmetrics.Metric`.

    Example:
        >>> metric = NegativeLogLikelihood(form="probabilities")
        >>> metric(torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([0, 1]))
        tensor(0.4904)
    """

    _sum_name = "nll_sum"
    nll_sum: Tensor

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions of shape (N, C, ...) and labels of shape (N, ...)."""
        self.nll_sum += nll_sum(log_probabilities(preds, self.form), target.flatten())
        self.count += target.numel()


class BrierScore(_Mean):
    """The mean of Σ_c (p_c - [y = c])² over samples, in [0, 2]: 0 is best (Brier, 1950).

    Args:
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        kwargs: For :class:`torchmetrics.Metric`.

    Example:
        >>> metric = BrierScore(form="probabilities")
        >>> metric(torch.tensor([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([0, 1]))
        tensor(0.3125)
    """

    _sum_name = "brier_sum"
    brier_sum: Tensor

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions of shape (N, C, ...) and labels of shape (N, ...)."""
        self.brier_sum += brier_sum(log_probabilities(preds, self.form), target.flatten())
        self.count += target.numel()


class CalibrationError(Metric):
    """The expected calibration error of the most likely class, in [0, 1] (Guo et al., 2017).

    The bins are of equal width and the last one holds confidence 1. Unlike a metric that keeps
    every confidence, its state is three sums a bin, so it needs the same memory for any epoch.

    Args:
        num_bins: The number of bins, ≥ 1.
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        kwargs: For :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``num_bins`` < 1.

    Example:
        >>> metric = CalibrationError(num_bins=10, form="probabilities")
        >>> metric(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
        tensor(0.4500)
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    bins: Tensor

    def __init__(self, num_bins: int = 15, *, form: Form = "logits", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_bins < 1:
            raise ValueError(f"expected num_bins ≥ 1, but got {num_bins}")
        self.num_bins = num_bins
        self.form = form
        self.add_state("bins", torch.zeros(3, num_bins), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions of shape (N, C, ...) and labels of shape (N, ...)."""
        log_probs = log_probabilities(preds, self.form)
        self.bins += calibration_bins(log_probs, target.flatten(), self.num_bins)

    def compute(self) -> Tensor:
        """The expected calibration error; NaN without samples."""
        return expected_calibration_error(self.bins)
