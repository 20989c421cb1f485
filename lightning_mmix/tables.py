"""Tables: values in, a rich Table out."""

from collections.abc import Collection, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lightning_mmix.differences import mean_and_deviation, paired_difference
from lightning_mmix.plan import Recipe
from lightning_mmix.sites import Site


def layer_table(recipe: Recipe, sites: Mapping[str, Site]) -> Table:
    """The eligible layers of a recipe, each with the share of the steps in which it is drawn.

    Args:
        recipe: α and the layers.
        sites: What is known of the layers, in the order of the forward pass; empty if nothing is.
    """
    title = f"Manifold Mixup, alpha = {recipe.alpha:g}"
    table = Table(title=title, min_width=len(title) + 4)
    table.add_column("layer", overflow="fold")
    for name in (*(("hidden state", "depth") if sites else ()), "share of steps"):
        table.add_column(name, justify="right")
    total = sum(recipe.layers.values())
    for name in sites or recipe.layers:
        known = _shape_and_depth(sites[name]) if sites else ()
        table.add_row(name, *known, f"{recipe.layers[name] / total:.0%}")
    return table


def cut_table(sites: Mapping[str, Site], chosen: Collection[str] = ()) -> Table:
    """The layers of a network as places to mix: where, and why not.

    Args:
        sites: What a cut test found, by name.
        chosen: The names that ``"auto"`` takes.
    """
    cuts = sum(site.is_cut is True for site in sites.values())
    caption = f"{cuts} of {len(sites)} can be mixed; depth is the share of the work done"
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, caption=caption)
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


def score_table(scores: Mapping[str, Mapping[str, Sequence[float]]], title: str = "") -> Table:
    """Scores of several ways to train, and what each differs by from the first.

    Args:
        scores: Way to train → score → its value in each of two or more runs. The runs of all ways
            come in the same order of seeds, so that differences are those between equal seeds.
        title: Stands above the table.

    Returns:
        A row a way: mean ± standard deviation over runs; and a row a difference: its mean ± half
        of its 95 % confidence interval. A column a score.
    """
    (base, first), *others = scores.items()
    caption = f"Δ: minus {base}, ± half of its 95 % interval"
    table = Table(
        "", title=title, caption=caption, box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    # percentages to two digits, what lies within [0, 1] to three
    digits = {name: 2 if max(runs) > 1 else 3 for name, runs in first.items()}
    for name in first:
        table.add_column(name, justify="right", no_wrap=True)
    for arm, each in scores.items():
        table.add_row(arm, *(spread(each[name], digits[name]) for name in first))
    table.add_section()
    for arm, each in others:
        cells = []
        for name in first:
            found = paired_difference(each[name], first[name])
            cells.append(f"{found.mean:+.{digits[name]}f} ± {found.half_width:.{digits[name]}f}")
        table.add_row(f"Δ {arm}", *cells)
    return table


def spread(values: Sequence[float], digits: int) -> str:
    """The mean of values ± their standard deviation, if there are several."""
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f}" + f" ± {deviation:.{digits}f}" * (len(values) > 1)


def rendered(table: Table) -> str:
    """A table as text, as wide and as coloured as the terminal."""
    console = Console()
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()


def _shape_and_depth(site: Site) -> tuple[str, str]:
    shape = "" if site.shape is None else f"({', '.join(map(str, ('B', *site.shape)))})"
    return shape, "" if site.depth is None else f"{site.depth:.0%}"
