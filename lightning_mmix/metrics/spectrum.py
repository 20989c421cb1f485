"""The spectrum of hidden states: how many directions the states of a class spread over."""

from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mmix.metrics.summed import Scalar

Statistic = Literal["largest", "rest", "rank"]


class Moments(NamedTuple):
    """Sums over the hidden states of each class, which add up over batches and ranks.

    Attributes:
        counts: Shape (C,): the number of samples.
        totals: Shape (C, D): the sum of their states.
        squares: Shape (C, D, D): the sum of the outer products of each with itself.

    Example:
        >>> moments = class_moments(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0]), 1)
        >>> moments.counts, moments.totals
        (tensor([2.], dtype=torch.float64), tensor([[3., 4.]], dtype=torch.float64))
    """

    counts: Tensor
    totals: Tensor
    squares: Tensor


def class_moments(hidden: Tensor, target: Tensor, num_classes: int) -> Moments:
    """The moments of hidden states, for each class.

    Args:
        hidden: Shape (N, D).
        target: Shape (N,), int64, in [0, C).
        num_classes: C.

    Returns:
        The moments, in float64: singular values are the square roots of what is summed here.

    Example:
        >>> hidden, target = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 1])
        >>> class_moments(hidden, target, num_classes=2).squares[0]
        tensor([[1., 2.],
                [2., 4.]], dtype=torch.float64)
    """
    states = hidden.double()
    one_hot = F.one_hot(target.long(), num_classes).to(states)
    squares = states.new_zeros(num_classes, states.shape[1], states.shape[1])
    for label in set(target.tolist()):
        own = states[target == label]
        squares[label] = own.T @ own
    return Moments(one_hot.sum(0), one_hot.T @ states, squares)


def singular_values(moments: Moments, *, centred: bool = True) -> Tensor:
    """The singular values of the matrix of a class's hidden states, a row a state.

    Args:
        moments: The sums over those states.
        centred: Whether the mean of the class is taken off first. Verma et al. (2019), section 5,
            show those of the states as they are.

    Returns:
        Shape (C, D), float64, descending and ≥ 0. Beyond the rank they are 0 up to about 1e-8 of
        the largest of the states as they are.

    Example:
        >>> hidden = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> singular_values(class_moments(hidden, torch.tensor([0, 0]), 1), centred=False)
        tensor([[4., 3.]], dtype=torch.float64)
    """
    counts, totals, squares = moments
    if centred:
        means = totals / counts.clamp(min=1)[:, None]
        squares = squares - totals[:, :, None] * means[:, None, :]
    values: Tensor = torch.linalg.eigvalsh(squares).flip(-1).clamp(min=0).sqrt()
    return values


def spectrum_statistic(values: Tensor, statistic: Statistic) -> Tensor:
    """A number for the spectrum of each class.

    Args:
        values: Shape (..., D): singular values, descending.
        statistic: ``"largest"`` and ``"rest"``, the largest one and the sum of all others, are
            those of Verma et al. (2019), section 5; ``"rank"`` is the :func:`effective_rank`.

    Returns:
        Shape (...).

    Example:
        >>> values = torch.tensor([[4.0, 2.0, 1.0], [5.0, 0.0, 0.0]])
        >>> [spectrum_statistic(values, each).tolist() for each in ("largest", "rest")]
        [[4.0, 5.0], [3.0, 0.0]]
    """
    if statistic == "rank":
        return effective_rank(values)
    return values[..., 0] if statistic == "largest" else values[..., 1:].sum(-1)


def effective_rank(values: Tensor) -> Tensor:
    """exp(-Σ p log p) of the normalised singular values p (Roy & Vetterli, 2007).

    Args:
        values: Shape (..., D), ≥ 0.

    Returns:
        Shape (...): in [1, D], the number of directions that count; 0 if all values are 0.

    Example:
        >>> effective_rank(torch.tensor([[2.0, 2.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
        tensor([2., 1., 0.])
    """
    total = values.sum(-1, keepdim=True)
    shares = values / total.where(total > 0, 1)
    entropy = -torch.special.xlogy(shares, shares).sum(-1)
    rank: Tensor = entropy.exp().where(total[..., 0] > 0, 0)
    return rank


class ClassSpectrum(Scalar):
    """The singular values of each class's hidden states, from streamed second moments.

    Verma et al. (2019), section 5: Manifold Mixup flattens the states of a class, down to
    D - C + 1 directions of variance where it reaches zero loss.

    Args:
        num_classes: C.
        num_features: D, of hidden states that are flattened to shape (N, D). The state takes
            8·C·D² bytes, in float64, so average a feature map over its pixels first.
        statistic: ``"values"``: shape (C, D), descending. Or the mean over the classes that have
            samples of ``"largest"``, the sum of the ``"rest"``, or the effective ``"rank"``.
        centred: Whether the mean of a class is taken off first; the paper leaves it.
        kwargs: For :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If there is no such statistic, or a hidden state has another number of features.

    Example:
        >>> metric = ClassSpectrum(1, 2, statistic="rest", centred=False)
        >>> metric(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0]))
        tensor(3., dtype=torch.float64)
    """

    higher_is_better: bool | None = None

    moment_counts: Tensor
    moment_totals: Tensor
    moment_squares: Tensor

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        *,
        statistic: Literal["values"] | Statistic = "values",
        centred: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if statistic != "values" and statistic not in get_args(Statistic):
            expected = ("values", *get_args(Statistic))
            raise ValueError(f"expected statistic in {expected}, but got {statistic!r}")
        self.num_classes = num_classes
        self.num_features = num_features
        self.statistic = statistic
        self.centred = centred
        shape = (num_classes, num_features, num_features)
        for dims, name in enumerate(Moments._fields, 1):
            state = torch.zeros(shape[:dims], dtype=torch.float64)
            self.add_state(f"moment_{name}", state, dist_reduce_fx="sum")

    def update(self, hidden: Tensor, target: Tensor) -> None:
        """Add hidden states of shape (N, ...) and labels of shape (N,)."""
        expected = (len(target), self.num_features)
        states = hidden.detach().flatten(1) if hidden.dim() > 1 else hidden
        if target.dim() != 1 or states.shape != expected:
            raise ValueError(
                f"expected labels of shape (N,) and hidden states of {self.num_features} features, "
                f"but got {tuple(target.shape)} and {tuple(hidden.shape)}"
            )
        for name, value in class_moments(states, target, self.num_classes)._asdict().items():
            setattr(self, f"moment_{name}", getattr(self, f"moment_{name}") + value)

    def compute(self) -> Tensor:
        """The singular values, 0 without samples, or their statistic, NaN then."""
        moments = Moments(self.moment_counts, self.moment_totals, self.moment_squares)
        values = singular_values(moments, centred=self.centred)
        if self.statistic == "values":
            return values
        return spectrum_statistic(values, self.statistic)[self.moment_counts > 0].mean()

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """A figure and its axes, of the values of each class or of the statistic."""
        if self.statistic != "values":
            return super().plot(val, ax)
        from lightning_mmix.plots.diagrams import spectrum  # noqa: PLC0415 - of the report extra

        figure = spectrum({"": self.compute() if val is None else val})
        return figure, figure.axes
