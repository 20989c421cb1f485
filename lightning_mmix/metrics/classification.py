"""The scores as torchmetrics, with states of fixed size that are summed over batches and ranks."""

from typing import Any, get_args

import torch
from torch import Tensor

from lightning_mmix.core.plan import MixPlan
from lightning_mmix.metrics.calibration import (
    FINE_BINS,
    Binning,
    Norm,
    bin_edges,
    calibration_bins,
    calibration_error,
    equal_mass,
    fine_bins,
)
from lightning_mmix.metrics.samples import Form, is_binary
from lightning_mmix.metrics.scores import brier_sum, correct_sum, nll_sum
from lightning_mmix.metrics.summed import Mean, Scalar, Scored
from lightning_mmix.pairing.pair import pair_of


class NegativeLogLikelihood(Mean):
    """The mean of -log p(y) over samples, in nats: 0 is best (:func:`nll_sum`).

    Like all metrics here it takes predictions of shape (N, C, ...) and labels of shape (N, ...),
    or, of two classes, one score a label.

    Args:
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
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
        rows = self._samples(preds, target)
        self.nll_sum = self.nll_sum + nll_sum(*rows)
        self.count = self.count + len(rows[1])


class BrierScore(Mean):
    """The mean of Σ_c (p_c - [y = c])² over samples, in [0, 2]: 0 is best (Brier, 1950).

    Of two classes with one score it is the mean of (p - y)², in [0, 1], as in scikit-learn.

    Args:
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
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
        rows = self._samples(preds, target)
        scale = 0.5 if is_binary(preds, target) else 1.0
        self.brier_sum = self.brier_sum + scale * brier_sum(*rows)
        self.count = self.count + len(rows[1])


class MixedAccuracy(Mean):
    """The share of correct predictions, in [0, 1], of mixed batches too: 1 is best.

    A mixed sample counts λ if the prediction is its own label, and 1 - λ if it is its partner's, as
    in the loss. Within a training step the callback's target tells; elsewhere give the plan, that
    of a box with its real λ.

    Args:
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
        kwargs: For :class:`torchmetrics.Metric`.

    Example:
        >>> metric, logits = MixedAccuracy(), torch.tensor([[9.0, 0.0], [9.0, 0.0]])
        >>> plan = MixPlan("input", torch.tensor(0.75), torch.tensor([1, 0]))
        >>> metric.update(logits, torch.tensor([0, 1]), plan)
        >>> metric.compute()
        tensor(0.5000)
    """

    is_differentiable = False
    higher_is_better = True

    _always_looks = False
    _sum_name = "correct_sum"
    correct_sum: Tensor

    def update(self, preds: Tensor, target: Tensor, plan: MixPlan | None = None) -> None:
        """Add predictions of shape (N, C, ...), labels of shape (N, ...) and what mixed them.

        Raises:
            ValueError: If the plan is one of own labels.
        """
        first, second, lam = _sides(target, plan)
        rows = self._samples(preds.detach(), first)
        total = lam * correct_sum(*rows)
        if second is not None:
            total = total + (1 - lam) * correct_sum(*self._samples(preds.detach(), second))
        self.correct_sum = self.correct_sum + total
        self.count = self.count + len(rows[1])


class CalibrationBins(Scored):
    """Confidences of the most likely class sorted into bins: what a reliability diagram shows.

    ``compute()`` gives shape (3, num_bins): of each bin the number of samples, the sum of their
    confidences, and the number of correct ones.

    Args:
        num_bins: The number of bins, ≥ 1.
        binning: ``"width"``: equal bins of [0, 1], the last one with confidence 1. ``"mass"``:
            bins of about equally many samples, put together of many fine ones.
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
        kwargs: For :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If ``num_bins`` < 1 or there is no such binning.

    Example:
        >>> metric = CalibrationBins(num_bins=2, form="probabilities")
        >>> metric(torch.tensor([[0.75, 0.25], [0.5, 0.5]]), torch.tensor([0, 1]))
        tensor([[0.0000, 2.0000],
                [0.0000, 1.2500],
                [0.0000, 1.0000]])
    """

    bins: Tensor
    fine_bins: Tensor

    def __init__(
        self,
        num_bins: int = 15,
        *,
        binning: Binning = "width",
        form: Form = "logits",
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(form, ignore_index, **kwargs)
        if num_bins < 1:
            raise ValueError(f"expected num_bins ≥ 1, but got {num_bins}")
        if binning not in get_args(Binning):
            raise ValueError(f"expected binning in {get_args(Binning)}, but got {binning!r}")
        self.num_bins = num_bins
        self.binning = binning
        if binning == "width":
            self.add_state("bins", torch.zeros(3, num_bins), dist_reduce_fx="sum")
        else:
            self.add_state("fine_bins", torch.zeros(3, FINE_BINS), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions of shape (N, C, ...) and labels of shape (N, ...)."""
        rows = self._samples(preds.detach(), target)
        if self.binning == "width":
            self.bins = self.bins + calibration_bins(*rows, self.num_bins)
        else:
            self.fine_bins = self.fine_bins + fine_bins(*rows)

    def compute(self) -> Tensor:
        """The bins."""
        return self.bins if self.binning == "width" else equal_mass(self.fine_bins, self.num_bins)

    def plot(self, val: Tensor | None = None) -> Any:
        """A reliability diagram and its axes, of these bins or of others."""
        from lightning_mmix.plots.diagrams import reliability_diagram  # noqa: PLC0415 - of the report extra

        bins = self.compute() if val is None else val
        edges = None if self.binning == "width" else bin_edges(bins)
        figure = reliability_diagram({"": bins}, edges=edges)
        return figure, figure.axes


class CalibrationError(Scalar, CalibrationBins):
    """What confidence misses accuracy by, of the most likely class (Guo et al., 2017).

    Its state is three sums a bin, rather than every confidence of an epoch.

    Args:
        num_bins: The number of bins, ≥ 1.
        norm: ``"l1"``: the expected calibration error (ECE); ``"l2"``: the root mean square one;
            ``"debiased"``: that less what few samples add; ``"max"``: the maximum one (MCE), all
            in [0, 1]. ``"signed"``: mean confidence minus accuracy, in [-1, 1], below 0 for an
            under-confident network (:func:`calibration_error`).
        binning: As in :class:`CalibrationBins`.
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
        kwargs: For :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> metric = CalibrationError(num_bins=10, form="probabilities")
        >>> metric(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
        tensor(0.4500)
    """

    def __init__(
        self,
        num_bins: int = 15,
        *,
        norm: Norm = "l1",
        binning: Binning = "width",
        form: Form = "logits",
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_bins, binning=binning, form=form, ignore_index=ignore_index, **kwargs)
        if norm not in get_args(Norm):
            raise ValueError(f"expected norm in {get_args(Norm)}, but got {norm!r}")
        self.norm = norm

    def compute(self) -> Tensor:
        """The error; NaN without samples."""
        return calibration_error(super().compute(), self.norm)


def _sides(target: Tensor, plan: MixPlan | None) -> tuple[Tensor, Tensor | None, float]:
    """Own labels, partners' labels, and the weight of the own ones."""
    if (pair := pair_of(target)) is not None:
        return pair.first, pair.second, float(pair.step.lam) if pair.step.fired else 1.0
    if plan is None:
        return target, None, 1.0
    if plan.labels == "own":
        raise ValueError(
            "labels='own' mixes each sample by its own weight and takes one label, so no accuracy "
            "of both is meant; leave the plan out"
        )
    return target, target[plan.partner.to(target.device)], float(plan.lam)
