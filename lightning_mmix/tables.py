"""Tables: values in, a rich Table out."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_mmix.plan import Recipe


def layer_table(recipe: Recipe) -> Table:
    """The eligible layers of a recipe, each with the share of the steps in which it is drawn."""
    title = f"Manifold Mixup, alpha = {recipe.alpha:g}"
    table = Table(title=title, min_width=len(title) + 4)
    table.add_column("layer", overflow="fold")
    table.add_column("share of steps", justify="right")
    total = sum(recipe.layers.values())
    for name, weight in recipe.layers.items():
        table.add_row(name, f"{weight / total:.0%}")
    return table


def score_table(scores: Mapping[str, Mapping[str, Sequence[float]]], title: str = "") -> Table:
    """Scores of several ways to train, and what each differs by from the first.

    Args:
        scores: Way to train → score → its value in each of two or more runs. The runs of all ways
            come in the same order of seeds, so that differences are those between equal seeds.
        title: Stands above the table.

    Returns:
        A row a way and a row a difference, a column a score: mean ± standard deviation over runs.
    """
    (base, first), *others = scores.items()
    caption = f"Δ: minus {base}, run for run"
    table = Table(
        "", title=title, caption=caption, box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    # percentages to two digits, what lies within [0, 1] to three
    digits = {name: 2 if max(runs) > 1 else 3 for name, runs in first.items()}
    for name in first:
        table.add_column(name, justify="right", no_wrap=True)
    for arm, each in scores.items():
        table.add_row(arm, *(_spread(each[name], f".{digits[name]}f") for name in first))
    table.add_section()
    for arm, each in others:
        cells = []
        for name in first:
            differences = [a - b for a, b in zip(each[name], first[name], strict=True)]
            cells.append(_spread(differences, f"+.{digits[name]}f"))
        table.add_row(f"Δ {arm}", *cells)
    return table


def _spread(values: Sequence[float], form: str) -> str:
    return f"{mean(values):{form}} ± {stdev(values):{form.lstrip('+')}}"
