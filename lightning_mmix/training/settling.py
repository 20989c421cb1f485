"""Settling: a callback that asks at each validation how over-confident the network is."""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_mmix.batches.loaders import first_loader, num_unrepeated
from lightning_mmix.core.checks import told_of
from lightning_mmix.cuts.snapshot import same_randomness
from lightning_mmix.engine.engine import Engine
from lightning_mmix.engine.settings import Settings
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.metrics.doubts import likely_form
from lightning_mmix.metrics.scores import Tally
from lightning_mmix.training.host import TrainerHost
from lightning_mmix.training.progress import share_done

_NAME = (
    "log mean confidence minus accuracy in validation and name it, as in gap='val/gap', or use stop"
)


class Settling(Callback):
    """Tells an engine, in the last part of a fit, each validation's confidence minus accuracy.

    Args:
        settings: What the engine carries out.
        gap: The name of a logged value that says it; None measures it on the first loader.
    """

    def __init__(self, settings: Settings, gap: str | None) -> None:
        super().__init__()
        if not isinstance(gap, str | None):
            raise TypeError(f"expected the name of a logged value as gap, but got {gap!r}")
        if gap is not None and settings.settle == 0:
            raise ValueError(f"gap={gap!r} says when to settle, but settle is 0; give it a share")
        self.settings = settings
        self.gap = gap
        self._engine: Engine | None = None
        self._predictor: Predictor | None = None
        self._tally: Tally | None = None
        self._is_tried = self._has_looked = False

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._predictor = self._tally = None
        # whatever can't be measured is told early
        if self._is_settling and self.gap is None and (self._is_due(trainer) or not self._is_tried):
            target = self.settings.target
            first = target if isinstance(target, str | int | None) else next(iter(target))
            self._predictor = Predictor(pl_module, target=first, input=self.settings.input)

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        predictor, is_due = self._predictor, self._is_due(trainer)
        if predictor is None or dataloader_idx > 0 or (self._is_tried and not is_due):
            return
        with TrainerHost(trainer, pl_module).running(), same_randomness(pl_module):
            self._measure(predictor, batch, first_loader(trainer.val_dataloaders), batch_idx)
        self._is_tried = True

    def _measure(self, predictor: Predictor, batch: Any, loader: Any, batch_idx: int) -> None:
        try:
            preds, target = predictor(batch), predictor.target(batch)
            count = num_unrepeated(loader, batch_idx, len(target))
            if self._tally is None:
                predictor.form = likely_form(preds, target)
                self._tally = predictor.tally()
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # what is doubted is not measured
                if count:
                    self._tally.update(preds[:count], target[:count])
        except Exception as error:
            raise ValueError(
                f"settle needs the predictions of a classifier ({told_of(error)}); {_NAME}"
            ) from None

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        predictor, self._predictor = self._predictor, None  # it holds the module
        tally, self._tally = self._tally, None
        engine = self._engine
        if engine is None or trainer.sanity_checking or not self._is_settling:
            return
        logged = None if self.gap is None else _logged(trainer, self.gap)  # misspelt, it says so
        if self._is_due(trainer):
            if logged is not None:  # each process may have logged its own
                engine.set_gap(float(trainer.strategy.reduce(logged, reduce_op="mean")))
            elif predictor is not None:  # also in a process without batches
                engine.set_gap(float((tally or predictor.tally()).compute()["gap"]))
            self._has_looked = True

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_settling and self._is_due(trainer) and not self._has_looked:
            TrainerHost(trainer, pl_module).warn(
                f"no validation came in the last {self.settings.settle:.0%} of the fit, so nothing "
                "was settled; validate more often"
            )

    @property
    def _is_settling(self) -> bool:
        return self._engine is not None and self.settings.settle > 0

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        done = share_done(trainer, trainer.fit_loop.epoch_loop.batch_idx + 1)
        return done is not None and self.settings.schedule.settles(done)

    def _begin_settling(self, trainer: Trainer) -> None:
        self._is_tried = self._has_looked = False
        if self.settings.settle > 0 and not trainer.enable_validation:
            raise ValueError(
                "settle looks at validations for over-confidence, but this fit has none; give it "
                "validation data and a validation_step, or use stop"
            )


def _logged(trainer: Trainer, name: str) -> Tensor:
    if name not in trainer.callback_metrics:
        known = ", ".join(map(repr, list(trainer.callback_metrics)[:5])) or "nothing"
        raise ValueError(f"nothing is logged as gap={name!r}, but {known}; {_NAME}")
    return trainer.callback_metrics[name].float()
