"""The engine: everything that mixing needs to know, whoever runs the loop."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from lightning_mmix.batches.memory import TargetMemory
from lightning_mmix.batches.roles import find_mixable_input, recognised_input
from lightning_mmix.batches.union import united
from lightning_mmix.core.layers import INPUT, select, unwrapped
from lightning_mmix.core.plan import MixPlan, Recipe
from lightning_mmix.core.trees import Path, describe
from lightning_mmix.engine.ahead import StepsAhead
from lightning_mmix.engine.choice import Choice, choose_layers, found_in, judge_input
from lightning_mmix.engine.host import Host
from lightning_mmix.engine.settings import Settings
from lightning_mmix.engine.watcher import Watcher
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.step import Step


class Engine:
    """Carries settings out on a model: its layers, gates and counters, batch by batch.

    Args:
        model: Any module, also compiled, or wrapped for several processes.
        settings: What the user decided.
        host: The loop that trains the model.

    Raises:
        ValueError: If a layer is unknown.

    Attributes:
        model: The module as the user wrote it.
        settings: What the user decided.
        schedule: When to mix, and how strongly.
        layers_: After the first batch, the eligible layers, in the order of the forward pass.
        epoch: The epoch.
        batch_idx: The position of the next batch within the epoch.
        gap: Mean confidence minus accuracy, as :meth:`set_gap` was told last.
        seed: Of all draws.
    """

    def __init__(self, model: nn.Module, settings: Settings, host: Host) -> None:
        self.model = unwrapped(model)
        self.settings = settings
        self._plan: MixPlan | None = None
        self.layers_: list[str] | None = None
        self.epoch = self.batch_idx = 0
        self.gap: float | None = None
        self.seed = seed_of(settings)
        self.schedule = settings.schedule
        self._host, self._given = host, model
        self._done: float | None = None
        self._index = self._rank = 0
        self._pairs = True
        self._saw_single = self._is_resumed = self._takes_input = False
        self._choice: Choice | None = None
        self._gates: Gates | None = None
        self._recipe: Recipe | None = None
        self._memory, self._ahead = TargetMemory(), StepsAhead(self.model)
        self._watcher = Watcher(host, settings)
        if settings.layers != "auto" and not self.schedule.never_mixes:
            select(self.model, settings.layers)  # a misspelt name is told before anything runs

    @property
    def plan(self) -> MixPlan | None:
        """The plan of the current or last batch, None before the first or when unmixed.

        λ of a box is nominal until the layer has run.
        """
        step = self.step
        return step.realised if step is not None and step.fired else self._plan

    @property
    def step(self) -> Step | None:
        """The step that is being carried out, None between steps."""
        return None if self._gates is None else self._gates.step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.remove()

    def place(self, epoch: int, batch_idx: int, done: float | None = None) -> None:
        """Say which batch comes next.

        Args:
            epoch: The epoch, ≥ 0.
            batch_idx: Its position within the epoch.
            done: The share of the training that is done, if that is known.
        """
        self.epoch, self.batch_idx, self._done = epoch, batch_idx, done

    def begin(self, batch: Any, *, where: Path | Sequence[Path] | None = None) -> MixPlan | None:
        """Mix a batch until :meth:`end`.

        Args:
            batch: What the data loader yields.
            where: Where it holds its target, if the settings don't say.

        Returns:
            The plan; None if nothing is mixed.
        """
        self.skip()
        self._index, self.batch_idx = self.batch_idx, self.batch_idx + 1
        if self.schedule.never_mixes:
            return None
        if self.settings.target is not None:
            where = self.settings.target
        targets = self._memory.find(batch, where)
        gates = self._gates or self.attach(batch, targets)
        if gates is None:
            self._saw_single = True
            return None
        step = self._next_step(targets[0])
        if step is not None:
            self._plan = step.plan
            self._lend(gates, step, batch, targets, where)
        return self._plan

    def skip(self) -> None:
        """Leave a batch as it is."""
        if self._gates is not None and self._gates.step is not None:
            self.end()
        self._plan = None

    def attach(self, batch: Any, targets: Sequence[Tensor]) -> Gates | None:
        """Choose the layers and attach their gates, unless that was done.

        Args:
            batch: A training batch.
            targets: Its targets.

        Returns:
            The gates; None if the batch has fewer than two samples to choose by.

        Raises:
            ValueError: If a layer can't be mixed, or ``"auto"`` finds none.
        """
        if self._gates is not None:
            return self._gates
        path = self.settings.input
        self._rank, self._pairs = self._host.rank, self._host.pairs
        choice = self._choice if self._is_resumed else None
        if choice is None or not choice.fits(self.settings, self.model):
            choice = choose_layers(self._host, self.model, batch, targets, self.settings)
        if choice is None:
            return None
        if INPUT in choice.weights:
            judge_input(self._host, batch, targets, path)
        self._choice, self.layers_, self._recipe = choice, choice.names, None
        self._takes_input = INPUT in choice.weights
        self._gates = Gates(self.model, choice.weights)
        now = self.schedule.at(self.epoch, 0.0, None)
        recipe = self.settings.recipe(*now, choice.weights)
        found = found_in(choice, batch, targets, path), self.schedule.told(self._done)
        self._host.show(recipe, choice.sites, "; ".join(filter(None, found)))
        return self._gates

    def end(self) -> Step | None:
        """Let nothing mix any more, give the batch back, and return the step that is over."""
        step = None if self._gates is None else self._gates.disarm()
        if step is not None and step.space is not None and step.fired:
            self._plan = step.realised
        return step

    def report(self, step: Step) -> None:
        """Say what was noticed in a step that is over."""
        if self._gates is not None:
            self._watcher.report(self._gates, step, self._index)

    def report_epoch(self) -> None:
        """Say what was noticed in an epoch."""
        self._watcher.report_epoch()
        if self._gates is None and self._saw_single:
            self._watcher.say("no batch had two samples, so nothing was mixed")

    def set_gap(self, gap: float) -> None:
        """Tell how over-confident the network is, which ``settle`` depends on.

        Args:
            gap: Mean confidence minus accuracy on validation data, the same in all processes.
        """
        self.gap = float(gap)

    def state_dict(self) -> dict[str, Any]:
        """What a training has to remember to go on drawing what it would have drawn."""
        choice = self._choice and self._choice.state()
        return {"seed": self.seed, "choice": choice, "gap": self.gap, "epoch": self.epoch,
                "batch_idx": self.batch_idx}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; layers that were tested are not tested again.

        Raises:
            ValueError: If it is none of an engine.
        """
        if "seed" not in state:
            raise ValueError(f"expected what state_dict() gave, but got {describe(state)}")
        self.seed, self.gap = state["seed"], state.get("gap")
        self.epoch, self.batch_idx = state.get("epoch", 0), state.get("batch_idx", 0)
        if state.get("choice"):
            self._choice, self._is_resumed = Choice.of_state(state["choice"]), True

    def remove(self) -> None:
        """Take everything off the model, and give a batch back that is still mixed."""
        if self._gates is not None:
            self._gates.remove()
        self._gates = None

    def _next_step(self, target: Tensor) -> Step | None:
        recipe = self._recipe if self.schedule.is_constant else None
        recipe = recipe or self._recipe_now()
        of = self.seed, self.epoch, self._rank
        return self._ahead.at(recipe, target.shape[0], target.device, of, self._index)

    def _recipe_now(self) -> Recipe:
        now = self.schedule.at(self.epoch, self._done, self.gap)
        if self._recipe is None or (self._recipe.alpha, self._recipe.prob) != now:
            weights = {} if self._choice is None else self._choice.weights
            self._recipe = self.settings.recipe(*now, weights)
        return self._recipe

    def _lend(self, gates: Gates, step: Step, batch: Any, targets: list[Tensor], at: Any) -> None:
        plan, path = step.plan, self.settings.input
        value = find_mixable_input(batch, path) if self._takes_input else None
        if value is None and plan.box is not None:  # to tell masks from other targets
            value = next(iter(recognised_input(batch, path)), None)
        lent = targets if self._pairs and plan.lam.ndim == 0 else []
        try:
            if self.settings.union is not None:
                for tensor, data in united(batch, self.settings.union, plan.partner, targets):
                    step.exchange(tensor, data)
            if lent and self._watcher.watches_next():
                # once nothing else of the batch is exchanged, which would be noticed
                step.watch(self._watcher.notes(self._given, batch, lent, at, plan))
            gates.arm(step, lent, value)
        except BaseException:
            step.close()
            raise


def seed_of(settings: Settings) -> int:
    """The seed of all draws: the one that was given, or that of ``seed_everything``, else 0."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0") if settings.seed is None else settings.seed)
