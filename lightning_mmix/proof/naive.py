"""The naive form of a mixed step: one with a sample's own target, and one with its partner's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.batches.roles import find_mixable_input, find_targets, recognised_input
from lightning_mmix.batches.union import united
from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.core.trees import Path, mapped
from lightning_mmix.cuts.snapshot import untouched
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.pair import pair_of
from lightning_mmix.pairing.refusals import unused_target
from lightning_mmix.pairing.step import Step
from lightning_mmix.watch.notes import Notes
from lightning_mmix.watch.sentences import of_idle_layer

Watching = Callable[[Any, Sequence[Tensor]], Notes | None]


@dataclass(frozen=True)
class Outcome:
    """What a step gave.

    Attributes:
        loss: The loss, the mixed one if the step is paired.
        sides: The losses for the sample's target and for the partner's, of a step that is paired.
        gradients: Of the loss, by each parameter; zero for one that it does not depend on.
        notes: What was noticed in a step that is paired.
        lam: The weight of the sample's own target, 1 if it is the only one.

    Example:
        >>> outcome = Outcome(loss=0.875, sides=(1.0, 0.5), lam=0.75)
        >>> outcome.lam * outcome.sides[0] + (1 - outcome.lam) * outcome.sides[1]
        0.875
    """

    loss: float
    sides: tuple[float, float] | None = None
    gradients: Sequence[Tensor] = ()
    notes: Notes | None = None
    lam: float = 1.0


@dataclass(frozen=True)
class Trial:
    """A step that can be run again and again, each time from the same state.

    Attributes:
        run: Runs the training step on a batch and returns its loss.
        gates: Of the model, which is left as it was.
        plan: What is mixed.
        batch: The batch, which is left as it was, too.
        target: Where the batch holds its targets; None looks by itself.
        input: Where it holds its input.
        parameters: By which gradients are taken.
        mixed: Runs a training step that mixes its loss itself, so that its target isn't paired.
        union: Where the batch holds masks that become the union of the sample's and its partner's.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 1))
        >>> batch = torch.randn(2, 4), torch.tensor([[0.0], [1.0]])
        >>> def run(batch):
        ...     return torch.nn.functional.mse_loss(model(batch[0]), batch[1])
        >>> plan = MixPlan("0", torch.tensor(0.75), torch.tensor([1, 0]))
        >>> trial = Trial(run, Gates(model, ["0"], lasting=False), plan, batch)
        >>> own, partners = trial.naive(partners=False), trial.naive(partners=True)
        >>> abs(trial.paired().loss - 0.75 * own.loss - 0.25 * partners.loss) < 1e-6
        True
    """

    run: Callable[[Any], Any]
    gates: Gates
    plan: MixPlan
    batch: Any
    target: Path | Sequence[Path] | None = None
    input: Path | None = None
    parameters: Sequence[Tensor] = ()
    mixed: Callable[[Any], Any] | None = None
    union: Path | Sequence[Path] | None = None

    def paired(self, watching: Watching = lambda _batch, _targets: None) -> Outcome:
        """The step as it is mixed.

        Args:
            watching: Takes the batch and its targets, and begins the notes on the step.

        Raises:
            ValueError: If it is refused, its layer does not run, or its loss does not follow from
                the target.
            TypeError: If it returns no loss.
        """
        batch = self._copy()
        targets = find_targets(batch, self.target)
        step = Step(self.plan, self.gates.model, watching(batch, targets))
        if self.mixed is not None:
            return self._outcome(self.mixed, batch, step)
        outcome = self._outcome(self.run, batch, step, targets)
        if outcome.sides is None and step.pairs:
            raise unused_target(step)
        return outcome

    def naive(self, *, partners: bool) -> Outcome:
        """The step with the sample's own target, or its partner's, of the same hidden states.

        What the step makes of the target before the layer runs is the partner's own; from then on
        nothing is paired.

        Args:
            partners: Whether with the partner's.
        """
        batch = self._copy()
        targets = find_targets(batch, self.target)
        step = Step(self.plan, self.gates.model, side=int(partners))
        return self._outcome(self.run, batch, step, targets)

    def _copy(self) -> Any:
        batch = mapped(self.batch, torch.clone)
        if self.union is not None:
            for mask, data in united(batch, self.union, self.plan.partner):
                mask.data = data
        return batch

    def _outcome(
        self, run: Callable[[Any], Any], batch: Any, step: Step, paired: Sequence[Tensor] = ()
    ) -> Outcome:
        value = self._value(batch)
        with untouched(self.gates.model), torch.enable_grad():
            self.gates.arm(step, paired, value)
            try:
                loss = run(batch)
                if not isinstance(loss, Tensor):
                    raise TypeError("the training step returned no loss")
                if not step.fired:
                    raise ValueError(of_idle_layer(step.plan.layer))
                pair = pair_of(loss)
                sides = None if pair is None else (float(pair.first), float(pair.second))
                lam = 1.0 if self.plan.labels == "own" else float(step.lam)
                return Outcome(float(loss), sides, self._gradients(loss), step.notes, lam)
            finally:
                self.gates.disarm()

    def _value(self, batch: Any) -> Tensor | None:
        if self.plan.layer == INPUT:
            return find_mixable_input(batch, self.input)
        known = recognised_input(batch, self.input) if self.plan.kind == "cutmix" else []
        return next(iter(known), None)

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        if not self.parameters:
            return []
        parameters = list(self.parameters)
        return list(torch.autograd.grad(loss, parameters, materialize_grads=True))
