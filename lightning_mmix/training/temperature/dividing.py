"""Dividing: the forward pass of any module, with its logits divided by a temperature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributions import Distribution

from lightning_mmix.core.trees import Path, describe, mapped, tensors
from lightning_mmix.evaluation.predictions import scored
from lightning_mmix.metrics.samples import Form
from lightning_mmix.metrics.temperature import Temperature

Kind = Literal[Form, "log-probabilities"]


@dataclass(frozen=True)
class Place:
    """Which of the tensors that a network puts out are its scores, and what they are.

    Attributes:
        output: Where the output holds the predictions; None takes ``logits``, or all of it.
        index: Of the tensors there.
        kind: What they are.
        is_binary: Whether they are one score a label.
        are_classes_last: Whether their shape is (B, ..., C), and not (B, C, ...).
    """

    output: Path | None
    index: int
    kind: Kind
    is_binary: bool
    are_classes_last: bool = False

    def divided(self, output: Any, temperature: float) -> Any:
        """The output with its scores divided.

        Args:
            output: As ``forward`` returns it.
            temperature: > 0.

        Raises:
            ValueError: If the scores can't be exchanged in it.
        """
        own = list(tensors(scored(output, self.output)))[self.index]
        dim = -1 if self.are_classes_last else 1
        new = scaled(own, temperature, self.kind, is_binary=self.is_binary, dim=dim)
        changed = mapped(output, lambda tensor: new if tensor is own else tensor)
        if changed is not output:
            return changed
        if isinstance(output, Distribution) and self.output is None:
            return type(output)(logits=new)  # type: ignore[call-arg]  # has them, so it takes them
        raise ValueError(
            f"expected an output whose logits can be divided by the temperature, but got "
            f"{describe(output)}; return a tensor, or a tuple, dictionary or dataclass of tensors"
        )


class DividedForward:
    """A module's own ``forward``, whose scores are divided by a temperature.

    Args:
        module: Whose forward pass it replaces, until :meth:`remove`.
        place: Where the scores are.
        temperature: > 0.

    Attributes:
        calls: How often it was called.
    """

    def __init__(self, module: LightningModule, place: Place, temperature: float) -> None:
        self.calls = 0
        self._module, self._place, self._temperature = module, place, temperature
        self._had = "forward" in vars(module)
        # by this name its signature is that of the other
        self.__wrapped__: Callable[..., Any] = module.forward
        # no hook: under FSDP Lightning runs the whole step by way of the module's __call__
        module.forward = self  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module's own returns, divided."""
        self.calls += 1
        return self._place.divided(self.__wrapped__(*args, **kwargs), self._temperature)

    def remove(self) -> None:
        """Give the module its own back."""
        if self._had:
            self._module.forward = self.__wrapped__  # type: ignore[method-assign]
        else:
            vars(self._module).pop("forward", None)


def divide(
    module: LightningModule, place: Place | None, found: Temperature | None
) -> DividedForward:
    """Have the scores of a module divided, until that is removed.

    Raises:
        ValueError: If nothing is known of where they are, or by what to divide them.
    """
    if found is None or place is None:
        raise ValueError(
            "TemperatureScaling is to divide logits (apply=True), but no temperature of these "
            "weights is known; fit first, or give as ckpt_path a checkpoint that a fit with it "
            "saved after a validation"
        )
    return DividedForward(module, place, found.T)


def scaled(
    scores: Tensor, temperature: float, kind: Kind, *, is_binary: bool, dim: int = 1
) -> Tensor:
    """Scores divided by a temperature, in their own dtype, of the same kind as before.

    Args:
        scores: Shape (N, C, ...), or any if ``is_binary``, or if ``dim`` is where C stands.
        temperature: T > 0.
        kind: ``"logits"`` z become z/T; ``"log-probabilities"`` and ``"probabilities"`` those of
            softmax(log(p)/T), or of a sigmoid if ``is_binary``.
        is_binary: Whether there is one score a label.
        dim: The dimension of the classes.
    """
    if kind == "logits":
        return scores / temperature
    if kind == "log-probabilities":
        return (scores / temperature).log_softmax(dim)
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if is_binary:
        return ((wide.log() - torch.log1p(-wide)) / temperature).sigmoid().to(scores.dtype)
    return (wide.log() / temperature).softmax(dim).to(scores.dtype)
