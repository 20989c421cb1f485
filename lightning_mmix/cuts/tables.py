"""Tables of layers: values in, a rich Table out."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
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
_WHOLE = 30  # how long names may be to be shown whole at the cost of other columns


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
            table.add_row(LayerName(name), *known, _share(recipe, [name]))
        elif name == hidden[0]:
            more = f"… {len(hidden)} more"
            table.add_row(more, *(("", "") if sites else ()), _share(recipe, hidden))
    return table


def cut_table(
    sites: Mapping[str, Site], chosen: Collection[str] = (), *, is_folded: bool = False
) -> Table:
    """The layers of a network as places to mix: where, and why not.

    Args:
        sites: What a cut test found, by name.
        chosen: The names that ``"auto"`` takes.
        is_folded: Whether layers that can't be mixed share a row, if they stand one after the other
            and lie in one layer.

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
    rows = _folded(sites) if is_folded else list(sites.values())
    table.add_column("layer", no_wrap=max((len(site.name) for site in rows), default=0) <= _WHOLE)
    table.add_column("type")
    for name in ("hidden state", "depth"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("mix?", overflow="fold")
    for site in rows:
        verdict = "auto" if site.name in chosen else _in_short(site) or "yes"
        style = "bold" if site.name in chosen else "" if site.is_cut else "dim"
        kind = Text(site.kind, no_wrap=True, overflow="ellipsis")
        table.add_row(LayerName(site.name), kind, *_shape_and_depth(site), verdict, style=style)
    return table


def _folded(sites: Mapping[str, Site]) -> list[Site]:
    """The same in order, with one for each row of layers within another that can't be mixed."""
    rows: list[Site] = []
    for holder, group in groupby(sites.values(), lambda site: _holder(sites, site)):
        some = list(group)
        rows += [_fold(holder, some)] if holder and len(some) > 1 else some
    return rows


def _holder(sites: Mapping[str, Site], site: Site) -> str:
    """Of a layer that can't be mixed the one to name for it: the block, or what is in none.

    That is the innermost around it that can be mixed, before the end of the network, or else the
    outermost; empty if there is none.
    """
    if site.is_cut:
        return ""
    parts = site.name.split(".")
    names = [".".join(parts[:i]) for i in range(1, len(parts))]
    around = [sites[name] for name in names if name in sites and sites[name].depth != 1]
    cuts = [each.name for each in around if each.is_cut]
    return (cuts[-1:] or [each.name for each in around[:1]] or [""])[0]


def _in_short(site: Site) -> str:
    """Its reason, without the name of another layer, for which there is no room."""
    return site.reason.partition(" by layer ")[0]


def _fold(holder: str, sites: Sequence[Site]) -> Site:
    reasons = Counter(map(_in_short, sites))
    ((reason, _),) = reasons.most_common(1)
    others = ", …" if len(reasons) > 1 else ""
    return Site(f"{holder}.*", f"{len(sites)} layers", is_cut=False, reason=reason + others)


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
class LayerName:
    """A layer's name in a table, without its first parts where there is no room for all of it.

    Attributes:
        name: All of it.

    Example:
        >>> from rich.console import Console
        >>> Console(width=16, color_system=None).print(LayerName("model.bert.embeddings"))
        ….embeddings
    """

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
