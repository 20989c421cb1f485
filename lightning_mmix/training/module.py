"""The classifier: a ready module that mixes its loss in plain sight, and tempers predictions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from lightning_mmix.batches.loaders import num_unrepeated
from lightning_mmix.engine.loop import mixed_loss
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.metrics.classification import (
    BrierScore,
    CalibrationError,
    MixedAccuracy,
    NegativeLogLikelihood,
)
from lightning_mmix.training.callback import ManifoldMixup
from lightning_mmix.training.mixin import ManifoldMixupMixin, mixes_loss
from lightning_mmix.training.temperature.scaling import TemperatureScaling, scalings_of
from lightning_mmix.training.temperature.tempered import Tempered


def sgd(params: Any) -> Optimizer:
    """SGD as in the paper: lr 0.1, Nesterov momentum 0.9, weight decay 1e-4.

    Example:
        >>> sgd([torch.zeros(3, requires_grad=True)]).defaults["lr"]
        0.1
    """
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)


class ManifoldMixupClassifier(ManifoldMixupMixin, Tempered):
    """A classifier trained with Manifold Mixup, and measured for accuracy and calibration.

    Logs ``train/loss`` in every step and ``train/accuracy``, λ-weighted, in every epoch; and over
    validation and test sets ``val/`` and ``test/`` ``loss``, ``accuracy``, ``nll`` (nats), ``ece``
    (15 bins), ``gap`` (confidence minus accuracy) and ``brier`` (in [0, 2]): over all processes,
    and without the samples that a distributed sampler repeats.
    ``predict_step`` returns probabilities of shape (B, C), softmax(logits / T). The temperature T
    is fitted in each validation of a fit, by the :class:`TemperatureScaling` that it brings, and
    kept in the buffer ``temperature_``; without validation data it is 1. The ``test/`` scores are
    as trained; beside them stand ``test/T``, and ``test/nll_at_T``, ``ece_at_T``, ``gap_at_T`` and
    ``brier_at_T``.

    Args:
        net: Maps inputs to logits of shape (B, C).
        num_classes: C ≥ 2.
        alpha: Of :class:`ManifoldMixup`, unless the Trainer brings one; 0 means no mixing.
        layers: Of :class:`ManifoldMixup`, unless the Trainer brings one; named from this module
            on: ``"net.layer1"``.
        stop: Of :class:`ManifoldMixup`, unless the Trainer brings one.
        criterion: The loss of logits and labels.
        optimizer: Takes the parameters and returns an optimizer.
        lr_scheduler: Takes the optimizer and returns a learning rate scheduler.
        interval: Whether the scheduler steps after each ``"epoch"`` or each ``"step"``.
        ignore_index: The label of samples that count nowhere; a criterion of yours has its own.

    Example:
        >>> module = ManifoldMixupClassifier(nn.Linear(4, 3), num_classes=3)
        >>> module.predict_step(torch.randn(2, 4), 0).shape, module.temperature_
        (torch.Size([2, 3]), tensor(1.))
    """

    def __init__(  # noqa: PLR0913 - each is one decision of the user's, all but two by keyword
        self,
        net: nn.Module,
        num_classes: int,
        *,
        alpha: float = 1.0,
        layers: Literal["auto"] | Sequence[str] | Mapping[str, float] = "auto",
        stop: float | None = None,
        criterion: nn.Module | None = None,
        optimizer: OptimizerCallable = sgd,
        lr_scheduler: LRSchedulerCallable | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(
            "num_classes", "alpha", "layers", "stop", "interval", "ignore_index"
        )
        self.net = net
        self.alpha, self.layers, self.stop = alpha, layers, stop
        default = -100 if ignore_index is None else ignore_index  # torch's
        self.criterion = criterion or nn.CrossEntropyLoss(ignore_index=default)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.interval = interval
        self._ignore_index = ignore_index
        void: Any = {"ignore_index": ignore_index}
        scores: Any = {
            "nll": NegativeLogLikelihood(**void),
            "ece": CalibrationError(**void),
            "gap": CalibrationError(norm="signed", **void),
            "brier": BrierScore(**void),
        }
        accuracy = MulticlassAccuracy(num_classes, average="micro", **void)
        metrics = MetricCollection({"accuracy": accuracy, **scores})
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        # accuracy is the same at any temperature
        self.tempered_metrics = MetricCollection(scores, prefix="test/", postfix="_at_T")
        self.train_accuracy = MixedAccuracy(**void)
        # by default it leaves NaN out
        self.val_loss, self.test_loss = MeanMetric(math.nan), MeanMetric(math.nan)

    @override
    def configure_mixup(self) -> ManifoldMixup:
        return ManifoldMixup(self.alpha, self.layers, stop=self.stop)

    @override
    def configure_callbacks(self) -> list[Callback]:
        callbacks = super().configure_callbacks()
        if self._scaling is not None:
            return callbacks
        scaling = TemperatureScaling()
        scaling.is_needed = False
        return [*callbacks, scaling]

    @override
    def predictor(self) -> Predictor:
        void: Any = {"ignore_index": self._ignore_index}
        if self._mixup is None:
            return Predictor(self, **void)
        known = self._mixup.settings
        first = known.target if isinstance(known.target, str | int | None) else known.target[0]
        return Predictor(self, target=first, input=known.input, **void)

    @override
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits

    @override
    @mixes_loss
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits, y = self(self._find_input(batch)), self._find_targets(batch)[0]
        plan = self._plan
        loss = mixed_loss(self.criterion, logits, y, plan)
        is_paired = plan is not None and plan.labels == "paired"
        self.train_accuracy.update(logits, y, plan if is_paired else None)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loader = self.trainer.val_dataloaders
        logits, y = self._evaluate(batch, batch_idx, loader, self.val_metrics, self.val_loss)
        if self._scaling is not None:
            self._scaling.update(logits, y)

    @override
    def on_validation_epoch_end(self) -> None:
        # here, and not in the step: also processes without a batch take part in the sums
        self.log("val/loss", self.val_loss)
        self.log_dict(self.val_metrics)

    @override
    def on_test_epoch_start(self) -> None:
        self._shows_tempered = self.is_tempered

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        loader = self.trainer.test_dataloaders
        logits, y = self._evaluate(batch, batch_idx, loader, self.test_metrics, self.test_loss)
        if self._shows_tempered and len(y):
            self.tempered_metrics.update(logits / self.temperature_, y)

    @override
    def on_test_epoch_end(self) -> None:
        self.log("test/loss", self.test_loss)
        self.log_dict(self.test_metrics)
        if self._shows_tempered:
            self.log("test/T", self.temperature_, sync_dist=True)  # all have the same
            self.log_dict(self.tempered_metrics)

    @override
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch if isinstance(batch, Tensor) else self._find_input(batch)
        probabilities: Tensor = (self(x) / self.temperature_).softmax(-1)
        return probabilities

    @override
    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        config = {"scheduler": scheduler, "interval": self.interval, "monitor": "val/nll"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    @property
    def _scaling(self) -> TemperatureScaling | None:
        return None if self._trainer is None else next(iter(scalings_of(self._trainer)), None)

    def _evaluate(
        self, batch: Any, batch_idx: int, loader: Any, metrics: MetricCollection, loss: MeanMetric
    ) -> tuple[Tensor, Tensor]:
        x, y = self._find_input(batch), self._find_targets(batch)[0]
        count = num_unrepeated(loader, batch_idx, len(y))
        logits, y = self(x)[:count], y[:count]
        if count:
            metrics.update(logits, y)
            loss.update(self.criterion(logits, y), count)
        return logits, y
