"""Samples: predictions and labels as rows, a sample each, or a sentence that says what is wrong."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mmix.core.trees import describe
from lightning_mmix.pairing.pair import pair_of

Form = Literal["logits", "probabilities"]


def samples(
    preds: Tensor,
    target: Tensor,
    form: Form = "logits",
    ignore_index: int | None = None,
    *,
    look: bool = True,
) -> tuple[Tensor, Tensor]:
    """Predictions and labels as rows, a sample each.

    Dimensions of size 1 behind the first don't count: labels of shape (N, 1) are those of (N,).

    Args:
        preds: Shape (N, C, ...), or of two classes (N, ...): the score of class 1.
        target: Shape (N, ...), integers in [0, C); of two classes also floating point.
        form: What the scores are.
        ignore_index: The label of samples to leave out, in [0, C) or not; None leaves out none.
        look: Whether to look at the labels, for which an accelerator has to be waited for.

    Returns:
        Log-probabilities of shape (M, C), and labels of shape (M,), int64.

    Raises:
        ValueError: If shapes do not fit, or labels are no whole numbers in [0, C).
    """
    rows, labels = rows_of(preds, target, ignore_index)
    is_single = rows.dim() == 1
    if look:
        refuse_no_labels(labels, None if is_single else rows.shape[1], target, ignore_index)
    return log_probabilities(rows, form, binary=is_single), labels.long()


def rows_of(
    preds: Tensor, target: Tensor, ignore_index: int | None = None
) -> tuple[Tensor, Tensor]:
    """Scores of shape (M, C), or (M,) of two classes, as they come, and labels of shape (M,).

    Raises:
        ValueError: If shapes do not fit.
    """
    scores = fitted(preds, target)
    if scores is None:
        is_last = preds.shape[:-1] == target.shape
        raise ValueError(
            f"expected a target of shape (N, ...) and preds of shape (N, C, ...), or (N, ...) for "
            f"two classes, but got {tuple(target.shape)} and {tuple(preds.shape)}"
            + ("; with the classes last, give preds.movedim(-1, 1)" if is_last else "")
        )
    rows = _rows(scores) if scores.dim() > target.dim() else scores.flatten()
    labels = _flat(target)
    if ignore_index is None:
        return rows, labels
    kept = labels != ignore_index
    return rows[kept], labels[kept]


def fitted(preds: Tensor, target: Tensor) -> Tensor | None:
    """Predictions with the dimensions of their labels.

    Returns:
        Shape (N, C, ...) for a target of shape (N, ...), or that of the target where there is one
        score a label; None if shapes do not fit.
    """
    if is_binary(preds, target):
        return preds.reshape(target.shape)
    is_of_classes = preds.dim() > 1 and target.dim() > 0
    if is_of_classes and _squeezed(preds.shape[:1] + preds.shape[2:]) == _squeezed(target.shape):
        return preds.reshape(*preds.shape[:2], *target.shape[1:])
    return None


def classes_second(preds: Tensor, target: Tensor) -> Tensor | None:
    """Predictions of shape (N, ..., C) for a target of shape (N, ...), as (N, C, ...).

    Returns:
        A view of them; None if the shape is another one.
    """
    return preds.movedim(-1, 1) if preds.shape[:-1] == target.shape != () else None


def is_binary(preds: Tensor, target: Tensor) -> bool:
    """Whether predictions are one score a label, by their shapes: (N, ...) for both."""
    return _squeezed(preds.shape) == _squeezed(target.shape)


def counted(target: Tensor, ignore_index: int | None) -> Tensor:
    """Which labels count, as booleans shaped like the target."""
    if ignore_index is None:
        return torch.ones_like(target, dtype=torch.bool)
    return _flat(target).view(target.shape) != ignore_index


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

    Example:
        >>> log_probabilities(torch.tensor([[0.0, 0.0], [2.0, 0.0]])).exp()
        tensor([[0.5000, 0.5000],
                [0.8808, 0.1192]])
        >>> log_probabilities(torch.tensor([0.25]), "probabilities", binary=True).exp()
        tensor([[0.7500, 0.2500]])
    """
    if form not in ("logits", "probabilities"):
        raise ValueError(f"expected form 'logits' or 'probabilities', but got {form!r}")
    wide = preds.to(torch.promote_types(preds.dtype, torch.float32))
    if form == "probabilities" and ((wide < 0) | (wide > 1 + 1e-3)).any():
        raise ValueError(
            f"expected probabilities in [0, 1], but got {wide.min():.3g} to {wide.max():.3g}; "
            "if they are logits, give form='logits'"
        )
    if binary:
        score = wide.flatten()
        if form == "logits":
            return F.logsigmoid(torch.stack([-score, score], 1))
        return torch.stack([torch.log1p(-score), score.log()], 1)
    if preds.dim() < 2 or preds.shape[1] < 2:
        raise ValueError(
            f"expected preds of shape (N, C, ...) with C ≥ 2, but got {tuple(preds.shape)}; "
            "one score for two classes wants log_probabilities(preds, binary=True)"
        )
    rows = _rows(wide)
    return rows.log_softmax(-1) if form == "logits" else rows.log()


def refuse_no_labels(
    labels: Tensor, classes: int | None, target: Tensor, ignore_index: int | None = None
) -> None:
    """Refuse what is no label of so many classes.

    Args:
        labels: Any shape, those to be scored.
        classes: C; None for two classes with one score a label.
        target: What they come from, for the message.
        ignore_index: What was left out of it.

    Raises:
        ValueError: If a label is no whole number in [0, C).
    """
    pair = pair_of(labels)
    own = labels if pair is None else pair.first  # a look at both sides would be a note of a step
    is_wrong = (own < 0) | (own >= (classes or 2))
    if own.is_floating_point():
        is_wrong = is_wrong | (own != own.round())
    if not is_wrong.any():
        return
    besides = "" if ignore_index is None else f" or ignore_index={ignore_index}"
    scores = "one score a label" if classes is None else f"predictions of {classes} classes"
    raise ValueError(
        f"expected labels that are whole numbers in [0, {classes or 2}){besides}, for {scores}, "
        f"but got {describe(target)} from {_said(own.min())} to {_said(own.max())}; "
        f"{_advice(torch.unique(own[is_wrong]), target)}"
    )


def refuse_own_tokens(target: Tensor, inputs: Sequence[Tensor]) -> None:
    """Refuse labels of tokens that are an input itself, as those of a language model are.

    Args:
        target: Shape (N, T), labels; those below 0 count nowhere.
        inputs: Of the same batch.

    Raises:
        ValueError: If they are so.
    """
    kept = target >= 0
    ids = [each for each in inputs if each.shape == target.shape]
    if any(kept.any() and torch.equal(each[kept], target[kept]) for each in ids):
        raise ValueError(
            "the labels are the input's own tokens, as of a language model, which predicts the "
            "next one; put the next ones into the batch, labels.roll(-1, 1) with -100 in the last "
            "column, and give target=<their key> and ignore_index=-100"
        )


def _advice(wrong: Tensor, target: Tensor) -> str:
    """What to do about values that are no labels."""
    if wrong.is_floating_point() and not torch.equal(wrong, wrong.round()):
        if target.dim() > 1 and ((target >= 0) & (target <= 1)).all():
            return "if they are shares of classes, give target.argmax(1)"
        return "a regression has no such scores"
    most = int(wrong.max())
    wider = f"labels up to {most} need predictions of {most + 1} classes" if most > 0 else ""
    if len(wrong) > 1:
        made_one = "if they mark what is not to be scored, make them one, and give ignore_index"
        return wider or made_one
    marks = f"if {most} marks what is not to be scored, give ignore_index={most}"
    return f"{marks}, else {wider}" if wider else marks


def _said(value: Tensor) -> str:
    return f"{value.item():g}" if value.is_floating_point() else str(int(value))


def _rows(scores: Tensor) -> Tensor:
    return scores.movedim(1, -1).flatten(0, -2)


def _flat(target: Tensor) -> Tensor:
    # in eight bits 255 is not what is compared with -1
    return target.flatten() if target.is_floating_point() else target.flatten().long()


def _squeezed(shape: torch.Size) -> tuple[int, ...]:
    return (*shape[:1], *(size for size in shape[1:] if size != 1))
