"""Scores of probabilistic predictions, as sums over samples that add up over batches and ranks."""

from typing import Any

import torch
from torch import Tensor

from lightning_mmix.metrics.calibration import Norm, calibration_bins, calibration_error
from lightning_mmix.metrics.samples import Form, is_binary
from lightning_mmix.metrics.smooth import STEPS, calibration_grid, smooth_calibration_error
from lightning_mmix.metrics.summed import Scored

_ERRORS: dict[str, Norm] = {"ece": "l1", "mce": "max", "gap": "signed"}


def nll_sum(log_probs: Tensor, target: Tensor) -> Tensor:
    """The sum over samples of -log p(y), in nats: 0 is best.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).

    Returns:
        0-d.

    Example:
        >>> import torch
        >>> nll_sum(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([0, 1]))
        tensor(0.9808)
    """
    return -log_probs.gather(1, target[:, None]).sum()


def brier_sum(log_probs: Tensor, target: Tensor) -> Tensor:
    """The sum over samples of Σ_c (p_c - [y = c])² (Brier, 1950): in [0, 2] each, 0 is best.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).

    Returns:
        0-d.

    Example:
        >>> import torch
        >>> brier_sum(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([0, 1]))
        tensor(0.6250)
    """
    probs = log_probs.exp()
    # Σ(p - e)² = Σp² - 2p_y + 1 needs no one-hot, but cancels for a perfect prediction
    miss = probs.scatter_add(1, target[:, None], probs.new_full((len(target), 1), -1.0))
    return miss.square().sum()


def correct_sum(log_probs: Tensor, target: Tensor) -> Tensor:
    """The number of samples whose most likely class is their label.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).

    Returns:
        0-d, int64.

    Example:
        >>> import torch
        >>> correct_sum(torch.tensor([[0.6, 0.4], [0.25, 0.75]]).log(), torch.tensor([1, 1]))
        tensor(1)
    """
    return (log_probs.argmax(1) == target).sum()


class Tally(Scored):
    """Accuracy, NLL, Brier score and calibration, with one softmax and one synchronisation.

    ``compute()`` gives a dictionary of 0-d tensors: ``samples``, their number; ``accuracy``;
    ``nll`` in nats; ``brier``; ``ece``, ``mce`` and the signed ``gap`` (see
    :func:`calibration_error`); ``smece``, which has no bins (:func:`smooth_calibration_error`); and
    ``bins`` of shape (3, num_bins). All but the number are NaN without samples.

    Args:
        num_bins: The number of calibration bins, ≥ 1.
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
        kwargs: For :class:`torchmetrics.Metric`.

    Example:
        >>> tally = Tally(form="probabilities")
        >>> tally.update(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
        >>> scores = tally.compute()
        >>> scores["accuracy"], scores["gap"]
        (tensor(0.5000), tensor(0.3500))
    """

    is_differentiable = False

    bins: Tensor
    grid: Tensor
    sums: Tensor

    def __init__(
        self,
        num_bins: int = 15,
        *,
        form: Form = "logits",
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(form, ignore_index, **kwargs)
        self.num_bins = num_bins
        self.add_state("bins", torch.zeros(3, num_bins), dist_reduce_fx="sum")
        self.add_state("grid", torch.zeros(3, STEPS + 1), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(3), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions of shape (N, C, ...) and labels of shape (N, ...)."""
        rows = self._samples(preds.detach(), target)
        self.bins = self.bins + calibration_bins(*rows, self.num_bins)
        self.grid = self.grid + calibration_grid(*rows)
        brier = brier_sum(*rows) / (2 if is_binary(preds, target) else 1)
        sums = torch.stack([correct_sum(*rows).to(brier), nll_sum(*rows), brier])
        self.sums = self.sums + sums

    def compute(self) -> dict[str, Tensor]:
        """All scores."""
        count = self.bins[0].sum()
        means = dict(zip(("accuracy", "nll", "brier"), self.sums / count, strict=True))
        errors = {name: calibration_error(self.bins, norm) for name, norm in _ERRORS.items()}
        errors["smece"] = smooth_calibration_error(self.grid)
        return {"samples": count, **means, **errors, "bins": self.bins}
