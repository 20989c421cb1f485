"""Tables: values in, a rich Table out."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

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
    """Scores of several ways to train, as mean ± standard deviation over runs.

    Args:
        scores: Way to train → score → its value in each of two or more runs.
        title: Stands above the table.

    Returns:
        A row a way, a column a score.
    """
    table = Table(title=title)
    names = list(next(iter(scores.values())))
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for arm, runs in scores.items():
        cells = (f"{mean(runs[name]):.2f} ± {stdev(runs[name]):.2f}" for name in names)
        table.add_row(arm, *cells)
    return table
