"""Temperature scaling: a callback that fits one temperature on the validation data of a fit."""

from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from lightning_mmix.core.trees import Path
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.metrics.samples import Form
from lightning_mmix.metrics.temperature import Temperature
from lightning_mmix.training.host import TrainerHost
from lightning_mmix.training.temperature.dividing import DividedForward, Place, divide
from lightning_mmix.training.temperature.fitting import (
    HIGHEST,
    Fitting,
    refuse_no_forward,
    refuse_no_validation,
    weights_of,
)
from lightning_mmix.training.temperature.tempered import Tempered
from lightning_mmix.training.visits import show, total_of


class TemperatureScaling(Callback):
    """Fit one temperature on the validation data of a fit (Guo et al., 2017).

    At the end of each validation, and of the training if the weights have changed since, that T is
    fitted for which softmax(logits / T) has the least NLL over the first validation loader and all
    processes. It is logged as ``temperature/T``, beside ``samples``, their number, ``nll`` and
    ``ece`` as trained, and ``nll_at_T`` and ``ece_at_T`` of the same samples. A checkpoint holds
    the T of its own weights, or none if no validation has seen them. The training is the same as
    without.

    It costs one more forward pass of the validation set each time, and none of a
    :class:`lightning_mmix.ManifoldMixupClassifier`, which brings it by itself.

    Args:
        apply: Whether ``trainer.validate``, ``test`` and ``predict`` run with a ``forward`` whose
            logits are divided by T. A ManifoldMixupClassifier divides its own, and is left alone.
        form: Whether the network puts out ``"logits"``, log-probabilities among them, or
            ``"probabilities"``.
        target: Where a batch holds its target; None looks by itself.
        input: Where a batch holds its input.
        output: Where the network's output holds the predictions.
        ignore_index: The label of samples, pixels or tokens that count nowhere.

    Attributes:
        temperature_: After a validation of a fit, what was fitted to the weights as they are, a
            :class:`lightning_mmix.metrics.Temperature`; else None.
        is_needed: Whether it is an error if there is nothing to fit it on.

    Example:
        >>> scaling = TemperatureScaling(apply=True)
        >>> trainer = Trainer(callbacks=[scaling], logger=False)  # fit, and then test
        >>> scaling.temperature_ is None  # until a validation has been seen
        True
    """

    def __init__(
        self,
        *,
        apply: bool = False,
        form: Form = "logits",
        target: Path | None = None,
        input: Path | None = None,  # noqa: A002 - the callback's word
        output: Path | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.apply = apply
        self.is_needed = True
        self.temperature_: Temperature | None = None
        where = {"form": form, "target": target, "input": input, "output": output}
        self._where: dict[str, Any] = {**where, "ignore_index": ignore_index}
        self._place: Place | None = None
        self._weights: bytes | None = None  # that it was fitted to in this fit
        self._fitting: Fitting | None = None
        self._forward: DividedForward | None = None
        self._is_restored, self._told = False, set[str]()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if len(scalings_of(trainer)) > 1:
            raise ValueError(
                "expected one TemperatureScaling callback in the Trainer, but got several"
            )
        self._detach()  # another callback's on_exception may have raised before ours
        self._is_restored, self._told = False, set[str]()
        if trainer.state.fn == TrainerFn.FITTING:
            self.temperature_ = self._place = self._weights = None

    @override
    def state_dict(self) -> dict[str, Any]:
        found, place = self.temperature_, self._place
        if found is None:
            return {"temperature": None}
        return {"temperature": asdict(found), "place": None if place is None else asdict(place)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        found, place = state_dict["temperature"], state_dict.get("place")
        self.temperature_ = None if found is None else Temperature(**found)
        self._place = None if place is None else Place(**place)
        self._is_restored = True

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_needed:
            refuse_no_validation(trainer)
        if self.apply:
            refuse_no_forward(pl_module)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.temperature_ is not None or self._weights is not None:
            self._weights = None
            self._settle(pl_module, None)  # the weights that it belongs to are left

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self._begin(trainer, pl_module)

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if self._fitting is not None and dataloader_idx == 0:
            self._fitting.look_at(batch, batch_idx)

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            self._fitting = None  # what can't be predicted was told, early
        elif self._fitting is not None:
            values = self._fit(trainer, pl_module, self._fitting)
            pl_module.log_dict(values, sync_dist=True)  # all have the same; else Lightning warns

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Give the predictions of a validation batch from its step, which spares a forward pass.

        Args:
            preds: Shape (N, C, ...), or (N, ...) of two classes, without repeated samples.
            target: Shape (N, ...).
        """
        if self._fitting is not None:
            self._fitting.give(preds, target)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.enable_validation:
            return
        is_left = self.temperature_ is None
        if self._weights is not None:
            is_left = self._weights != weights_of(pl_module)
        if bool(total_of(trainer)(torch.tensor(float(is_left)))):
            fitting = self._begin(trainer, pl_module)
            show(trainer, pl_module, fitting.look_at)
            values = self._fit(trainer, pl_module, fitting)
            for logger in trainer.loggers if values else []:
                logger.log_metrics({**values}, step=trainer.global_step)
        self._settle(pl_module, self.temperature_)  # buffers may have been averaged since
        if self.is_needed and self.temperature_ is not None and self.temperature_.is_highest:
            self._tell(trainer, pl_module, HIGHEST)

    # the second time for those that change the weights at the end of a training, such as averages
    on_train_end = on_fit_end = _finish

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_fitting = trainer.state.fn == TrainerFn.FITTING  # whose own validation is as trained
        if is_fitting or not self.apply or isinstance(pl_module, Tempered):
            return
        if trainer.ckpt_path is not None and not self._is_restored:
            self.temperature_ = None  # of other weights
        self._forward = divide(pl_module, self._place, self.temperature_)

    on_validation_start = on_predict_start = on_test_start

    @override
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._forward is not None and self._forward.calls == 0:
            TrainerHost(trainer, pl_module).warn(
                f"no step of {type(pl_module).__name__} called its forward, so no logits were "
                "divided by the temperature; call self(x) there"
            )
        self._remove()

    on_validation_end = on_predict_end = on_test_end

    def _detach(self, *_: Any, **__: Any) -> None:
        self._remove()
        self._fitting = None

    on_exception = teardown = _detach  # whichever of the ways out is taken

    def __getstate__(self) -> dict[str, Any]:
        # log and log_dict are Lightning's, and hold the module
        state = {name: v for name, v in vars(self).items() if name not in ("log", "log_dict")}
        return {**state, "_fitting": None, "_forward": None}

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> Fitting:
        predictor, divides = Predictor(pl_module, **self._where), self.apply
        if isinstance(pl_module, Tempered):
            predictor, divides = pl_module.predictor(), False
        fitting = Fitting(trainer, pl_module, predictor, divides=divides, raises=self.is_needed)
        self._fitting = fitting
        return fitting

    def _fit(
        self, trainer: Trainer, pl_module: LightningModule, fitting: Fitting
    ) -> dict[str, float]:
        """Fit to what was collected, and give what is to be logged."""
        self._fitting = None
        self._weights, self._place = fitting.weights, fitting.place
        self._settle(pl_module, fitting.temperature())
        if fitting.problem:
            told = f"no temperature was fitted in a validation, since {fitting.problem}"
            self._tell(trainer, pl_module, f"{told}; this is said once")
        if self.temperature_ is None:
            return {}
        return {f"temperature/{name}": float(v) for name, v in asdict(self.temperature_).items()}

    def _tell(self, trainer: Trainer, pl_module: LightningModule, told: str) -> None:
        if told not in self._told:
            TrainerHost(trainer, pl_module).warn(told)
        self._told.add(told)

    def _settle(self, pl_module: LightningModule, found: Temperature | None) -> None:
        self.temperature_ = found
        if isinstance(pl_module, Tempered):
            pl_module.set_temperature(None if found is None else found.T)

    def _remove(self) -> None:
        forward, self._forward = self._forward, None
        if forward is not None:
            forward.remove()


def scalings_of(trainer: Trainer) -> list[TemperatureScaling]:
    """The TemperatureScaling callbacks of a Trainer."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [each for each in callbacks if isinstance(each, TemperatureScaling)]
