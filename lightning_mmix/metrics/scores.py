"""Scores of probabilistic predictions, as sums over samples that add up over batches and ranks."""

from torch import Tensor


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
