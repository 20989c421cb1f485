"""Scores of probabilistic predictions, as sums over samples that add up over batches and ranks."""

import math

from torch import Tensor

from lightning_mmix.metrics.doubts import look
from lightning_mmix.metrics.samples import Form, is_binary, samples

_COLDEST, _HOTTEST = 0.01, 100.0


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


def temperature_scaling(
    preds: Tensor, target: Tensor, form: Form = "logits", ignore_index: int | None = None
) -> Tensor:
    """The temperature T for which softmax(logits / T) has the least NLL (Guo et al., 2017).

    Fit it on validation data and divide test logits by it: T > 1 tames an over-confident network,
    T < 1 sharpens an under-confident one, and accuracy stays as it is. The NLL is convex in 1/T, so
    its derivative is bisected, which needs no learning rate and always ends at the same number.

    Args:
        preds: Shape (N, C, ...), or (N, ...) of two classes.
        target: Shape (N, ...), labels.
        form: What the predictions are; of probabilities, their logarithm is scaled.
        ignore_index: The label of samples to leave out.

    Returns:
        0-d, float64, in [0.01, 100]. The lower end stands for any smaller T, which is best where
        every prediction is correct.

    Raises:
        ValueError: If there are no samples, a prediction is NaN, or shapes do not fit.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
        >>> temperature_scaling(logits, torch.tensor([0, 0, 1, 1]))  # 4 / log(3)
        tensor(3.6410, dtype=torch.float64)
    """
    look(preds, target, form, ignore_index)
    log_probs, labels = samples(preds.detach(), target, form, ignore_index)
    if not len(labels):
        raise ValueError("expected at least one sample to fit a temperature to, but got none")
    if log_probs.isnan().any():
        raise ValueError("expected predictions to fit a temperature to, but some are NaN")
    # a probability of zero has a logarithm that can't be scaled
    scores = log_probs.double().clamp(min=-1e4)
    own = scores.gather(1, labels[:, None])[:, 0]
    low, high = math.log(1 / _HOTTEST), math.log(1 / _COLDEST)
    for _ in range(40):
        middle = (low + high) / 2
        weights = (scores * math.exp(middle)).softmax(1)
        slope = ((weights * scores).sum(1) - own).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return scores.new_tensor(math.exp(-(low + high) / 2))


def tempered(
    preds: Tensor,
    target: Tensor,
    temperature: Tensor,
    form: Form = "logits",
    ignore_index: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Predictions with a temperature applied, and their labels.

    Args:
        preds: Shape (N, C, ...), or (N, ...) of two classes.
        target: Shape (N, ...), labels.
        temperature: 0-d, > 0, as :func:`temperature_scaling` gives it.
        form: What the predictions are.
        ignore_index: The label of samples to leave out.

    Returns:
        Logits of shape (M, C), or (M,) of two classes with one score, and labels of shape (M,).
    """
    log_probs, labels = samples(preds, target, form, ignore_index)
    logits = log_probs / temperature.to(log_probs)
    return (logits[:, 1] - logits[:, 0] if is_binary(preds, target) else logits), labels
