"""Scores of probabilistic predictions, as sums over samples that add up over batches and ranks."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["logits", "probabilities"]

_COLDEST, _HOTTEST = 0.01, 100.0


def log_probabilities(preds: Tensor, form: Form = "logits", *, binary: bool = False) -> Tensor:
    """The log-probabilities of predictions, a row a sample, in at least float32.

    Args:
        preds: Shape (N, C) or (N, C, ...): one score for each of C ≥ 2 classes. If ``binary``, any
            shape: the score of class 1.
        form: What the scores are; nothing is guessed from their values.
        binary: Whether there are two classes and one score.

    Returns:
        Shape (M, C), or (M, 2) if ``binary``; each row sums to one in probability. M counts N and
        all further dimensions.

    Raises:
        ValueError: If the shape or the form does not fit, or a probability is out of range.
    """
    if form not in ("logits", "probabilities"):
        raise ValueError(f"expected form 'logits' or 'probabilities', but got {form!r}")
    wide = preds.to(torch.promote_types(preds.dtype, torch.float32))
    if form == "probabilities" and ((wide < 0) | (wide > 1 + 1e-3)).any():
        raise ValueError(
            f"expected probabilities in [0, 1], but got {wide.min():.3g} to {wide.max():.3g}; "
            "are they logits?"
        )
    if binary:
        score = wide.flatten()
        if form == "logits":
            return F.logsigmoid(torch.stack([-score, score], 1))
        return torch.stack([torch.log1p(-score), score.log()], 1)
    if preds.dim() < 2 or preds.shape[1] < 2:
        raise ValueError(
            f"expected preds of shape (N, C, ...) with C ≥ 2, but got {tuple(preds.shape)}; "
            "one score a label has the shape of the labels"
        )
    rows = wide.movedim(1, -1).flatten(0, -2)
    return rows.log_softmax(-1) if form == "logits" else rows.log()


def is_binary(preds: Tensor, target: Tensor) -> bool:
    """Whether predictions are one score a label, by their shapes: (N, ...) for both."""
    return preds.shape == target.shape


def samples(preds: Tensor, target: Tensor, form: Form = "logits") -> tuple[Tensor, Tensor]:
    """Predictions and labels as rows, a sample each.

    Args:
        preds: Shape (N, C, ...), or of two classes (N, ...): the score of class 1.
        target: Shape (N, ...), integers in [0, C); of two classes also floating point.
        form: What the scores are.

    Returns:
        Log-probabilities of shape (M, C), and labels of shape (M,), int64.

    Raises:
        ValueError: If shapes do not fit, or labels are no whole numbers.
    """
    binary = is_binary(preds, target)
    if not binary and target.shape != preds.shape[:1] + preds.shape[2:]:
        raise ValueError(
            f"expected a target of shape (N, ...) and preds of shape (N, C, ...), or (N, ...) for "
            f"two classes, but got {tuple(target.shape)} and {tuple(preds.shape)}"
        )
    if target.is_floating_point() and not torch.equal(target, target.round()):
        raise ValueError(f"expected labels that are whole numbers, but got {target.dtype} ones")
    return log_probabilities(preds, form, binary=binary), target.flatten().long()


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


def correct_sum(log_probs: Tensor, target: Tensor) -> Tensor:
    """The number of samples whose most likely class is their label.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).

    Returns:
        0-d, int64.

    Example:
        >>> correct_sum(torch.tensor([[0.6, 0.4], [0.25, 0.75]]).log(), torch.tensor([1, 1]))
        tensor(1)
    """
    return (log_probs.argmax(1) == target).sum()


def temperature_scaling(preds: Tensor, target: Tensor, form: Form = "logits") -> Tensor:
    """The temperature T for which softmax(logits / T) has the least NLL (Guo et al., 2017).

    Fit it on validation data and divide test logits by it: T > 1 tames an over-confident network,
    T < 1 sharpens an under-confident one, and accuracy stays as it is. The NLL is convex in 1/T, so
    its derivative is bisected, which needs no learning rate and always ends at the same number.

    Args:
        preds: Shape (N, C, ...), or (N, ...) of two classes.
        target: Shape (N, ...), labels.
        form: What the predictions are; of probabilities, their logarithm is scaled.

    Returns:
        0-d, float64, in [0.01, 100]. The lower end stands for any smaller T, which is best where
        every prediction is correct.

    Raises:
        ValueError: If there are no samples, a prediction is NaN, or shapes do not fit.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
        >>> temperature_scaling(logits, torch.tensor([0, 0, 1, 1]))  # 4 / log(3)
        tensor(3.6410, dtype=torch.float64)
    """
    log_probs, labels = samples(preds.detach(), target, form)
    if not len(labels):
        raise ValueError("expected at least one sample to fit a temperature to, but got none")
    if log_probs.isnan().any():
        raise ValueError("expected numbers to fit a temperature to, but got NaN")
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
    preds: Tensor, target: Tensor, temperature: Tensor, form: Form = "logits"
) -> tuple[Tensor, Tensor]:
    """Predictions with a temperature applied, and their labels.

    Args:
        preds: Shape (N, C, ...), or (N, ...) of two classes.
        target: Shape (N, ...), labels.
        temperature: 0-d, > 0, as :func:`temperature_scaling` gives it.
        form: What the predictions are.

    Returns:
        Logits of shape (M, C), or (M,) of two classes with one score, and labels of shape (M,).
    """
    log_probs, labels = samples(preds, target, form)
    logits = log_probs / temperature.to(log_probs)
    return (logits[:, 1] - logits[:, 0] if is_binary(preds, target) else logits), labels
