"""The watcher: has some steps of a fit watched, and says once what was noticed in them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmix.batches.names import is_length
from lightning_mmix.batches.roles import find_targets, is_box_table, recognised_input
from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.core.trees import Path, copied, places, rest
from lightning_mmix.engine.host import Host
from lightning_mmix.engine.settings import Settings
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.step import Step
from lightning_mmix.proof.naive import Trial
from lightning_mmix.watch.notes import METRIC, Note, Notes
from lightning_mmix.watch.sentences import (
    of_boxes,
    of_idle_layer,
    of_input,
    of_meeting,
    of_metric,
    of_move,
    of_no_loss,
    of_reads,
)
from lightning_mmix.watch.watched import watch

ROUNDING = 1e-5  # relative, of a loss that is computed again
TRIALS = 4  # of a line, without an effect
NOISE = 1e-2  # by which a step that runs again may differ, and still tell something


class Watcher:
    """Watches the first, second, fourth, eighth … step that is mixed.

    Args:
        host: The loop that runs them.
        settings: Where batches hold what.
    """

    def __init__(self, host: Host, settings: Settings) -> None:
        self._host = host
        self._asked: tuple[Path | Sequence[Path] | None, Path | None]
        self._asked = settings.target, settings.input
        self._union = settings.union
        self._count = 0
        self._batch: Any = None
        self._has_trained = self._has_run = False
        self._untrained = ""
        self._said: set[Any] = set()
        self._trials: Counter[Note] = Counter()

    def watches_next(self) -> bool:
        """Count a step, and tell whether it is to be watched."""
        self._count += 1
        return not self._count & (self._count - 1)

    def notes(
        self,
        module: nn.Module,
        batch: Any,
        targets: Sequence[Tensor],
        where: Path | Sequence[Path] | None,
        plan: MixPlan,
    ) -> Notes:
        """Begin a step that is watched.

        Args:
            module: Whose step it is.
            batch: The batch.
            targets: Its targets.
            where: Where it holds them, if that is known.
            plan: What is mixed.

        Returns:
            What is to be noted on.
        """
        self._asked = where, self._asked[1]
        self._batch = copied(batch)  # a step may take its labels out
        return notes_on(module, batch, targets, self._asked[1], plan)

    def report(self, gates: Gates, step: Step, index: int) -> None:
        """End a step: say what was noticed.

        Args:
            gates: Which mixed it.
            step: The step, which is over.
            index: The batch's position.
        """
        batch, self._batch = self._batch, None
        self._has_run |= step.fired and step.plan.layer != INPUT
        if step.fired and step.went_backward:
            self._has_trained = True
            if step.notes is not None:
                self._report_notes(step.notes, step.plan.layer, batch)
                self._report_reads(step.notes.reads, gates, step.plan, batch, index)
        elif not step.fired:
            may_be_another = self._host.may_run_another and not self._has_run
            self.say(of_idle_layer(step.plan.layer, may_be_another=may_be_another), "idle")
        elif step.pairs:
            self._untrained = step.plan.layer
            if self._host.returns_loss:
                self.report_epoch()

    def report_epoch(self) -> None:
        """End an epoch: say if no step took a gradient."""
        if self._untrained and not self._has_trained:
            self.say(of_no_loss(self._untrained), "no loss")

    def say(self, message: str, what: Any = None) -> None:
        """Warn of something, once in a training.

        Args:
            message: The sentence.
            what: It is about; None if the sentence says all of it.
        """
        if (what or message) not in self._said:
            self._said.add(what or message)
            self._host.warn(f"{message}; this is said once")

    def _report_notes(self, notes: Notes, layer: str, batch: Any) -> None:
        for what, sentence in findings(notes, layer, batch, *self._asked):
            self.say(sentence, what)

    def _report_reads(
        self, reads: set[Note], gates: Gates, plan: MixPlan, batch: Any, index: int
    ) -> None:
        reads = {read for read in reads - self._said if self._trials[read] < TRIALS}
        if not reads:
            return
        self._trials.update(reads)
        off = self._host.deviation(
            index,
            lambda run: deviation(Trial(run, gates, plan, batch, *self._asked, union=self._union)),
        )
        if off != 0:
            self._said |= reads
            self.say(of_reads(reads, off))


def notes_on(
    module: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None, plan: MixPlan
) -> Notes:
    """Begin to watch a step.

    Args:
        module: Whose step it is.
        batch: The batch.
        targets: Its targets.
        path: Where it holds its input.
        plan: What is mixed.

    Returns:
        What is to be noted on.
    """
    inputs = recognised_input(batch, path)
    notes = Notes(len(targets[0]), places(batch, inputs))
    if not _is_compiled(module):  # of watched tensors it would trace graphs of their own
        others = rest(batch, notes.size, [*targets, *(inputs if plan.layer == INPUT else [])])
        watch(notes, {path: t for path, t in others.items() if not is_length(path)})
    return notes


def findings(
    notes: Notes,
    layer: str,
    batch: Any,
    target: Path | Sequence[Path] | None,
    input: Path | None,  # noqa: A002 - the field's word
) -> Iterator[tuple[Any, str]]:
    """What was noticed of the entries of a batch, as what it is about and a sentence.

    Args:
        notes: On a step.
        layer: Which was mixed.
        batch: The batch.
        target: Where the batch holds its target.
        input: Where it holds its input.
    """
    found = find_targets(batch, target)
    if any(is_box_table(each, notes.size) for each in found):
        yield ("boxes",), of_boxes()
    targets = places(batch, found)
    inputs = places(batch, recognised_input(batch, input))
    moves = [] if notes.has_moved_target else sorted(notes.moves, key=str)
    for note in moves:
        yield ("rows", note.entry), of_move(note, layer)
    for note in sorted(notes.meetings, key=str):
        if note.entry == METRIC:
            yield ("metric",), of_metric(note)
        elif note.entry not in {move.entry for move in moves}:  # which says more
            is_input = note.entry in inputs
            yield ("entry", note.entry), of_input(note) if is_input else of_meeting(note, targets)


def deviation(trial: Trial) -> float | None:
    """How far the loss for the partner's target is off, 0 up to rounding; None if unknown.

    Args:
        trial: Of the step.
    """
    sides = trial.paired().sides
    own, partners = (trial.naive(partners=each).loss for each in (False, True))
    if sides is None:
        return None
    scale = max(abs(own), abs(partners), 1e-12)
    noise, off = abs(sides[0] - own) / scale, abs(sides[1] - partners) / scale
    if not noise <= NOISE:  # it may be NaN
        return None
    return 0.0 if off <= max(ROUNDING, 10 * noise) else off


def _is_compiled(module: nn.Module) -> bool:
    if getattr(module, "_compiler_ctx", None) is not None:  # Lightning's, of a compiled module
        return True
    return any(
        isinstance(each, torch._dynamo.OptimizedModule) or each._compiled_call_impl is not None
        for each in module.modules()
    )
