"""Hidden states: what layers put out while a classifier predicts, and their spectra."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmix.core.layers import named_layers, select
from lightning_mmix.core.trees import tensors
from lightning_mmix.evaluation.predictions import Predictor, device_of
from lightning_mmix.metrics.samples import counted
from lightning_mmix.metrics.spectrum import ClassSpectrum


@contextmanager
def recorded(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Keep what layers put out, a vector a sample, while the context lasts.

    Args:
        model: Any module; compiled code that was traced before sees no such hook.
        layers: Names or globs.

    Yields:
        Layer → its last hidden states of shape (B, D): the mean over the pixels of feature maps of
        shape (B, D, H, W), and over the tokens of sequences of shape (B, T, D).

    Raises:
        ValueError: If there is no such layer.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        >>> with recorded(model, ["1"]) as states:
        ...     _ = model(torch.randn(4, 3, 6, 6))
        >>> states["1"].shape
        torch.Size([4, 8])
    """
    states: dict[str, Tensor] = {}
    modules = named_layers(model)

    def keep(name: str, module: nn.Module, _args: Any, output: Any) -> None:
        for hidden in islice(filter(Tensor.is_floating_point, tensors(output)), 1):
            states[name] = _vectors(module, hidden.detach())

    names = select(model, layers) if layers else {}
    handles = [modules[name].register_forward_hook(partial(keep, name)) for name in names]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


class Spectra:
    """The spectra of a classifier's layers, batch by batch.

    Args:
        predictor: Whose forward pass is looked at.
        layers: Names or globs; none is fine.
        most: Leave a layer out whose sums, C·D² numbers, would be more than this.

    Attributes:
        predictor: The same.
        layers: The names of the layers.

    Example:
        >>> spectra = Spectra(Predictor(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))), ["0"])
        >>> preds, target = spectra.update((torch.randn(6, 4), torch.arange(6) % 2))
        >>> spectra.compute()["0"].shape
        torch.Size([2, 3])
    """

    def __init__(
        self, predictor: Predictor, layers: Sequence[str], *, most: int = sys.maxsize
    ) -> None:
        self.predictor = predictor
        self.layers = list(select(predictor.model, layers)) if layers else []
        self._most = most
        self._metrics: dict[str, ClassSpectrum] = {}

    def update(self, batch: Any, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Run the classifier on a batch, and add what its layers put out.

        Args:
            batch: What the data loader yields, with labels of shape (B,) if there are layers.
            count: How many of its first samples count; None for all.

        Returns:
            Predictions and labels of those samples.

        Raises:
            ValueError: If a layer did not run, or its states are not one a sample.
        """
        with recorded(self.predictor.model, self.layers) as states:
            preds = self.predictor(batch)[:count]
        target = self.predictor.target(batch)[:count]
        kept = counted(target, self.predictor.ignore_index)
        for name in self.layers:
            _refuse_unfit(name, states.get(name), self.predictor.target(batch))
            classes, features = preds.shape[1] if preds.dim() > 1 else 2, states[name].shape[1]
            if classes * features**2 > self._most:
                continue
            if name not in self._metrics:
                self._metrics[name] = ClassSpectrum(classes, features).to(preds.device)
            self._metrics[name].update(states[name][:count][kept], target[kept].long())
        return preds, target

    def compute(self, largest: Callable[[Tensor], Tensor] = Tensor.clone) -> dict[str, Tensor]:
        """The centred singular values of each layer, of shape (C, D).

        Args:
            largest: Takes a tensor to the largest of all processes, element by element: one without
                a batch does not know how many classes and features there are.
        """
        own = [self._metrics.get(name) for name in self.layers]
        sizes = [(0, 0) if m is None else (m.num_classes, m.num_features) for m in own]
        agreed = largest(torch.tensor(sizes, device=device_of(self.predictor.model)))
        found = {}
        for name, metric, size in zip(self.layers, own, agreed.tolist(), strict=True):
            if any(size):
                found[name] = _values(metric or ClassSpectrum(*size).to(agreed.device))
        return found


def _vectors(module: nn.Module, hidden: Tensor) -> Tensor:
    if isinstance(module, nn.RNNBase) and not module.batch_first and hidden.dim() == 3:
        hidden = hidden.transpose(0, 1)
    rest = range(2, hidden.dim()) if hidden.dim() > 3 else range(1, hidden.dim() - 1)
    return hidden.mean(tuple(rest)) if rest else hidden


def _refuse_unfit(name: str, states: Tensor | None, target: Tensor) -> None:
    if states is None:
        raise ValueError(
            f"layer {name!r} did not run, or put out no floating-point tensor, so it has no hidden "
            "states; name another layer"
        )
    if states.dim() != 2 or len(states) != len(target):
        raise ValueError(
            f"expected layer {name!r} to put out hidden states of shape ({len(target)}, ...), the "
            f"batch first, but got {tuple(states.shape)} after a mean over pixels or tokens"
        )


def _values(metric: ClassSpectrum) -> Tensor:
    try:
        return metric.compute()
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined] # of NaN, no reason to stop
        shape = metric.num_classes, metric.num_features
        return torch.full(shape, torch.nan, dtype=torch.float64, device=metric.device)
