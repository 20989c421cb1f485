"""The callback: Manifold Mixup for any LightningModule, unedited."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from typing_extensions import override

from lightning_mmix.core.layers import Layers
from lightning_mmix.core.plan import Labels, MixPlan
from lightning_mmix.core.trees import Path
from lightning_mmix.engine.engine import Engine, seed_of
from lightning_mmix.engine.schedule import Scheduled
from lightning_mmix.engine.settings import Kinds, Settings
from lightning_mmix.pairing.arguments import is_paired
from lightning_mmix.pairing.effects import mix_gradients
from lightning_mmix.pairing.refusals import idle_layer, unused_target
from lightning_mmix.pairing.step import Step
from lightning_mmix.training.host import TrainerHost
from lightning_mmix.training.progress import share_done
from lightning_mmix.training.settling import Settling


class ManifoldMixup(Settling):
    """Train any LightningModule with Manifold Mixup (Verma et al., 2019).

    In each step that is mixed a layer, a weight λ ~ Beta(α, α) and a random pairing of the batch
    are drawn; the layer's output h becomes λ·h + (1 - λ)·h[partner], and the loss λ·L(y) +
    (1 - λ)·L(y[partner]), for whatever L the training step computes from its target. Validation,
    test and prediction are left alone. ``layers=["input"]`` is plain mixup.

    Args:
        alpha: α, finite and ≥ 0; 0 means no mixing. The paper uses 2 for CIFAR and SVHN, 0.2 for
            Tiny-ImageNet. A mapping from epochs to numbers, such as ``{0: 0.5, 160: 0}``, changes
            it: each holds from its epoch on.
        layers: The eligible set S. ``"auto"`` takes the input and the layers after a quarter and
            after half of the network. Or layer names, globs whose ``*`` stays within one part of
            the name, and ``"input"``; a mapping gives each a weight.
        prob: The probability that a batch is mixed at all, or such a mapping. With 0.5 the expected
            loss is the mean of the plain and the mixed one, which RegMixup (Pinto et al., 2022)
            computes in two passes.
        stop: The share of the fit after which nothing is mixed; the paper mixes all of it, 1.0.
            None is half of it, or all where its length is not known, or where ``settle`` or a
            mapping says when.
        settle: A share of the fit: in the last such part a batch is mixed only while the network is
            over-confident, that is, while mean confidence minus accuracy of its last validation
            is positive. It then ends about calibrated. A ``stop`` in that part ends all mixing.
        gap: The name of a logged value that says how over-confident it is, such as ``"val/gap"``.
            None measures it on the first validation loader of a classifier.
        kind: ``"mixup"`` interpolates, ``"cutmix"`` pastes a box of the partner's (Yun et al.,
            2019); a mapping gives each a weight.
        labels: ``"paired"`` mixes the loss. ``"own"`` leaves the target alone, for losses that no
            pair can follow: λ ~ Beta(α + 1, α), one for each sample. Its expectation is the same
            for a sum over samples that don't see each other; its variance is higher.
        target: Where the batch holds the target, or targets: a key, an index or a dotted path
            such as ``"1.labels"``. None looks by itself.
        input: Where the batch holds its input, if ``"input"`` is among the layers.
        union: Keys of masks or lengths: for the step a position counts if it counts in the sample
            or in its partner.
        seed: Of all draws, in [0, 2⁶⁴). None takes that of ``seed_everything``, else 0.
        verify: Whether to test on the first batch that all of the signal passes through the
            named layers; ``"auto"`` always does.
        log_plan: Whether to log ``mixup/lam``, λ, and ``mixup/layer``, the layer's position.

    Raises:
        ValueError: If an argument is out of range.

    Attributes:
        settings: The arguments, but for ``gap`` and ``log_plan``.

    Example:
        >>> mixup = ManifoldMixup(alpha=2.0, layers=["input", "net.layer*"], stop=0.8)
        >>> trainer = Trainer(callbacks=[mixup], logger=False)  # then trainer.fit(module, data)
    """

    def __init__(  # noqa: PLR0913 - each is one decision of the user's, all but two by keyword
        self,
        alpha: Scheduled = 1.0,
        layers: Layers = "auto",
        *,
        prob: Scheduled = 1.0,
        stop: float | None = None,
        settle: float = 0.0,
        gap: str | None = None,
        kind: Kinds = "mixup",
        labels: Labels = "paired",
        target: Path | Sequence[Path] | None = None,
        input: Path | None = None,  # noqa: A002 - the field's word
        union: Path | Sequence[Path] | None = None,
        seed: int | None = None,
        verify: bool = True,
        log_plan: bool = False,
    ) -> None:
        arguments = (alpha, layers, prob, stop, settle, kind, labels, target, input, union)
        super().__init__(Settings(*arguments, seed, verify), gap)
        self.log_plan = log_plan
        self._plan: MixPlan | None = None
        self._layers: list[str] | None = None
        self._state: dict[str, Any] = {"seed": seed_of(self.settings)}
        self._is_resumed, self._is_manual, self._global_step = False, False, 0

    @property
    def plan(self) -> MixPlan | None:
        """The plan of the current or last batch, None before the first or when unmixed."""
        return self._plan if self._engine is None else self._engine.plan

    @property
    def layers_(self) -> list[str] | None:
        """After the first batch, the eligible layers, in the order of the forward pass."""
        return self._layers if self._engine is None else self._engine.layers_

    @property
    def fired(self) -> bool:
        """Whether the layer of the current step's plan has run and was mixed."""
        step = self._step
        return step is not None and step.fired

    @property
    def _step(self) -> Step | None:
        return None if self._engine is None else self._engine.step

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if len(mixups_of(trainer)) > 1:
            raise ValueError("expected one ManifoldMixup callback in the Trainer, but got several")
        self._detach()  # another callback's on_exception may have raised before ours
        self._state = {**self._state, "seed": seed_of(self.settings)}

    @override
    def state_dict(self) -> dict[str, Any]:
        return self._state if self._engine is None else self._engine.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state, self._is_resumed = state_dict, True

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.settings.schedule.never_mixes:
            return
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise ValueError(
                "ManifoldMixup needs the batch before the training step takes it; "
                "write training_step(self, batch, batch_idx) without dataloader_iter"
            )
        self._engine = self.engine_of(trainer, pl_module)
        self._begin_settling(trainer)

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        engine = self._engine
        if engine is None:
            return
        done = share_done(trainer, batch_idx) if engine.schedule.needs_length else None
        engine.place(trainer.current_epoch, batch_idx, done)
        # StochasticWeightAveraging's extra epoch only re-estimates the batch norm statistics
        if trainer.fit_loop._skip_backward:
            engine.skip()
            return
        self._is_manual = not pl_module.automatic_optimization
        self._global_step = trainer.global_step if self._is_manual else 0
        engine.begin(batch)

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        step = self._step
        if step is None or self._is_manual:
            return
        if step.pairs and step.fired and not is_paired(loss):
            raise unused_target(step)
        if step.pastes and not step.fired:
            raise idle_layer(step)

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        if self._step is not None:
            mix_gradients(self._step, optimizer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        engine = self._engine
        step = None if engine is None else engine.end()
        if engine is None or step is None:
            return
        if self._is_manual and trainer.global_step > self._global_step:
            _refuse_unmixed(step)  # automatic has passed on_before_backward
        if self.log_plan:
            _log(pl_module, step.realised, (engine.layers_ or []).index(step.plan.layer))
        engine.report(step)

    @override
    def on_train_epoch_end(self, *_: Any) -> None:
        if self._engine is not None:
            self._engine.end()  # on_train_batch_start may have returned -1
            self._engine.report_epoch()

    def __getstate__(self) -> dict[str, Any]:
        # log and log_dict are Lightning's, and hold the module
        state = {name: v for name, v in vars(self).items() if name not in ("log", "log_dict")}
        kept = {"_plan": self.plan, "_layers": self.layers_, "_state": self.state_dict()}
        return {**state, **kept, **dict.fromkeys(("_engine", "_predictor", "_tally"))}

    def engine_of(self, trainer: Trainer, pl_module: LightningModule) -> Engine:
        """The engine that does the work in a fit.

        Args:
            trainer: Which fits.
            pl_module: Its module.
        """
        engine = Engine(pl_module, self.settings, TrainerHost(trainer, pl_module))
        engine.load_state_dict(self._state if self._is_resumed else {"seed": self._state["seed"]})
        return engine

    def _detach(self, *_: Any, **__: Any) -> None:
        if self._engine is not None:
            self._plan, self._layers = self._engine.plan, self._engine.layers_
            self._state = self._engine.state_dict()
            self._engine.remove()
        self._engine = None
        self._is_resumed = False

    on_fit_end = on_exception = teardown = _detach  # whichever of the ways out is taken


def mixups_of(trainer: Trainer) -> list[ManifoldMixup]:
    """The ManifoldMixup callbacks of a Trainer."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [each for each in callbacks if isinstance(each, ManifoldMixup)]


def _log(pl_module: LightningModule, plan: MixPlan, position: int) -> None:
    # a number would be sent to the device of the module, and waited for
    values = {"mixup/lam": plan.lam.float().mean(), "mixup/layer": torch.tensor(float(position))}
    pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=len(plan.partner))


def _refuse_unmixed(step: Step) -> None:
    if step.pairs and step.fired and not step.went_backward:
        raise unused_target(step)
    if step.pastes and not step.fired:
        raise idle_layer(step)
