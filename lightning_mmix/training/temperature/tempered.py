"""A module that keeps the temperature of its predictions among its buffers."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from typing_extensions import override

from lightning_mmix.evaluation.predictions import Predictor


class Tempered(LightningModule):
    """A classifier whose checkpoints hold a temperature, and which divides its logits itself.

    :class:`~.scaling.TemperatureScaling` sets it. Checkpoints from before that load, too.

    Attributes:
        temperature_: 0-d, float32, a buffer: 1 while none belongs to the weights.
    """

    temperature_: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature_", torch.ones(()))
        self._temperature: float | None = None

    @property
    def is_tempered(self) -> bool:
        """Whether there is a temperature."""
        return float(self.temperature_) != 1

    def set_temperature(self, value: float | None) -> None:
        """Keep a temperature, or none, as of weights that change."""
        self._temperature = value
        self.temperature_.fill_(1.0 if value is None else value)

    def predictor(self) -> Predictor:
        """What makes its predictions of a batch."""
        return Predictor(self)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        # WeightAveraging puts an average there, also of buffers
        if self._temperature is not None and "temperature_" in checkpoint["state_dict"]:
            checkpoint["state_dict"]["temperature_"] = self.temperature_.new_tensor(
                self._temperature
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self._temperature = None
        state_dict.setdefault(f"{prefix}temperature_", torch.ones(()))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.temperature_ = self.temperature_.float()  # in half precision it has three digits
        return self
