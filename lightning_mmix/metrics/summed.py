"""The ground of the metrics: states that are sums, of samples whose labels count."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_mmix.metrics.doubts import look
from lightning_mmix.metrics.samples import Form, samples


class SummedMetric(Metric):
    """A torchmetric of fixed-size states that are summed over batches and ranks.

    They keep their dtype when the module that holds the metric is cast to half precision, in which
    a sum would soon stand still.
    """

    full_state_update = False

    def _apply(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> "SummedMetric":
        before = {name: getattr(self, name).dtype for name in self._defaults}
        super()._apply(fn, *args, **kwargs)
        for name, dtype in before.items():
            setattr(self, name, getattr(self, name).to(dtype))
            default: Any = self._defaults[name]
            self._defaults[name] = default.to(dtype)
        return self


class Scalar(SummedMetric):
    """A metric of one number, with the plot of torchmetrics."""

    is_differentiable = False
    higher_is_better: bool | None = False

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """A figure and its axes, of the value or of those of several calls."""
        return self._plot(val, ax)


class Scored(SummedMetric):
    """A metric of predictions and labels, but for the samples of one label.

    The first samples are looked at, and doubts are said once (:func:`.doubts.look`).

    Args:
        form: Whether predictions come as ``"logits"`` or as ``"probabilities"``.
        ignore_index: The label of samples to leave out.
        kwargs: For :class:`torchmetrics.Metric`.

    Attributes:
        looked: Whether the first samples have been looked at.
    """

    # or on the CPU alone, and no step of a training waits for a look at labels on an accelerator
    _always_looks = True

    def __init__(self, form: Form, ignore_index: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.form = form
        self.ignore_index = ignore_index
        self.looked = False

    def _samples(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        is_first = not self.looked
        if is_first:
            look(preds, target, self.form, self.ignore_index)
            self.looked = preds.numel() > 0
        is_near = is_first or self._always_looks or target.device.type == "cpu"
        return samples(preds, target, self.form, self.ignore_index, look=is_near)


class Mean(Scalar, Scored):
    """The mean over samples of a score that comes as a sum."""

    is_differentiable = True

    # a MetricCollection takes two metrics for one whose states have the same names and, after a
    # first batch of perfect predictions, the same values
    _sum_name: str
    count: Tensor

    def __init__(
        self, form: Form = "logits", *, ignore_index: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(form, ignore_index, **kwargs)
        self.add_state(self._sum_name, torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean; NaN without samples."""
        total: Tensor = getattr(self, self._sum_name)
        return total / self.count
