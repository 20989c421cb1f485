"""The ground of the metrics: states that are sums, whatever the precision of the module."""

from collections.abc import Callable
from typing import Any

from torchmetrics import Metric


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
