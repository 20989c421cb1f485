"""LightningModules that mix their loss in plain sight: a mixin, and a ready classifier."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from lightning_mmix.batches.roles import find_input, find_targets, num_unrepeated
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.engine.loop import mixed_loss
from lightning_mmix.metrics.classification import (
    BrierScore,
    CalibrationError,
    MixedAccuracy,
    NegativeLogLikelihood,
)
from lightning_mmix.training.callback import ManifoldMixup, mixups_of

_Step = TypeVar("_Step", bound=Callable[..., Any])


def mixes_loss(training_step: _Step) -> _Step:
    """Mark a training step that mixes its loss itself: the callback leaves its targets alone."""
    setattr(training_step, "mixes_loss", True)  # noqa: B010 - a function has no such attribute
    return training_step


class ManifoldMixupMixin(LightningModule):
    """A LightningModule whose training step computes the mixed loss from its criterion.

    Its ``training_step`` runs ``self(x)`` and returns λ·criterion(ŷ, y) + (1 - λ)·criterion(ŷ,
    y[partner]). Put it in front of or behind your own base class. The mixing itself is done by
    the Trainer's :class:`ManifoldMixup`; if there is none, the module brings what
    :meth:`configure_mixup` returns. Without a Trainer the step computes the plain loss.

    Attributes:
        criterion: Takes prediction and target and returns the loss.

    Example:
        >>> class Net(ManifoldMixupMixin):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Linear(4, 3)
        ...         self.criterion = nn.CrossEntropyLoss()
        ...     def configure_mixup(self):
        ...         return ManifoldMixup(alpha=1.0, layers=["input"])
        ...     def forward(self, x):
        ...         return self.net(x)
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> Net().training_step((torch.zeros(2, 4), torch.tensor([0, 1])), 0).shape
        torch.Size([])
    """

    criterion: Callable[[Any, Any], Tensor]

    def configure_mixup(self) -> ManifoldMixup:
        """The callback that this module brings if its Trainer has none."""
        # of another base, if it stands behind this one and has an answer
        configure: Callable[[], ManifoldMixup] = getattr(super(), "configure_mixup", ManifoldMixup)
        return configure()

    @override
    def configure_callbacks(self) -> list[Callback]:
        others = super().configure_callbacks()
        callbacks = [*others] if isinstance(others, Sequence) else [others]
        return callbacks if self._mixup is not None else [*callbacks, self.configure_mixup()]

    @override
    @mixes_loss
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        prediction = self(self._find_input(batch))
        targets = self._find_targets(batch)
        target = targets[0] if len(targets) == 1 else targets
        return mixed_loss(self.criterion, prediction, target, self._plan)

    @property
    def _mixup(self) -> ManifoldMixup | None:
        return None if self._trainer is None else next(iter(mixups_of(self._trainer)), None)

    @property
    def _plan(self) -> MixPlan | None:
        # the plan of a layer that did not run mixed nothing
        mixup = self._mixup
        return mixup.plan if mixup is not None and mixup.fired else None

    def _find_input(self, batch: Any) -> Tensor:
        return find_input(batch, None if self._mixup is None else self._mixup.settings.input)

    def _find_targets(self, batch: Any) -> list[Tensor]:
        path = None if self._mixup is None else self._mixup.settings.target
        return find_targets(batch, path, along=False)  # the criterion takes no more


def sgd(params: Any) -> Optimizer:
    """SGD as in the paper: lr 0.1, Nesterov momentum 0.9, weight decay 1e-4."""
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)


class ManifoldMixupClassifier(ManifoldMixupMixin):
    """A classifier trained with Manifold Mixup, and measured for accuracy and calibration.

    Logs ``train/loss`` in every step and ``train/accuracy``, λ-weighted, in every epoch; and over
    validation and test sets ``val/`` and ``test/`` ``loss``, ``accuracy``, ``nll`` (nats), ``ece``
    (15 bins), ``gap`` (confidence minus accuracy) and ``brier`` (in [0, 2]): over all processes,
    and without the samples that a distributed sampler repeats.
    ``predict_step`` returns probabilities of shape (B, C).

    Args:
        net: Maps inputs to logits of shape (B, C).
        num_classes: C ≥ 2.
        alpha: Of :class:`ManifoldMixup`, unless the Trainer brings one; 0 means no mixing.
        layers: Of :class:`ManifoldMixup`, unless the Trainer brings one; named from this module
            on: ``"net.layer1"``.
        criterion: The loss of logits and labels.
        optimizer: Takes the parameters and returns an optimizer.
        lr_scheduler: Takes the optimizer and returns a learning rate scheduler.
        interval: Whether the scheduler steps after each ``"epoch"`` or each ``"step"``.
        ignore_index: The label of samples that count nowhere; a criterion of yours has its own.
    """

    def __init__(  # noqa: PLR0913 - each is one decision of the user's, all but two by keyword
        self,
        net: nn.Module,
        num_classes: int,
        *,
        alpha: float = 2.0,
        layers: Literal["auto"] | Sequence[str] | Mapping[str, float] = "auto",
        criterion: nn.Module | None = None,
        optimizer: OptimizerCallable = sgd,
        lr_scheduler: LRSchedulerCallable | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters("num_classes", "alpha", "layers", "interval", "ignore_index")
        self.net = net
        self.alpha = alpha
        self.layers = layers
        default = -100 if ignore_index is None else ignore_index  # torch's
        self.criterion = criterion or nn.CrossEntropyLoss(ignore_index=default)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.interval = interval
        void: Any = {"ignore_index": ignore_index}
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro", **void),
                "nll": NegativeLogLikelihood(**void),
                "ece": CalibrationError(**void),
                "gap": CalibrationError(norm="signed", **void),
                "brier": BrierScore(**void),
            }
        )
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self.train_accuracy = MixedAccuracy(**void)
        # by default it leaves NaN out
        self.val_loss, self.test_loss = MeanMetric(math.nan), MeanMetric(math.nan)

    @override
    def configure_mixup(self) -> ManifoldMixup:
        return ManifoldMixup(self.alpha, self.layers)

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
        self._evaluate(batch, batch_idx, loader, self.val_metrics, self.val_loss)

    @override
    def on_validation_epoch_end(self) -> None:
        # here, and not in the step: also processes without a batch take part in the sums
        self.log("val/loss", self.val_loss)
        self.log_dict(self.val_metrics)

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        loader = self.trainer.test_dataloaders
        self._evaluate(batch, batch_idx, loader, self.test_metrics, self.test_loss)

    @override
    def on_test_epoch_end(self) -> None:
        self.log("test/loss", self.test_loss)
        self.log_dict(self.test_metrics)

    @override
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch if isinstance(batch, Tensor) else self._find_input(batch)
        probabilities: Tensor = self(x).softmax(-1)
        return probabilities

    @override
    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        config = {"scheduler": scheduler, "interval": self.interval, "monitor": "val/nll"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def _evaluate(
        self, batch: Any, batch_idx: int, loader: Any, metrics: MetricCollection, loss: MeanMetric
    ) -> None:
        x, y = self._find_input(batch), self._find_targets(batch)[0]
        count = num_unrepeated(loader, batch_idx, len(y))
        logits, y = self(x)[:count], y[:count]
        if count:
            metrics.update(logits, y)
            loss.update(self.criterion(logits, y), count)
