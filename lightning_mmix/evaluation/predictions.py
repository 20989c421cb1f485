"""Predictions: what any module makes of a batch, found as the callback finds input and target."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmix.batches.roles import find_input, find_targets, recognised_input
from lightning_mmix.core.checks import told_of
from lightning_mmix.core.trees import Path, describe, entries, follow, mapped, tensors
from lightning_mmix.cuts.calls import call, ways
from lightning_mmix.metrics.samples import (
    Form,
    classes_second,
    counted,
    fitted,
    refuse_no_labels,
    refuse_own_tokens,
    samples,
)
from lightning_mmix.metrics.scores import Tally


class Predictor:
    """The predictions of a classifier for the batches of a data loader.

    The first batch shows in which way ``forward`` takes a batch, and which of its outputs fits the
    target; the others go the same way. If (B, C, ...) does not fit, the classes may be last.

    Args:
        model: Any module.
        form: Whether its predictions are ``"logits"`` or ``"probabilities"``.
        target: Where a batch holds its target, as in :class:`lightning_mmix.ManifoldMixup`.
        input: Where a batch holds its input.
        output: Where the network's output holds the predictions: a key, an index or a dotted
            path. None takes ``logits``, or else the one tensor that fits the target.
        ignore_index: The label of samples, pixels or tokens that count nowhere.

    Attributes:
        place: After the first batch, which of the output's tensors it takes.
        are_classes_last: Whether its shape is (B, ..., C); None before the first batch.
        is_of_forward: Whether they are what the model itself returns, and not its only child.

    Example:
        >>> class Net(nn.Module):
        ...     def forward(self, x):
        ...         return {"logits": x.flip(1), "hidden": x}
        >>> predictor = Predictor(Net())
        >>> predictor((torch.tensor([[2.0, 0.0]]), torch.tensor([1])))
        tensor([[0., 2.]])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        form: Form = "logits",
        target: Path | None = None,
        input: Path | None = None,  # noqa: A002 - the callback's word
        output: Path | None = None,
        ignore_index: int | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected a torch.nn.Module as model, but got {type(model).__name__}")
        self.model = model
        self.form = form
        self.ignore_index = ignore_index
        self._target = target
        self._input = input
        self.output = output
        self.is_of_forward = True
        self._way: int | None = None
        self.place: int | None = None
        self.are_classes_last: bool | None = None

    def __call__(self, batch: Any) -> Tensor:
        """The predictions for a batch, as they come.

        Args:
            batch: What the data loader yields, on the model's device.

        Returns:
            Shape (B, C, ...), or that of the target where there is one score a label.

        Raises:
            ValueError: If the forward pass does not take the batch, its output does not fit the
                target, or that holds no labels.
        """
        preds, target = self._predictions(batch), self.target(batch)
        kept = target[counted(target, self.ignore_index)]
        classes = preds.shape[1] if preds.dim() > target.dim() else None
        refuse_no_labels(kept, classes, target, self.ignore_index)
        return preds

    def target(self, batch: Any) -> Tensor:
        """The labels of a batch, those of shape (B, 1, ...) as (B, ...); of several the first."""
        return _labels(find_targets(batch, self._target)[0])

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
        log_probs, labels = samples(self(batch), target, self.form, self.ignore_index)
        own = log_probs.gather(1, labels[:, None])[:, 0]
        kept = counted(target, self.ignore_index).flatten()
        each = own.new_zeros(len(kept)).masked_scatter(kept, -own)
        return each.view(len(target), -1).sum(1)

    def tally(self) -> Tally:
        """A tally of such predictions, without any yet, on the model's device."""
        return Tally(form=self.form, ignore_index=self.ignore_index).to(device_of(self.model))

    def _predictions(self, batch: Any) -> Tensor:
        targets = find_targets(batch, self._target)
        tried = ways(self.model, batch, targets, self._input)
        if self._way is not None:
            network, inputs = next(islice(tried, self._way, None))
            return self._fitting(call(network, inputs), targets[0])
        problems: list[Exception] = []
        for way, (network, inputs) in enumerate(tried):
            try:
                preds = self._fitting(call(network, inputs), targets[0])
            except Exception as error:  # what it is asked to take may not fit
                problems.append(error)
                continue
            if self.are_classes_last:
                refuse_own_tokens(targets[0], recognised_input(batch, self._input))
            self._way, self.is_of_forward = way, network is self.model
            return preds
        raise ValueError(
            f"the forward pass of {type(self.model).__name__} makes no predictions of the batch, "
            f"{describe(batch)} ({told_of(problems[0])})"
        )

    def _fitting(self, output: Any, target: Tensor) -> Tensor:
        """The predictions in an output, with the dimensions of the labels as they are given on."""
        output = scored(output, self.output)
        labels = _labels(target)
        plausible = {
            place: tensor
            for place, tensor in enumerate(tensors(output))
            if tensor.is_floating_point() and self.place in (None, place)
        }
        exact = {place: t for place, t in plausible.items() if _is_like(t, target)}
        fitting: dict[int, Tensor] = {}
        if not self.are_classes_last:
            fitting = _changed(exact or plausible, lambda tensor: fitted(tensor, labels))
        is_last = not fitting and self.are_classes_last is not False
        if is_last:
            moved = _changed(plausible, lambda tensor: classes_second(tensor, target))
            fitting = _changed(moved, lambda tensor: fitted(tensor, labels))
        if len(fitting) != 1:
            number = "none" if not fitting else "more than one"
            found = "say where it is: output=<key, index or path>"
            if isinstance(output, Tensor):
                found = "is this batch's target the right one?"
            raise ValueError(
                f"expected an output that fits the target, {describe(target)}, but {number} of "
                f"{describe(output, 60)} does; {found}"
            )
        ((self.place, preds),) = fitting.items()
        self.are_classes_last = is_last
        return preds


def scored(output: Any, path: Path | None) -> Any:
    """The part of a network's output that holds its predictions, or all of it.

    Args:
        output: Any tree, or any object with ``logits``.
        path: Where they are. None takes ``logits``, if there are any.

    Raises:
        ValueError: If there is nothing at the path.
    """
    if path is not None:
        return follow(output, path, "output")
    return dict(entries(output)).get("logits", getattr(output, "logits", output))


def predictor_of(model: nn.Module | Predictor, ignore_index: int | None = None) -> Predictor:
    """What makes the predictions of a model; a predictor itself.

    Raises:
        ValueError: If a predictor leaves out other labels than those of ``ignore_index``.
    """
    if not isinstance(model, Predictor):
        return Predictor(model, ignore_index=ignore_index)
    if ignore_index not in (None, model.ignore_index):
        raise ValueError(
            f"expected a Predictor to hold what is not scored, but got ignore_index={ignore_index} "
            f"beside it; give Predictor(model, ignore_index={ignore_index})"
        )
    return model


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


def _labels(target: Tensor) -> Tensor:
    return target.squeeze(1) if target.dim() > 1 else target


def _changed(
    found: Mapping[int, Tensor], change: Callable[[Tensor], Tensor | None]
) -> dict[int, Tensor]:
    """Those of some tensors that can be changed so, as they are then."""
    return {i: new for i, tensor in found.items() if (new := change(tensor)) is not None}


def _is_like(tensor: Tensor, target: Tensor) -> bool:
    """Whether a tensor has the shape of a classifier's predictions for a target as it comes."""
    shapes = tensor.shape, tensor.shape[:1] + tensor.shape[2:]
    return target.shape in shapes or tensor.shape == (*target.shape, 1)
