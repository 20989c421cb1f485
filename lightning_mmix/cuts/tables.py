"""Tables of layers: values in, a rich Table out."""

from collections.abc import Collection, Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_mmix.core.plan import Recipe
from lightning_mmix.cuts.sites import Site


def layer_table(recipe: Recipe, sites: Mapping[str, Site], found: str = "") -> Table:
    """The eligible layers of a recipe, each with the share of the steps in which it is mixed.

    Args:
        recipe: α and the layers.
        sites: What is known of the layers, in the order of the forward pass; empty if nothing is.
        found: What was found in the batch.

    Example:
        >>> from rich.console import Console
        >>> table = layer_table(Recipe(1.0, {"input": 1, "net.layer1": 3}), {})
        >>> Console(color_system=None).print(table)
           Manifold Mixup, alpha = 1
        ┏━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━┓
        ┃ layer      ┃ share of steps ┃
        ┡━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━┩
        │ input      │            25% │
        │ net.layer1 │            75% │
        └────────────┴────────────────┘
    """
    title = f"Manifold Mixup, alpha = {recipe.alpha:g}"
    width = max(len(title) + 4, len(found))  # each on one line, where there is room for it
    table = Table(title=title, caption=found or None, min_width=width)
    table.add_column("layer", overflow="fold")
    for name in (*(("hidden state", "depth") if sites else ()), "share of steps"):
        table.add_column(name, justify="right")
    total = sum(recipe.weights.values())
    for name in sites or recipe.weights:
        known = _shape_and_depth(sites[name]) if sites else ()
        table.add_row(name, *known, f"{recipe.prob * recipe.weights[name] / total:.0%}")
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
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, caption=caption, min_width=len(caption)
    )
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
