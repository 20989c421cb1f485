"""The mixin: a LightningModule that mixes its loss in plain sight."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule
from torch import Tensor
from typing_extensions import override

from lightning_mmix.batches.roles import find_input, find_targets
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.engine.loop import mixed_loss
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
        >>> import torch
        >>> from torch import nn
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
