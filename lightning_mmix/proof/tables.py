"""The table of a check: values in, a rich Table out."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_mmix.cuts.tables import LayerName
from lightning_mmix.proof.agreement import ENOUGH, Agreement

_OF_HALF = "half precision keeps few digits; a check in float32 tells more"


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """How far a step agrees with the naive form, a row for each layer.

    Args:
        agreements: In the order of the forward pass.

    Example:
        >>> from rich.console import Console
        >>> table = agreement_table([Agreement("input", 1.25, 7.0, 6.5)])
        >>> Console(color_system=None).print(table)
        mixed layer   loss   digits of the loss   of the gradients   exact?
        ───────────────────────────────────────────────────────────────────
        input         1.25                  7.0                6.5   yes
    """
    is_half = any(each.enough < ENOUGH for each in agreements)
    caption = _OF_HALF if is_half else None
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, caption=caption)
    table.add_column("mixed layer")
    for name in ("loss", "digits of the loss", "of the gradients"):
        table.add_column(name, justify="right")
    table.add_column("exact?")
    for each in agreements:
        style = "" if each.is_exact else "bold"
        verdict = "yes" if each.is_exact else "no"
        table.add_row(LayerName(each.layer), *_numbers(each), verdict, style=style)
    return table


def _numbers(each: Agreement) -> tuple[str, ...]:
    if each.problem:
        return "", "", ""
    digits = (each.loss_digits, each.gradient_digits)
    return f"{each.loss:.6g}", *("all" if d == 16 else f"{d:.1f}" for d in digits)
