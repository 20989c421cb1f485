"""Tables of layers: values in, a rich Table out."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lightning_mmix.core.plan import Recipe
from lightning_mmix.cuts.sites import Site

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

_ROWS, _FIRST, _LAST = 6, 3, 2  # what is seen at a glance


def layer_table(recipe: Recipe, sites: Mapping[str, Site], found: str = "") -> Table:
    """The eligible layers of a recipe, each with the share of the steps in which it is mixed.

    Of many layers the first and the last are shown, and how many lie between.

    Args:
        recipe: α and the layers.
        sites: What is known of the layers, in the order of the forward pass; empty if nothing is.
        found: What was found in the batch.

    Example:
        >>> from rich.console import Console
        >>> table = layer_table(Recipe(1.0, {"input": 1, "net.layer1": 3}), {})
        >>> Console(color_system=None).print(table)
        Manifold Mixup, alpha = 1
        layer            of steps
        ─────────────────────────
        input                 25%
        net.layer1            75%
    """
    title = f"Manifold Mixup, alpha = {recipe.alpha:g}{_kinds(recipe)}"
    table = _table(title=title, caption=found or None, min_width=max(len(title), len(found)))
    table.add_column("layer")
    for name in (*(("hidden state", "depth") if sites else ()), "of steps"):
        table.add_column(name, justify="right")
    names = list(sites or recipe.weights)
    hidden = names[_FIRST:-_LAST] if len(names) > _ROWS else []
    for name in names:
        if name not in hidden:
            known = _shape_and_depth(sites[name]) if sites else ()
            table.add_row(_Name(name), *known, _share(recipe, [name]))
        elif name == hidden[0]:
            more = f"… {len(hidden)} more"
            table.add_row(more, *(("", "") if sites else ()), _share(recipe, hidden))
    return table


def cut_table(sites: Mapping[str, Site], chosen: Collection[str] = ()) -> Table:
    """The layers of a network as places to mix: where, and why not.

    Args:
        sites: What a cut test found, by name.
        chosen: The names that ``"auto"`` takes.

    Example:
        >>> from rich.console import Console
        >>> bypassed = Site("conv", "Conv2d", (8, 4, 4), 0.5, is_cut=False, reason="is bypassed")
        >>> table = cut_table({"input": Site("input", "Tensor", (3, 4, 4), 0.0), "conv": bypassed})
        >>> Console(color_system=None).print(table)
        layer    type        hidden state    depth   mix?
        ────────────────────────────────────────────────────────
        input    Tensor      (B, 3, 4, 4)       0%   yes
        conv     Conv2d      (B, 8, 4, 4)      50%   is bypassed
        1 of 2 can be mixed; depth is the share of the work done
    """
    cuts = sum(site.is_cut is True for site in sites.values())
    caption = f"{cuts} of {len(sites)} can be mixed; depth is the share of the work done"
    table = _table(caption=caption, min_width=len(caption))
    table.add_column("layer", overflow="fold")
    table.add_column("type", overflow="fold")
    for name in ("hidden state", "depth"):
        table.add_column(name, justify="right")
    table.add_column("mix?", overflow="fold")
    for name, site in sites.items():
        verdict = "auto" if name in chosen else site.reason or "yes"
        style = "bold" if name in chosen else "" if site.is_cut else "dim"
        table.add_row(name, site.kind, *_shape_and_depth(site), verdict, style=style)
    return table


def rendered(table: Table) -> str:
    """A table as text, as wide and as coloured as the terminal."""
    from rich.console import Console  # noqa: PLC0415 - after Lightning, see faces.py

    console = Console()
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def _shape_and_depth(site: Site) -> tuple[str, str]:
    shape = "" if site.shape is None else f"({', '.join(map(str, ('B', *site.shape)))})"
    return shape, "" if site.depth is None else f"{site.depth:.0%}"


def _table(**kwargs: Any) -> Table:
    """One whose title and caption stay on a line each, where there is room for it."""
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, **kwargs)


def _share(recipe: Recipe, names: Sequence[str]) -> str:
    weights = sum(recipe.weights[name] for name in names)
    return f"{recipe.prob * weights / sum(recipe.weights.values()):.0%}"


def _kinds(recipe: Recipe) -> str:
    """The kinds of mixing, unless interpolation is the only one."""
    total = sum(recipe.kinds.values())
    shares = {kind: weight / total for kind, weight in recipe.kinds.items() if weight > 0}
    if len(shares) > 1:
        return f", kind = {', '.join(f'{kind} {share:.0%}' for kind, share in shares.items())}"
    (only,) = shares
    return "" if only == "mixup" else f", kind = {only}"


@dataclass(frozen=True)
class _Name:
    """A layer's name, without its first parts where there is no room for all of it."""

    name: str

    def __rich_measure__(self, console: "Console", options: "ConsoleOptions") -> Measurement:
        return Measurement(len(self._ends()[-1]), len(self.name)).clamp(0, options.max_width)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> Iterator[Text]:
        ends = self._ends()
        fitting = (end for end in ends if len(end) <= options.max_width)
        yield Text(next(fitting, ends[-1]), overflow="fold")

    def _ends(self) -> list[str]:
        parts = self.name.split(".")
        return [self.name, *(f"….{'.'.join(parts[i:])}" for i in range(1, len(parts)))]
