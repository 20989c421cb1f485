"""Settling: a callback that asks at each validation how over-confident the network is."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_mmix.batches.roles import first_loader, num_unrepeated
from lightning_mmix.cuts.snapshot import same_randomness
from lightning_mmix.engine.engine import Engine
from lightning_mmix.engine.settings import Settings
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.metrics.tally import Tally
from lightning_mmix.pairing.refusals import told_of
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
        self.settings = settings
        self.gap = gap
        self._engine: Engine | None = None
        self._predictor: Predictor | None = None
        self._tally: Tally | None = None
        self._is_tried = self._has_looked = False

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._predictor = self._tally = None
        if self._is_settling and self.gap is None:
            is_due = self._is_due(trainer)
            if is_due or not self._is_tried:  # whatever can't be measured is told early
                target = self.settings.target
                first = target if isinstance(target, str | int | None) else next(iter(target))
                self._predictor = Predictor(pl_module, target=first, input=self.settings.input)
                self._tally = self._predictor.tally() if is_due else None

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        predictor, tally = self._predictor, self._tally
        if predictor is None or dataloader_idx > 0 or (tally is None and self._is_tried):
            return
        with TrainerHost(trainer, pl_module).running(), same_randomness(pl_module):
            preds = _predictions(predictor, batch)
        self._is_tried = True
        target = predictor.target(batch)
        count = num_unrepeated(first_loader(trainer.val_dataloaders), batch_idx, len(target))
        if tally is not None and count:
            tally.update(preds[:count], target[:count])

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tally, self._tally, self._predictor = self._tally, None, None  # it holds the module
        engine, is_due = self._engine, self._is_settling and self._is_due(trainer)
        if engine is None or not is_due:
            return
        if self.gap is not None:
            engine.set_gap(_logged(trainer, self.gap))
        elif tally is not None:
            engine.set_gap(float(tally.compute()["gap"]))
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


def _predictions(predictor: Predictor, batch: Any) -> Tensor:
    try:
        return predictor(batch)
    except Exception as error:
        raise ValueError(
            f"settle needs the predictions of a classifier ({told_of(error)}); {_NAME}"
        ) from error


def _logged(trainer: Trainer, name: str) -> float:
    if name not in trainer.callback_metrics:
        known = ", ".join(map(repr, list(trainer.callback_metrics)[:5])) or "nothing"
        raise ValueError(f"nothing is logged as gap={name!r}, but {known}; {_NAME}")
    # each process may have logged its own
    value = trainer.callback_metrics[name].float()
    return float(trainer.strategy.reduce(value, reduce_op="mean"))
