"""Calibration: confidences sorted into bins, and what they miss by."""

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["l1", "l2", "debiased", "max", "signed"]
Binning = Literal["width", "mass"]

# of log(confidence / (1 - confidence)): steps of 1/256 from -12 to 52
FINE_BINS = 2**14
_PER_UNIT, _LEAST = 256, -12


def calibration_bins(log_probs: Tensor, target: Tensor, num_bins: int) -> Tensor:
    """Sort samples by confidence max_c p_c into equal bins of [0, 1], the last one closed.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).
        num_bins: The number of bins, ≥ 1.

    Returns:
        Shape (3, num_bins): of each bin the number of samples, the sum of their confidences and
        the number of correct ones.

    Example:
        >>> probs = torch.tensor([[0.75, 0.25], [0.4, 0.6], [0.7, 0.3]])
        >>> calibration_bins(probs.log(), torch.tensor([0, 1, 1]), num_bins=2)
        tensor([[0.0000, 3.0000],
                [0.0000, 2.0500],
                [0.0000, 2.0000]])
    """
    rows = sample_rows(log_probs, target)
    index = (rows[1] * num_bins).long().clamp_(0, num_bins - 1)
    return filled(index, rows, num_bins)


def fine_bins(log_probs: Tensor, target: Tensor) -> Tensor:
    """Sort samples into many bins that grow finer towards confidence 0 and 1.

    They are equal in the logit of the confidence, so that :func:`equal_mass` can put together bins
    of nearly equally many samples, also for a network that is sure of almost everything.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).

    Returns:
        Shape (3, 2¹⁴), as :func:`calibration_bins` gives them.

    Example:
        >>> probs = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.125, 0.875]])
        >>> fine = fine_bins(probs.log(), torch.tensor([0, 1, 0]))
        >>> fine.shape, fine[0, fine[0] > 0]
        (torch.Size([3, 16384]), tensor([2., 1.]))
    """
    confidence, label = log_probs.max(1)
    # of all other classes together, which keeps the digits that 1 - confidence would lose
    doubt = log_probs.scatter(1, label[:, None], float("-inf")).logsumexp(1)
    logit = (confidence - doubt).clamp(_LEAST, -_LEAST + FINE_BINS)
    index = ((logit - _LEAST) * _PER_UNIT).long().clamp_(0, FINE_BINS - 1)
    return filled(index, sample_rows(log_probs, target), FINE_BINS)


def equal_mass(fine: Tensor, num_bins: int) -> Tensor:
    """Put neighbouring bins together, so that each holds about the same number of samples.

    Args:
        fine: Shape (3, F), as :func:`fine_bins` gives them. A bin of them is never divided.
        num_bins: The number of bins, ≥ 1.

    Returns:
        Shape (3, num_bins), as :func:`calibration_bins` gives them.

    Example:
        >>> equal_mass(torch.tensor([[1, 2, 1, 2], [0.2, 0.8, 0.6, 1.6], [1, 1, 0, 2]]), 2)
        tensor([[3.0000, 3.0000],
                [1.0000, 2.2000],
                [2.0000, 2.0000]])
    """
    count = fine[0]
    middle = count.cumsum(0) - count / 2
    index = (middle / count.sum().clamp(min=1) * num_bins).long().clamp_(0, num_bins - 1)
    return fine.new_zeros(3, num_bins).index_add_(1, index, fine)


def calibration_error(bins: Tensor, norm: Norm = "l1") -> Tensor:
    """What confidence misses accuracy by, over calibration bins (Guo et al., 2017).

    With n_b of M samples in bin b and gap_b = confidence_b - accuracy_b:

    - ``"l1"``: Σ_b n_b/M·abs(gap_b), the expected calibration error (ECE);
    - ``"l2"``: (Σ_b n_b/M·gap_b²)^½, the root mean square one;
    - ``"debiased"``: (Σ_b n_b/M·(gap_b² - v_b))^½ over bins with n_b ≥ 2, where v_b, the accuracy
      times its complement by n_b - 1, is what chance adds to gap_b², so that the sum is that of
      endlessly many samples on average (Kumar et al., 2019); 0 where the sum is below;
    - ``"max"``: max_b abs(gap_b) over bins with samples, the maximum one (MCE);
    - ``"signed"``: Σ_b n_b/M·gap_b, mean confidence minus accuracy: above 0 is over-confident,
      below 0 under-confident.

    Args:
        bins: Shape (3, num_bins), as :func:`calibration_bins` gives them, or (3, ..., num_bins).
        norm: Which of them.

    Returns:
        0-d, or shape (...): in [0, 1], or [-1, 1] if signed; NaN without samples.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> calibration_error(calibration_bins(probs.log(), torch.tensor([0, 0]), 10))
        tensor(0.4500)
    """
    count, confidence, correct = bins
    miss, total = confidence - correct, count.sum(-1)
    gap = miss / count.clamp(min=1)
    square = gap * miss
    errors: dict[Norm, Tensor] = {
        "l1": miss.abs().sum(-1) / total,
        "l2": (square.sum(-1) / total).sqrt(),
        "debiased": (_unbiased(square, bins).sum(-1) / total).clamp(min=0).sqrt(),
        "max": gap.abs().amax(-1) + 0 / total,  # NaN without samples, as the others
        "signed": miss.sum(-1) / total,
    }
    return errors[norm]


def bin_edges(bins: Tensor) -> Tensor:
    """Edges between bins of other than equal width: halfway between their mean confidences.

    Args:
        bins: Shape (3, num_bins), as :func:`equal_mass` gives them.

    Returns:
        Shape (num_bins + 1,), from 0 to 1; a bin without samples has no width.

    Example:
        >>> bin_edges(torch.tensor([[2.0, 2.0], [1.0, 1.5], [1.0, 2.0]]))
        tensor([0.0000, 0.6250, 1.0000])
    """
    mean = (bins[1] / bins[0].clamp(min=1)).where(bins[0] > 0, 0).cummax(0).values
    ends = mean.new_tensor([0.0, 1.0])
    return torch.cat([ends[:1], (mean[1:] + mean[:-1]) / 2, ends[1:]])


def sample_rows(log_probs: Tensor, target: Tensor) -> Tensor:
    """What is summed of each sample.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).

    Returns:
        Shape (3, M): one, its confidence, and whether it is correct.
    """
    log_confidence, label = log_probs.max(1)
    confidence = log_confidence.exp()
    return torch.stack([torch.ones_like(confidence), confidence, (label == target).to(confidence)])


def filled(index: Tensor, rows: Tensor, num_bins: int) -> Tensor:
    """Add up what each bin gets.

    Args:
        index: Shape (M,), int64, in [0, num_bins).
        rows: Shape (R, M).
        num_bins: The number of bins.

    Returns:
        Shape (R, num_bins).
    """
    # one after the other, millions would not add up in single precision
    wide = rows if rows.device.type == "mps" else rows.double()
    sums = [row.new_zeros(num_bins).index_add_(0, index, row) for row in wide]
    return torch.stack(sums).to(rows.dtype)


def _unbiased(square: Tensor, bins: Tensor) -> Tensor:
    """The squares n·gap² less what they are too large by on average, of bins of two and more."""
    count, _, correct = bins
    accuracy = correct / count.clamp(min=1)
    variance = accuracy * (1 - accuracy) / (count - 1).clamp(min=1)
    unbiased: Tensor = (square - count * variance) * (count > 1)
    return unbiased
