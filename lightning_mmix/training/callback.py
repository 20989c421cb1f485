"""The callback: Manifold Mixup for any LightningModule, unedited."""

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lightning_mmix.batches.roles import find_mixable_input, find_targets
from lightning_mmix.core.layers import INPUT, Layers, select
from lightning_mmix.core.plan import MixPlan, Recipe, draw
from lightning_mmix.core.trees import Path
from lightning_mmix.pairing.arguments import is_paired, mix_gradients
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.refusals import unused_target
from lightning_mmix.pairing.step import Step
from lightning_mmix.training.choice import Choice, choose_layers, judge_input, show_layers
from lightning_mmix.training.trials import mixes_loss_itself
from lightning_mmix.training.watcher import Watcher


class ManifoldMixup(Callback):
    """Train any LightningModule with Manifold Mixup (Verma et al., 2019).

    In every training step a layer, a weight λ ~ Beta(α, α) and a random pairing of the batch are
    drawn; the layer's output h becomes λ·h + (1 - λ)·h[partner], and the loss λ·L(y) +
    (1 - λ)·L(y[partner]), for whatever L the training step computes from its target. Validation,
    test and prediction are left alone. ``layers=["input"]`` is plain mixup.

    Args:
        alpha: α, finite and ≥ 0; 0 means no mixing. The paper uses 2 for CIFAR and SVHN, 0.2 for
            Tiny-ImageNet; small networks and short runs want less.
        layers: The eligible set S. ``"auto"`` takes the input and the layers after a quarter and
            after half of the network. Or layer names, globs whose ``*`` stays within one part of
            the name, and ``"input"``; a mapping gives each a weight.
        target: Where the batch holds the target, or targets: a key, an index or a dotted path
            such as ``"1.labels"``. None looks by itself.
        input: Where the batch holds its input, if ``"input"`` is among the layers.
        seed: Of all draws, in [0, 2⁶⁴). None takes that of ``seed_everything``, else 0.
        verify: Whether to test on the first batch that all of the signal passes through the
            named layers; ``"auto"`` always does.
        log_plan: Whether to log λ and the position of the layer as ``mixup/lam`` and
            ``mixup/layer``.

    Raises:
        ValueError: If an argument is out of range.

    Attributes:
        plan: The plan of the current or last batch, None before the first or when unmixed.
        layers_: After the first batch, the eligible layers, in the order of the forward pass.

    Example:
        >>> trainer = Trainer(callbacks=[ManifoldMixup()], logger=False)
    """

    def __init__(  # noqa: PLR0913 - each is one decision of the user's, all but two by keyword
        self,
        alpha: float = 2.0,
        layers: Layers = "auto",
        *,
        target: Path | Sequence[Path] | None = None,
        input: Path | None = None,  # noqa: A002 - the field's word
        seed: int | None = None,
        verify: bool = True,
        log_plan: bool = False,
    ) -> None:
        super().__init__()
        Recipe(alpha, layers if isinstance(layers, Mapping) else {INPUT: 1.0})
        if seed is not None and not 0 <= seed < 2**64:
            raise ValueError(f"expected a seed in [0, 2**64), but got {seed}")
        self.alpha = alpha
        self.layers = layers
        self.target = target
        self.input = input
        self.seed = seed
        self.verify = verify
        self.log_plan = log_plan
        self.plan: MixPlan | None = None
        self.layers_: list[str] | None = None
        self._seed = self._global_step = 0
        self._saw_single = False
        self._recipe: Recipe | None = None
        self._choice: Choice | None = None
        self._is_resumed = False
        self._gates: Gates | None = None
        self._watcher = Watcher(target, input)

    @property
    def fired(self) -> bool:
        """Whether the layer of the current step's plan has run and was mixed."""
        return self._step is not None and self._step.fired

    @property
    def _step(self) -> Step | None:
        return None if self._gates is None else self._gates.step

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if len(mixups_of(trainer)) > 1:
            raise ValueError("expected one ManifoldMixup callback in the Trainer, but got several")
        self._detach()  # another callback's on_exception may have raised before ours
        self._seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed, "choice": self._choice and self._choice.state()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seed = state_dict["seed"]
        if state_dict.get("choice"):
            self._choice, self._is_resumed = Choice.of_state(state_dict["choice"]), True

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.alpha == 0:
            return
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise ValueError(
                "ManifoldMixup needs the batch before the training step takes it; "
                "write training_step(self, batch, batch_idx) without dataloader_iter"
            )
        if self.layers != "auto":
            select(pl_module, self.layers)  # a misspelt name is told before anything runs

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._disarm()
        self.plan = None
        # StochasticWeightAveraging's extra epoch only re-estimates the batch norm statistics
        if self.alpha == 0 or trainer.fit_loop._skip_backward:
            return
        targets = find_targets(batch, self.target)
        attached = self._attach(trainer, pl_module, batch, targets)
        if attached is None:
            self._saw_single = True
            return
        recipe, gates = attached
        value = find_mixable_input(batch, self.input) if INPUT in recipe.layers else None
        plan = draw(
            recipe,
            targets[0].shape[0],
            seed=self._seed,
            epoch=trainer.current_epoch,
            batch_idx=batch_idx,
            rank=trainer.global_rank,
        )
        if plan is None:
            return
        self.plan = plan.to(targets[0].device)
        self._global_step = trainer.global_step
        lent = [] if mixes_loss_itself(pl_module) else targets
        notes = self._watcher.notes(pl_module, batch, lent, plan) if lent else None
        gates.arm(Step(self.plan, pl_module, notes), lent, value)
        if self.log_plan:
            self._log(pl_module, self.plan)

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        if self._step is not None and self.fired and not is_paired(loss):
            if pl_module.automatic_optimization and not mixes_loss_itself(pl_module):
                raise unused_target(self._step)

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
        gates, step = self._gates, self._disarm()
        if gates is None or step is None:
            return
        if _took_no_gradient(step, pl_module) and trainer.global_step > self._global_step:
            raise unused_target(step)
        self._watcher.report(trainer, gates, step, batch_idx)

    @override
    def on_train_epoch_end(self, *_: Any) -> None:
        self._disarm()  # on_train_batch_start may have returned -1
        self._watcher.report_epoch()
        if self._gates is None and self._saw_single:
            self._watcher.say("no batch had two samples, so nothing was mixed")

    def __getstate__(self) -> dict[str, Any]:
        # log and log_dict are Lightning's, and hold the module
        state = {name: v for name, v in vars(self).items() if name not in ("log", "log_dict")}
        return {**state, "_gates": None, "_recipe": None}

    def _attach(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, targets: list[Tensor]
    ) -> tuple[Recipe, Gates] | None:
        if self._gates is None or self._recipe is None:
            choice = self._choice if self._is_resumed else None
            if choice is None or not choice.fits(self.layers, pl_module):
                asked = (self.layers, self.input)
                choice = choose_layers(trainer, batch, targets, *asked, verify=self.verify)
            if choice is None:
                return None
            if INPUT in choice.weights:
                judge_input(trainer, batch, targets, self.input)
            self._choice, self.layers_ = choice, choice.names
            self._recipe = Recipe(self.alpha, choice.weights)
            self._gates = Gates(pl_module, choice.weights)
            show_layers(trainer, self._recipe, choice, batch, targets, self.input)
        return self._recipe, self._gates

    def _log(self, pl_module: LightningModule, plan: MixPlan) -> None:
        position = (self.layers_ or []).index(plan.layer)
        # a number would be sent to the device of the module, and waited for
        values = {"mixup/lam": plan.lam.float(), "mixup/layer": torch.tensor(float(position))}
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=len(plan.partner))

    def _disarm(self) -> Step | None:
        return None if self._gates is None else self._gates.disarm()

    def _detach(self, *_: Any, **__: Any) -> None:
        if self._gates is not None:
            self._gates.remove()
        self._gates = self._recipe = None
        self._watcher = Watcher(self.target, self.input)
        self._is_resumed = self._saw_single = False

    on_fit_end = on_exception = teardown = _detach  # whichever of the ways out is taken


def mixups_of(trainer: Trainer) -> list[ManifoldMixup]:
    """The ManifoldMixup callbacks of a Trainer."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [each for each in callbacks if isinstance(each, ManifoldMixup)]


def _took_no_gradient(step: Step, pl_module: LightningModule) -> bool:
    # of manual optimisation; automatic has passed on_before_backward
    if step.went_backward or not step.fired or pl_module.automatic_optimization:
        return False
    return not mixes_loss_itself(pl_module)
