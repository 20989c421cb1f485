"""Scores of probabilistic predictions, as sums over samples that add up over batches and ranks."""

from typing import Literal

import torch
from torch import Tensor

Form = Literal["logits", "probabilities"]


def log_probabilities(preds: Tensor, form: Form = "logits") -> Tensor:
    """The log-probabilities of predictions, a row a sample, in at least float32.

    Args:
        preds: Shape (N, C) or (N, C, ...): one score for each of C ≥ 2 classes.
        form: What the scores are; nothing is guessed from their values.

    Returns:
        Shape (M, C), each row sums to one in probability; M counts N and all further dimensions.

    Raises:
        ValueError: If the shape does not fit.
    """
    if preds.dim() < 2 or preds.shape[1] < 2:
        raise ValueError(
            f"expected preds of shape (N, C, ...) with C ≥ 2, but got {tuple(preds.shape)}"
        )
    rows = preds.movedim(1, -1).flatten(0, -2)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return rows.log_softmax(-1) if form == "logits" else rows.log()


def nll_sum(log_probs: Tensor, target: Tensor) -> Tensor:
    """The sum over samples of -log p(y), in nats: 0 is best.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).

    Returns:
        0-d.

    Example:
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
        >>> brier_sum(torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log(), torch.tensor([0, 1]))
        tensor(0.6250)
    """
    probs = log_probs.exp()
    # Σ(p - e)² = Σp² - 2p_y + 1 needs no one-hot, but cancels for a perfect prediction
    miss = probs.scatter_add(1, target[:, None], probs.new_full((len(target), 1), -1.0))
    return miss.square().sum()


def calibration_bins(log_probs: Tensor, target: Tensor, num_bins: int) -> Tensor:
    """Sort samples by confidence max_c p_c into equal bins of [0, 1], the last one closed.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).
        num_bins: The number of bins, ≥ 1.

    Returns:
        Shape (3, num_bins): of each bin the number of samples, the sum of their confidences and
        the number of correct ones.
    """
    confidence, label = log_probs.exp().max(1)
    index = (confidence * num_bins).long().clamp_(0, num_bins - 1)
    rows = torch.stack([torch.ones_like(confidence), confidence, (label == target).to(confidence)])
    return rows.new_zeros(3, num_bins).index_add_(1, index, rows)


def expected_calibration_error(bins: Tensor) -> Tensor:
    """Σ_b (n_b / M)·|accuracy_b - confidence_b| over calibration bins (Guo et al., 2017).

    Args:
        bins: Shape (3, num_bins), as :func:`calibration_bins` gives them.

    Returns:
        0-d, in [0, 1]; NaN without samples.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> expected_calibration_error(calibration_bins(probs.log(), torch.tensor([0, 0]), 10))
        tensor(0.4500)
    """
    count, confidence, correct = bins
    error: Tensor = (correct - confidence).abs().sum() / count.sum()
    return error
