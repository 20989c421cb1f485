"""Predictions: what any module makes of a batch, found as the callback finds input and target."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmix.core.batch import find_input, find_targets
from lightning_mmix.core.trees import (
    Path,
    describe,
    entries,
    follow,
    mapped,
    tensors,
)
from lightning_mmix.cuts.calls import NoForwardError, ways
from lightning_mmix.cuts.probe import call
from lightning_mmix.metrics.scores import Form, samples


class Predictor:
    """The predictions of a classifier for the batches of a data loader.

    The first batch shows in which way ``forward`` takes a batch, and which of its outputs fits the
    target; the others go the same way.

    Args:
        model: Any module.
        form: Whether its predictions are ``"logits"`` or ``"probabilities"``.
        target: Where a batch holds its target, as in :class:`lightning_mmix.ManifoldMixup`.
        input: Where a batch holds its input.
        output: Where the network's output holds the predictions: a key, an index or a dotted
            path. None takes ``logits``, or else the one tensor that fits the target.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        form: Form = "logits",
        target: Path | None = None,
        input: Path | None = None,  # noqa: A002 - the callback's word
        output: Path | None = None,
    ) -> None:
        self.model = model
        self.form = form
        self._target = target
        self._input = input
        self._output = output
        self._way: int | None = None
        self._place: int | None = None

    def __call__(self, batch: Any) -> Tensor:
        """The predictions for a batch, as they come.

        Args:
            batch: What the data loader yields, on the model's device.

        Returns:
            Shape (B, C, ...), or that of the target where there is one score a label.

        Raises:
            ValueError: If the forward pass does not take the batch, its output does not fit the
                target, or that holds no labels; of the first batch a :class:`NoForwardError`.
        """
        target = self.target(batch)
        tried = ways(self.model, batch, find_targets(batch, self._target), self._input)
        if self._way is not None:
            network, inputs = next(islice(tried, self._way, None))
            return self._fitting(call(network, inputs), target)
        problem: Exception | None = None
        for way, (network, inputs) in enumerate(tried):
            try:
                preds = self._fitting(call(network, inputs), target)
            except Exception as error:  # what it is asked to take may not fit
                problem = problem or error
                continue
            self._way = way
            return preds
        raise NoForwardError(
            f"the forward pass of {type(self.model).__name__} makes no predictions of the batch, "
            f"{describe(batch)} ({type(problem).__name__}: {problem})"
        ) from problem

    def target(self, batch: Any) -> Tensor:
        """The labels of a batch; of several targets, the first."""
        return find_targets(batch, self._target)[0]

    def input(self, batch: Any) -> Tensor:
        """The input of a batch."""
        return find_input(batch, self._input)

    def with_input(self, batch: Any, x: Tensor) -> Any:
        """The batch with another input."""
        held = self.input(batch)
        return mapped(batch, lambda tensor: x if tensor is held else tensor)

    def losses(self, batch: Any) -> Tensor:
        """The NLL of each sample of a batch, of shape (B,)."""
        target = self.target(batch)
        log_probs, labels = samples(self(batch), target, self.form)
        own = log_probs.gather(1, labels[:, None])
        return -own.view(len(target), -1).sum(1)

    def _fitting(self, output: Any, target: Tensor) -> Tensor:
        if self._output is not None:
            output = follow(output, self._output, "output")
        else:
            output = dict(entries(output)).get("logits", getattr(output, "logits", output))
        fitting = {
            place: preds
            for place, tensor in enumerate(tensors(output))
            if self._place in (None, place) and (preds := _fitted(tensor, target)) is not None
        }
        if len(fitting) != 1:
            number = "none" if not fitting else "more than one"
            raise ValueError(
                f"expected an output that fits the target, {describe(target)}, but {number} of "
                f"{describe(output)} does; say where it is: output=<key, index or path>"
            )
        ((place, preds),) = fitting.items()
        _refuse_no_labels(preds, target)
        self._place = place
        return preds


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Have a model in evaluation mode, and then each of its modules as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def on_device_of(model: nn.Module, batch: Any) -> Any:
    """A batch on the device of a model's parameters."""
    device = device_of(model)
    return mapped(batch, lambda tensor: tensor.to(device))


def _fitted(tensor: Tensor, target: Tensor) -> Tensor | None:
    """The predictions in a tensor, if its shape is one of a classifier's."""
    if not tensor.is_floating_point():
        return None
    if tensor.shape == target.shape:
        return tensor
    if tensor.shape[:1] + tensor.shape[2:] == target.shape:
        return tensor.squeeze(1)  # one score a label may come as one class
    return tensor.squeeze(-1) if tensor.shape == (*target.shape, 1) else None


def _refuse_no_labels(preds: Tensor, target: Tensor) -> None:
    if preds.shape == target.shape and target.dim() == 2 and target.shape[1] > 1:
        if len(target) > 1 and (target.sum(1) == 1).all() and (target.amax(1) == 1).all():
            raise ValueError(
                f"expected labels of shape (N,), but got {describe(target)}, one-hot; have the "
                "data give the number of the class"
            )
    classes = preds.shape[1] if preds.dim() > target.dim() else 2
    if not ((target >= 0) & (target < classes)).all():
        raise ValueError(
            f"expected labels that are whole numbers in [0, {classes}), but got "
            f"{describe(target)} from {target.min():g} to {target.max():g}"
        )
