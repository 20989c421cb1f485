"""What was noticed, in sentences: what it is, what follows, and what to do."""

import math
from collections.abc import Iterable, Sequence

from lightning_mmix.core.trees import Path
from lightning_mmix.watch.notes import Note


def of_meeting(note: Note, targets: Sequence[Path]) -> str:
    """Of an entry of the batch that the loss takes along with the target.

    Args:
        note: What took them.
        targets: The paths of the targets.
    """
    named = ", ".join(map(_quoted, [*targets, note.entry]))
    return (
        f"{_taken_along(note)}; if it belongs to the target, as weights, lengths and masks of it "
        f"do, name it, too, target=[{named}]; if it transforms the target, do that in "
        "on_after_batch_transfer"
    )


def of_metric(note: Note) -> str:
    """Of the value of a metric, which the loss takes along with the target.

    Args:
        note: What took them.
    """
    return (
        f"the loss takes the target along with the value of a metric ({note}), which counts the "
        "sample's own labels alone, so it is not exact; compute in the loss what it takes, from "
        "the target, or use labels='own', ManifoldMixupMixin or mixed_loss"
    )


def of_input(note: Note) -> str:
    """Of the input, which the loss takes along with the target.

    Args:
        note: What took them.
    """
    return (
        f"{_taken_along(note)}; if it transforms the target, do that in "
        "on_after_batch_transfer; if the output is compared with it, as an autoencoder's is, name "
        "a .clone() of it as a target, too"
    )


def of_move(note: Note, layer: str) -> str:
    """Of rows of the batch that were put into another order before the layer ran."""
    return (
        f"the rows of entry {note.entry!r} of the batch were put into another order ({note}) "
        f"before layer {layer!r} ran, and those of the target were not, so hidden states and "
        "labels are mixed with those of other samples; put both in order in "
        "on_after_batch_transfer"
    )


def of_boxes() -> str:
    """Of a target whose rows say in their first column which sample they belong to."""
    return (
        "the first column of the target counts the samples, as a table of boxes does; a row takes "
        "its number along to its partner, so the partner's boxes are compared with the partner's "
        "image, and the loss is that of a sample's own label; pad the boxes to (B, M, ...)"
    )


def of_reads(reads: Iterable[Note], deviation: float | None) -> str:
    """Of Python values of the target that the loss depends on.

    Args:
        reads: Where they were taken.
        deviation: How far the loss for the partner's target is off, relative to it; None if it is
            not known whether it is.
    """
    known = sorted(map(str, reads))
    more = [f"{len(known) - 2} more"] if len(known) > 3 else []
    places = " and ".join([*known[:2], *more] if more else known)
    if deviation is None:
        effect = "a loss that depends on it is not exact for the partner's"
    elif math.isfinite(deviation):
        effect = f"the loss for the partner's is off by {deviation:.2g} of its value"
    else:
        effect = "the loss for the partner's is not finite"
    return (
        f"a Python value or array was made from the target ({places}), which is that of the "
        f"sample's own label, so {effect}; keep it a tensor, or use labels='own', "
        "ManifoldMixupMixin or mixed_loss"
    )


def of_idle_layer(layer: str, *, may_be_another: bool = False) -> str:
    """Of a layer that was drawn and did not run.

    Args:
        layer: Its name.
        may_be_another: Whether it may be that another model was run.
    """
    model = "give Mixer the very model that the loop calls, and no copy of it, or "
    return (
        f"layer {layer!r} was to be mixed in this training step and did not run, so nothing was "
        f"mixed; {model if may_be_another else ''}name layers that run in every step"
    )


def of_no_loss(layer: str) -> str:
    """Of a step that mixed hidden states and gave no loss to train on."""
    return (
        f"no gradient was taken of a loss, though the hidden state of layer {layer!r} was mixed: "
        "what the training step keeps of the network's output is mixed, and the labels are not; "
        "return the loss, or in a loop take it and its gradient within the context; a step that "
        "only collects outputs is to run without mixing"
    )


def _taken_along(note: Note) -> str:
    return (
        f"the loss takes the target along with entry {note.entry!r} of the batch ({note}), and "
        "never with the partner's, so it is not exact"
    )


def _quoted(path: Path) -> str:
    return str(path) if str(path).isdigit() else repr(path)
