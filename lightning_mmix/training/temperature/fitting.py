"""Fitting: the predictions of one validation, and the temperature that fits them."""

from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.parameter import is_lazy

from lightning_mmix.batches.loaders import first_loader, num_unrepeated
from lightning_mmix.core.checks import told_of
from lightning_mmix.cuts.snapshot import same_randomness
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.metrics.doubts import are_log_probabilities, look
from lightning_mmix.metrics.samples import is_binary
from lightning_mmix.metrics.temperature import Kept, Temperature
from lightning_mmix.training.host import TrainerHost
from lightning_mmix.training.temperature.dividing import Kind, Place
from lightning_mmix.training.visits import total_of

HIGHEST = (
    "the temperature is 100, the end of its range, since the predictions tell nothing of the "
    "labels of the validation, as those of a network that has not learned yet; train it longer, or "
    "look if these are its labels"
)


class Fitting:
    """Collects what a network predicts in a validation, and fits a temperature to it.

    Args:
        trainer: Which fits.
        module: Its module.
        predictor: What makes the module's predictions.
        divides: Whether the output of ``forward`` is to be divided later.
        raises: Whether predictions that are none of a classifier are an error; else there is no
            temperature.

    Attributes:
        place: After the first batch, where the scores are in the output of ``forward``; None if
            predictions were given.
        problem: Why there is no temperature; empty if there is one.
        weights: Stands for the weights that it was begun with.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        predictor: Predictor,
        *,
        divides: bool,
        raises: bool,
    ) -> None:
        self.place: Place | None = None
        self.problem = ""
        self.weights = weights_of(module)
        self._trainer, self._module = trainer, module
        self._predictor = predictor
        self._divides, self._raises = divides, raises
        self._kept = Kept(predictor.form, predictor.ignore_index)
        self._is_given = False

    def give(self, preds: Tensor, target: Tensor) -> None:
        """Add the predictions of the current batch, which is then not looked at."""
        self._kept.update(preds, target)
        self._is_given = True

    def look_at(self, batch: Any, batch_idx: int) -> None:
        """Add the predictions of a batch of the first loader, unless they were given.

        Raises:
            ValueError: If they are none of a classifier.
        """
        is_given, self._is_given = self._is_given, False
        if is_given or self.problem:
            return
        module = self._module
        with TrainerHost(self._trainer, module).running(), same_randomness(module):
            try:
                self._add(batch, batch_idx)
            except Exception as error:
                self.problem = told_of(error)
                if self._raises:
                    raise ValueError(
                        f"a temperature is fitted to the predictions of a classifier and their "
                        f"labels ({self.problem}); say where they are by form, target, input, "
                        "output and ignore_index, or leave TemperatureScaling out"
                    ) from None

    def temperature(self) -> Temperature | None:
        """What fits all of them; all processes have to call this together."""
        total = total_of(self._trainer)
        if bool(total(torch.tensor(float(bool(self.problem))))):
            self.problem = self.problem or "another process tells why"
            return None
        found = self._kept.fit(total)
        if found is None:
            self.problem = "no label counts, or a prediction is NaN"
        elif found.is_unbounded:
            self.problem = "all its predictions are right, so that any lower T fits better; T is 1"
            return found.left_out()
        return found

    def _add(self, batch: Any, batch_idx: int) -> None:
        predictor = self._predictor
        preds, target = predictor(batch), predictor.target(batch)
        loader = first_loader(self._trainer.val_dataloaders)
        count = num_unrepeated(loader, batch_idx, len(target))
        preds, target = preds[:count], target[:count]
        if not count:
            return
        if self.place is None:
            look(preds, target, predictor.form, predictor.ignore_index)
            self._refuse_child()
        self._kept.update(preds, target)
        self.place = self._place(preds, target)

    def _place(self, preds: Tensor, target: Tensor) -> Place:
        predictor, before = self._predictor, self.place
        index, kind = predictor.place or 0, cast(Kind, predictor.form)
        are_logs = before is None or before.kind == "log-probabilities"
        if kind == "logits" and are_logs and are_log_probabilities(preds, target):
            kind = "log-probabilities"
        binary, last = is_binary(preds, target), bool(predictor.are_classes_last)
        return Place(predictor.output, index, kind, is_binary=binary, are_classes_last=last)

    def _refuse_child(self) -> None:
        if self._divides and not self._predictor.is_of_forward:
            name = type(self._module).__name__
            raise ValueError(
                f"to be divided, they must be what {name}.forward puts out, and not its only "
                "child; it does not take the batch, or several of its outputs fit the target"
            )


def refuse_no_validation(trainer: Trainer) -> None:
    """Refuse a fit that has no data to fit a temperature on.

    Raises:
        ValueError: If it has none.
    """
    if not trainer.enable_validation:
        raise ValueError(
            "TemperatureScaling fits a temperature on validation data, but this fit has none; "
            "give it validation data and a validation_step, or leave the callback out"
        )


def refuse_no_forward(module: LightningModule) -> None:
    """Refuse a module that has no ``forward`` of its own, which could be replaced.

    Raises:
        ValueError: If it has none.
    """
    has_own = type(module).forward is not LightningModule.forward or "forward" in vars(module)
    if not has_own:
        raise ValueError(
            "TemperatureScaling(apply=True) divides what forward puts out, but "
            f"{type(module).__name__} has no forward of its own: add one, and call self(batch) in "
            "test_step and predict_step, or use apply=False"
        )


def weights_of(module: LightningModule) -> bytes:
    """Bytes that stand for a module's weights: sums of the parameters of this process."""
    made = [p for p in module.parameters() if not is_lazy(p)]
    own = [getattr(p, "to_local", lambda p=p: p)() for p in made]
    sums = [each.detach().float().sum().cpu() for each in own if each.layout is torch.strided]
    return torch.stack(sums).numpy().tobytes() if sums else b""
