"""Temperature: one number that the logits of a network are divided by, fitted on held-out data."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mmix.metrics.calibration import calibration_bins, calibration_error
from lightning_mmix.metrics.doubts import look
from lightning_mmix.metrics.samples import Form, is_binary, samples
from lightning_mmix.metrics.scores import nll_sum

Total = Callable[[Tensor], Tensor]  # the sum of a tensor over all processes, on each

_COLDEST, _HOTTEST = 0.01, 100.0
_BINS = 15
_MOST = 2**26  # numbers that a process keeps: 256 MiB
_AT_ONCE = 2**20  # numbers


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
        ValueError: If there are no samples, a prediction is NaN, shapes do not fit, or a label is
            none of the C classes, nor of two where there is one score a label.

    Example:
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
    return log_probs.double().new_tensor(_bisected(log_probs, labels, _of_one))


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

    Example:
        >>> sure = torch.tensor([[4.0, 0.0]])
        >>> logits, labels = tempered(sure, torch.tensor([1]), torch.tensor(2.0))
        >>> logits.softmax(1), sure.softmax(1)
        (tensor([[0.8808, 0.1192]]), tensor([[0.9820, 0.0180]]))
    """
    log_probs, labels = samples(preds, target, form, ignore_index)
    logits = log_probs / temperature.to(log_probs)
    return (logits[:, 1] - logits[:, 0] if is_binary(preds, target) else logits), labels


@dataclass(frozen=True)
class Temperature:
    """A temperature, and what it does to the data that it was fitted on.

    Attributes:
        T: As :func:`temperature_scaling` gives it.
        samples: On how many samples it was fitted.
        nll: Their NLL in nats, as trained.
        ece: Their expected calibration error, of 15 bins, as trained.
        nll_at_T: Their NLL with logits divided by T.
        ece_at_T: Their calibration error then.

    Example:
        >>> fitted = Temperature(1.8, samples=500, nll=0.41, ece=0.07, nll_at_T=0.35, ece_at_T=0.02)
        >>> fitted.is_unbounded, fitted.left_out().T
        (False, 1.0)
    """

    T: float
    samples: int
    nll: float
    ece: float
    nll_at_T: float  # noqa: N815 - the letter of the paper
    ece_at_T: float  # noqa: N815

    @property
    def is_unbounded(self) -> bool:
        """Whether a lower T would fit ever better, as where every prediction is right."""
        return self.T < 1.01 * _COLDEST

    @property
    def is_highest(self) -> bool:
        """Whether a higher T would fit ever better, as where predictions tell nothing of labels."""
        return self.T > 0.99 * _HOTTEST

    def left_out(self) -> "Temperature":
        """The same data with T = 1."""
        return Temperature(1.0, self.samples, self.nll, self.ece, self.nll, self.ece)


class Kept:
    """Predictions of many batches, kept on the CPU to fit a temperature to.

    Of more than ``most`` numbers every second sample is kept, of twice as many every fourth, and so
    on: of the pixels of a segmentation a part will do.

    Args:
        form: What the predictions are.
        ignore_index: The label of samples to leave out.
        most: How many numbers a process keeps at most, but for those of one batch.
    """

    def __init__(
        self, form: Form = "logits", ignore_index: int | None = None, most: int = _MOST
    ) -> None:
        self._taken = form, ignore_index
        self._most = most
        self._rows: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._every = 1
        self._seen = 0

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add predictions of shape (N, C, ...), or (N, ...), and labels of shape (N, ...).

        Raises:
            ValueError: If they are no predictions and labels of a classifier.
        """
        rows, labels = samples(preds.detach(), target, *self._taken)
        first = -self._seen % self._every
        self._seen += len(labels)
        self._rows.append(rows[first :: self._every].to("cpu", copy=True))
        self._labels.append(labels[first :: self._every].to("cpu", copy=True))
        while len(self._rows) > 1 and sum(each.numel() for each in self._rows) > self._most:
            self._rows = [torch.cat(self._rows)[::2].clone()]
            self._labels = [torch.cat(self._labels)[::2].clone()]
            self._every *= 2

    def fit(self, total: Total | None = None) -> Temperature | None:
        """The temperature that fits all predictions.

        Args:
            total: Gives the sum of a tensor over all processes, which then have to call this
                together, also one without samples; None for a process alone.

        Returns:
            The same in each process; None if there are no samples, or a prediction is NaN.
        """
        total = total or _of_one
        log_probs = torch.cat(self._rows) if self._rows else torch.zeros(0, 2)
        labels = torch.cat(self._labels) if self._rows else torch.zeros(0, dtype=torch.long)
        count, undefined = total(_pair(len(labels), int(log_probs.isnan().sum()))).tolist()
        if not count or undefined:
            return None
        best = _bisected(log_probs, labels, total)
        before, after = (_scores(log_probs, labels, each, total) for each in (1.0, best))
        return Temperature(best, int(count), *before, *after)


def _bisected(log_probs: Tensor, labels: Tensor, total: Total) -> float:
    low, high = math.log(1 / _HOTTEST), math.log(1 / _COLDEST)
    for _ in range(40):
        middle = (low + high) / 2
        slope = total(_slope(log_probs, labels, math.exp(middle)))
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def _slope(log_probs: Tensor, labels: Tensor, cold: float) -> Tensor:
    """The derivative of the NLL by 1/T at 1/T = ``cold``, a sum over samples."""
    slope = log_probs.new_zeros((), dtype=torch.float64)
    for part, own_labels in _parts(log_probs, labels):
        # a probability of zero has a logarithm that can't be scaled
        scores = part.double().clamp(min=-1e4)
        own = scores.gather(1, own_labels[:, None])[:, 0]
        slope = slope + (((scores * cold).softmax(1) * scores).sum(1) - own).sum()
    return slope


def _scores(log_probs: Tensor, labels: Tensor, temperature: float, total: Total) -> list[float]:
    """NLL and ECE at a temperature."""
    sums = torch.zeros(1 + 3 * _BINS, dtype=torch.float64)
    for part, own_labels in _parts(log_probs, labels):
        rows = part if temperature == 1 else (part.clamp(min=-1e4) / temperature).log_softmax(1)
        bins = calibration_bins(rows, own_labels, _BINS)
        sums = sums + torch.cat([nll_sum(rows, own_labels)[None], bins.flatten()])
    summed = total(sums)
    bins = summed[1:].view(3, _BINS)
    return [float(summed[0] / bins[0].sum()), float(calibration_error(bins))]


def _parts(log_probs: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, _AT_ONCE // log_probs.shape[1])
    return zip(torch.split(log_probs, size), torch.split(labels, size), strict=True)


def _pair(one: int, other: int) -> Tensor:
    return torch.tensor([one, other], dtype=torch.float64)


def _of_one(values: Tensor) -> Tensor:
    return values
