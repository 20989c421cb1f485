"""Columns: the scores that a network puts out, held against the labels that were seen."""

import warnings

import torch
from torch import Tensor

from lightning_mmix.metrics.samples import counted

_MANY = 4  # columns for each class that could be


class Columns:
    """Of predictions, how many columns they have, and which of them labels named.

    Features that are taken for class scores have the shape of those. They give themselves away by
    a multiple of the columns that the labels need, and by predictions that are mostly wrong; a
    network of many classes that is tested on a few of them is right.
    """

    def __init__(self) -> None:
        self._labels = 0
        self._seen: Tensor | None = None

    def update(self, preds: Tensor, target: Tensor, ignore_index: int | None = None) -> None:
        """Add predictions of shape (N, C, ...), or one score a label, and labels (N, ...)."""
        if preds.dim() == target.dim():
            return
        if self._seen is None:
            self._seen = torch.zeros(preds.shape[1], dtype=torch.bool, device=preds.device)
        labels = target if ignore_index is None else target[counted(target, ignore_index)]
        self._seen[labels.long()] = True
        self._labels += labels.numel()

    def doubt(self, accuracy: float) -> None:
        """Warn if the predictions are likely to be features, by their best accuracy."""
        if self._seen is None or not self._labels:
            return
        named = self._seen.nonzero()[:, 0]
        if len(self._seen) < _MANY * (int(named.max()) + 1) or accuracy >= 0.5:
            return
        warnings.warn(
            f"the network puts out {len(self._seen)} scores, but the {self._labels} labels are of "
            f"{len(named)} classes, the last of them {int(named.max())}, and {accuracy:.0%} of the "
            "predictions are right; if these are features, say where the class scores are: "
            "Predictor(model, output=<key, index or path>)",
            stacklevel=2,
        )
