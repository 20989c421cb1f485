"""Doubts: predictions and labels that look like something else than what they are taken for."""

import warnings

import torch
from torch import Tensor

from lightning_mmix.core.trees import describe
from lightning_mmix.metrics.samples import Form, is_binary, rows_of
from lightning_mmix.pairing.pair import pair_of


def look(preds: Tensor, target: Tensor, form: Form, ignore_index: int | None = None) -> None:
    """Say what predictions and labels look like, where it is not what they are taken for.

    Scores of several classes that are said to be logits are doubted if they lie in [0, 1] and each
    row sums to one. Labels of shape (N, C) with a score each are doubted if every row is one-hot,
    for N, C ≥ 2: a few samples with several labels may be so by chance, hence the doubt, unless
    each row of predictions sums to one, which is that of a softmax. Labels of more dimensions, as
    those of pixels, are never doubted: their second dimension need not be that of classes.

    Args:
        preds: Shape (N, C, ...), or of two classes (N, ...).
        target: Shape (N, ...).
        form: What the scores are said to be.
        ignore_index: The label of samples to leave out.

    Raises:
        ValueError: If one-hot labels have a distribution over their classes for predictions.
    """
    pair = pair_of(target)
    own = target if pair is None else pair.first
    if is_binary(preds, own):
        if _are_one_hot(own):
            _doubt_labels(preds, own)
    elif form == "logits" and _are_shares(rows_of(preds.detach(), own, ignore_index)[0]):
        warnings.warn(
            f"expected logits, but the predictions, {describe(preds)}, lie in [0, 1] and sum to "
            "one over the classes, as probabilities do; if they are, give form='probabilities', or "
            "leave the softmax out of the network",
            stacklevel=2,
        )


def likely_form(preds: Tensor, target: Tensor) -> Form:
    """Whether predictions look like logits or like probabilities.

    Args:
        preds: Shape (N, C, ...), or of two classes (N, ...).
        target: Shape (N, ...).
    """
    scores = preds.detach()
    if is_binary(scores, target):
        are_shares = bool(((scores >= 0) & (scores <= 1)).all())
    else:
        are_shares = _are_shares(rows_of(scores, target, None)[0])
    return "probabilities" if are_shares else "logits"


def are_log_probabilities(preds: Tensor, target: Tensor) -> bool:
    """Whether predictions of several classes are normalised logarithms, as log_softmax gives them.

    Args:
        preds: Shape (N, C, ...), or of two classes (N, ...), which never are.
        target: Shape (N, ...).
    """
    if is_binary(preds, target):
        return False
    return _are_shares(rows_of(preds.detach(), target, None)[0].exp())


def _doubt_labels(preds: Tensor, target: Tensor) -> None:
    rows = preds.detach().view(target.shape)
    if _are_shares(rows) or _are_shares(rows.exp()):
        raise ValueError(
            f"expected class indices of shape ({len(target)},), but got one-hot rows, "
            f"{describe(target)}, for predictions that sum to one over the classes; give "
            "target.argmax(1), or flatten both to score each entry as yes or no"
        )
    warnings.warn(
        f"every row of the labels, {describe(target)}, is one-hot, and is scored as "
        f"{target.shape[1]} answers of yes or no; if each is one class, give "
        "target.argmax(1)",
        stacklevel=3,
    )


def _are_one_hot(target: Tensor) -> bool:
    if target.dim() != 2 or min(target.shape) < 2:
        return False
    return bool(((target == 1).sum(1) == 1).all() and ((target == 0) | (target == 1)).all())


def _are_shares(rows: Tensor) -> bool:
    if not rows.numel() or rows.dim() < 2:
        return False
    # each of the shares is rounded, to three digits in half precision
    slack = 5e-3 if rows.dtype in (torch.float16, torch.bfloat16) else 1e-4
    wide = rows.double() if rows.device.type != "mps" else rows.float()
    return bool((wide >= 0).all() and ((wide.sum(1) - 1).abs() < slack).all())
