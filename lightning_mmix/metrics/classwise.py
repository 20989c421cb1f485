"""Class-wise calibration: the probability of each class against how often it is the label."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_mmix.metrics.calibration import calibration_error, filled
from lightning_mmix.metrics.samples import Form
from lightning_mmix.metrics.summed import Scalar, Scored

ClassNorm = Literal["l1", "l2", "debiased", "max"]

_AT_ONCE = 2**20  # probabilities, so that many pixels of many classes fit into memory


def class_bins(log_probs: Tensor, target: Tensor, num_bins: int) -> Tensor:
    """Sort samples by the probability of each class into equal bins of [0, 1], the last one closed.

    Args:
        log_probs: Shape (M, C).
        target: Shape (M,), int64, in [0, C).
        num_bins: The number of bins, ≥ 1.

    Returns:
        Shape (3, C, num_bins): of each class and bin the number of samples, the sum of their
        probabilities of the class, and how many of them are of it. ``calibration_error`` of it is
        of shape (C,), an error a class; the signed one tells which classes are predicted too often.

    Example:
        >>> probs = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
        >>> bins = class_bins(probs.log(), torch.tensor([0, 0]), num_bins=2)
        >>> calibration_error(bins, "signed")
        tensor([-0.5000,  0.5000])
    """
    classes = log_probs.shape[1]
    labels = torch.arange(classes, device=target.device)
    sums = log_probs.new_zeros(3, classes * num_bins)
    size = max(1, _AT_ONCE // classes)
    for part, own in zip(torch.split(log_probs, size), torch.split(target, size), strict=True):
        probs = part.exp()
        index = (probs * num_bins).long().clamp_(0, num_bins - 1) + num_bins * labels
        rows = torch.stack([torch.ones_like(probs), probs, (own[:, None] == labels).to(probs)])
        sums = sums + filled(index.flatten(), rows.flatten(1), classes * num_bins)
    return sums.view(3, classes, num_bins)


def classwise_error(bins: Tensor, norm: ClassNorm = "l1") -> Tensor:
    """What the probabilities of classes miss their frequencies by, over all classes.

    - ``"l1"``: the mean over classes, class-wise ECE (Kull et al., 2019) or static calibration
      error (Nixon et al., 2019);
    - ``"l2"`` and ``"debiased"``: the root mean square over classes, the marginal calibration error
      of Kumar et al. (2019);
    - ``"max"``: the maximum over classes.

    Args:
        bins: Shape (3, C, num_bins), as :func:`class_bins` gives them.
        norm: Which error of each class (:func:`calibration_error`).

    Returns:
        0-d, in [0, 1]; NaN without samples.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> classwise_error(class_bins(probs.log(), torch.tensor([0, 0]), 10))
        tensor(0.4500)
    """
    errors = calibration_error(bins, norm)
    if norm == "max":
        return errors.max()
    return errors.mean() if norm == "l1" else errors.square().mean().sqrt()


class ClasswiseCalibrationError(Scalar, Scored):
    """What the probabilities of classes miss their frequencies by (Kull et al., 2019).

    The error of the most likely class is blind to the others, whose probabilities may be as wrong.
    The state is three sums a class and bin.

    Args:
        num_classes: C; 2 where there is one score a label.
        num_bins: The number of bins of [0, 1], ≥ 1.
        norm: ``"l1"``: class-wise ECE; ``"l2"``: the root mean square one; ``"debiased"``: that
            less what few samples add; ``"max"``: the maximum one (:func:`classwise_error`).
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
        kwargs: For :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is out of range, or predictions are of other classes.

    Example:
        >>> metric = ClasswiseCalibrationError(2, num_bins=10, form="probabilities")
        >>> metric(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
        tensor(0.4500)
    """

    class_bins: Tensor

    def __init__(
        self,
        num_classes: int,
        num_bins: int = 15,
        *,
        norm: ClassNorm = "l1",
        form: Form = "logits",
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(form, ignore_index, **kwargs)
        if num_classes < 2 or num_bins < 1:
            got = f"{num_classes} and {num_bins}"
            raise ValueError(f"expected num_classes ≥ 2 and num_bins ≥ 1, but got {got}")
        if norm not in get_args(ClassNorm):
            raise ValueError(f"expected norm in {get_args(ClassNorm)}, but got {norm!r}")
        self.num_classes = num_classes
        self.num_bins = num_bins
        self.norm = norm
        sums = torch.zeros(3, num_classes, num_bins)
        self.add_state("class_bins", sums, dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions of shape (N, C, ...) and labels of shape (N, ...)."""
        log_probs, labels = self._samples(preds.detach(), target)
        if log_probs.shape[1] != self.num_classes:
            raise ValueError(
                f"expected predictions of num_classes={self.num_classes} classes, but got those of "
                f"{log_probs.shape[1]}"
            )
        self.class_bins = self.class_bins + class_bins(log_probs, labels, self.num_bins)

    def compute(self) -> Tensor:
        """The error; NaN without samples."""
        return classwise_error(self.class_bins, self.norm)
