"""The check: a proof on one batch that the training step of a module is mixed exactly."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_mmix.batches.roles import find_targets, recognised_input, written
from lightning_mmix.core.layers import unwrapped
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.core.trees import places
from lightning_mmix.cuts.snapshot import untouched
from lightning_mmix.cuts.tables import rendered
from lightning_mmix.engine.engine import Engine
from lightning_mmix.engine.settings import Settings
from lightning_mmix.engine.watcher import findings, notes_on
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.proof.agreement import ENOUGH, ENOUGH_OF_HALF, Agreement, agreement
from lightning_mmix.proof.naive import Trial
from lightning_mmix.proof.tables import agreement_table
from lightning_mmix.training.callback import ManifoldMixup, mixups_of
from lightning_mmix.training.trials import (
    alone,
    at_first_batch,
    mixes_loss_itself,
    step_of,
    unheard,
)
from lightning_mmix.watch.sentences import of_reads

LAM = 0.625  # both targets count

_UNKNOWN = (
    "none of the known reasons was noticed; does a copy such as torch.tensor(y), a script or a "
    "kernel read the target's memory, does a number made of losses go into the loss, does the step "
    "keep state or draw random numbers, or is it rounding, which precision='64-true' would end?"
)


@dataclass(frozen=True)
class Check:
    """What a check has found.

    Attributes:
        targets: Where the batch holds its targets.
        inputs: Where it holds its input; empty if that was not recognised.
        agreements: How far the step agrees with the naive form, layer by layer.
        findings: What may be wrong, in sentences.

    Example:
        >>> found = Check(["1"], ["0"], [Agreement("input", 1.25, 7.0, 1.2)], findings=[])
        >>> found.is_exact
        False
    """

    targets: list[str]
    inputs: list[str]
    agreements: list[Agreement]
    findings: list[str]

    @property
    def summary(self) -> str:
        """What was found in the batch, and what was done, in a sentence or two."""
        count = len(self.agreements)
        layers = {each.layer.removesuffix(" (cutmix)") for each in self.agreements}
        kinds = "" if len(layers) == count else " and kinds"
        where = f"at each of {count} layers{kinds}" if count > 1 else "at one layer"
        inputs = written(self.inputs) or "not recognised (input=<key, index or path> names it)"
        return (
            f"target: {written(self.targets)}; input: {inputs}. The training step ran "
            f"{3 * count} times: {where} once mixed and twice by hand."
        )

    def __str__(self) -> str:
        table = rendered(agreement_table(self.agreements))
        return "\n".join([self.summary, table, *(f"\n- {each}" for each in self.findings)])

    @property
    def is_exact(self) -> bool:
        """Whether the step agrees at every layer, and nothing was noticed that may be wrong."""
        return all(each.is_exact for each in self.agreements) and not self.findings


def check(
    module: LightningModule,
    data: DataLoader[Any] | LightningDataModule | None = None,
    *,
    mixup: ManifoldMixup | None = None,
    trainer: Trainer | None = None,
) -> Check:
    """Prove on one batch whether the training step of a module is mixed exactly.

    A fit is begun. With its first batch the training step runs for each eligible layer once as it
    is mixed, and twice by hand: with the targets, and with those of the partners, under the same
    plan, random numbers and buffers. Loss and gradients have to be those of λ·L(y) +
    (1 - λ)·L(y[partner]), with λ = 0.625. Parameters, buffers, the attributes of modules and the
    global random number generators are put back after each run, and in the end; nothing is trained,
    logged or printed, and of the Trainer's callbacks only those of your own run. What a step writes
    elsewhere is written several times.

    Args:
        module: Any LightningModule with automatic optimisation.
        data: As for ``Trainer.fit``.
        mixup: What mixes; None takes that of the Trainer or of the module, or one as it comes.
        trainer: On one device; None makes one.

    Returns:
        What was found.

    Raises:
        ValueError: If no target or no layer is found, the batch has fewer than two samples, the
            Trainer has several processes, or the module optimises by hand.
        TypeError: If it is no LightningModule.

    Example:
        >>> from lightning_mmix import ManifoldMixupClassifier
        >>> data = DataLoader([(torch.randn(4), i % 3) for i in range(6)], batch_size=6)
        >>> check(ManifoldMixupClassifier(torch.nn.Linear(4, 3), num_classes=3), data).is_exact
        True
    """
    if not isinstance(unwrapped(module), LightningModule):
        raise TypeError(
            f"check needs a LightningModule, but got {type(module).__name__}; in a loop of your "
            "own hold the loss against mixed_loss(criterion, prediction, target, mixer.plan)"
        )
    trainer = trainer or Trainer(devices=1, max_epochs=1, logger=False, enable_checkpointing=False)
    if trainer.world_size > 1:
        raise ValueError("a check runs in one process, but the Trainer has several: devices=1")
    if not module.automatic_optimization:
        raise ValueError(
            "the training step uses manual optimization (automatic_optimization=False), so it "
            "can't be run without training; check a copy of it that returns its loss"
        )
    bring = getattr(module, "configure_mixup", ManifoldMixup)
    mixing = mixup or next(iter(mixups_of(trainer)), None) or bring()
    with untouched(module), alone(trainer):
        judged: Check = at_first_batch(
            trainer, module, data, lambda batch: _checked(trainer, module, batch, mixing)
        )
    return judged


def _checked(trainer: Trainer, module: LightningModule, batch: Any, mixup: ManifoldMixup) -> Check:
    settings = mixup.settings
    if settings.labels == "own":
        raise ValueError(
            "with labels='own' the loss is that of the target as it is, so there is nothing to "
            "prove; `lightning-mmix layers` lists what can be mixed"
        )
    targets = find_targets(batch, settings.target)
    with mixup.engine_of(trainer, module) as engine:
        gates = engine.attach(batch, targets)
        if gates is None:
            raise ValueError("expected a batch of two or more samples, but got one")
        with unheard(module, trainer):
            agreements = [
                _agreement(trainer, plan_of(name, targets[0], kind), engine, gates, batch)
                for name in engine.layers_ or []
                for kind in settings.kinds
            ]
    sentences: dict[Any, str] = {}
    for what, sentence in _sentences(agreements, batch, settings):
        sentences.setdefault(what, sentence)
    found = places(batch, targets), places(batch, recognised_input(batch, settings.input))
    return Check(*found, agreements, list(sentences.values()))


def _agreement(
    trainer: Trainer, plan: MixPlan, engine: Engine, gates: Gates, batch: Any
) -> Agreement:
    settings = engine.settings

    def watching(batch: Any, targets: Sequence[Tensor]) -> Any:
        return notes_on(trainer.lightning_module, batch, targets, settings.input, plan)

    enough = ENOUGH_OF_HALF if "16" in str(trainer.precision) else ENOUGH
    return agreement(trial_of(trainer, plan, engine, gates, batch), watching, enough)


def trial_of(trainer: Trainer, plan: MixPlan, engine: Engine, gates: Gates, batch: Any) -> Trial:
    """The training step of a module, to be run again and again on a batch.

    Args:
        trainer: Which is about to run it.
        plan: What is mixed.
        engine: Of the module, whose settings say where the batch holds its target.
        gates: Of its layers.
        batch: The batch.
    """
    module, settings = trainer.lightning_module, engine.settings
    run = step_of(trainer, module, 0)
    mixed = _mixing_itself(trainer, plan, engine, run) if mixes_loss_itself(module) else None
    parameters = [each for each in module.parameters() if each.requires_grad]
    where = settings.target, settings.input
    return Trial(run, gates, plan, batch, *where, parameters, mixed, settings.union)


def _mixing_itself(trainer: Trainer, plan: MixPlan, engine: Engine, run: Any) -> Any:
    """The step of a module that asks its Trainer's callback for the plan."""
    (mixup,) = mixups_of(trainer)

    def mixed(batch: Any) -> Any:
        engine._plan, mixup._engine = plan, engine
        try:
            return run(batch)
        finally:
            mixup._engine = None

    return mixed


def _sentences(
    agreements: list[Agreement], batch: Any, settings: Settings
) -> Iterator[tuple[Any, str]]:
    """What is to be said, each with what it is about."""
    for each in agreements:
        if each.problem:
            yield ("problem", each.layer), f"at layer {each.layer!r}: {each.problem}"
        if each.notes is not None:
            yield from findings(each.notes, each.layer, batch, settings.target, settings.input)
    yield from _of_losses([each for each in agreements if not each.is_exact and not each.problem])


def _of_losses(found: list[Agreement]) -> Iterator[tuple[Any, str]]:
    """Why losses differ from those of the naive form."""
    lost = [each for each in found if math.isnan(each.loss)]
    if lost:
        layers = ", ".join(repr(each.layer) for each in lost)
        yield "lost", f"at {layers} the loss is NaN, against which nothing can be held"
    differing = [each for each in found if not math.isnan(each.loss)]
    reads = {read for each in differing if each.notes for read in each.notes.reads}
    if reads:
        yield "reads", of_reads(reads, max(each.partner_deviation for each in differing))
    elif differing:
        layers = ", ".join(repr(each.layer) for each in differing)
        yield "unknown", f"at {layers} the step differs from the naive form; {_UNKNOWN}"


def plan_of(layer: str, target: Tensor, kind: str) -> MixPlan:
    """A plan in which both labels count, and nobody is their own partner."""
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    box = torch.full((3,), 0.5, dtype=torch.float64) if kind == "cutmix" else None
    return MixPlan(layer, torch.tensor(LAM), partner, box).to(target.device)
