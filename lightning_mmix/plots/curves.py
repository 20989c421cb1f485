"""Curves of robustness: a metric against what is done to the samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_mmix.plots.look import (
    Style,
    Values,
    arm_legend,
    array,
    ink,
    looked,
    positions,
    sheet,
)


@dataclass(frozen=True, eq=False)
class Curve:
    """How one arm fares in one family of conditions.

    Attributes:
        arm: The way to train.
        family: What is done to the samples, as ``"rotation"``.
        unit: What its strength is measured in, as ``"degrees"``.
        strengths: Shape (K,), K ≥ 1.
        mean: Shape (K,): the metric, a mean over runs.
        std: Shape (K,): its standard deviation over runs.

    Example:
        >>> Curve("no mixing", "FGSM", "ε", [0.01, 0.03], [81.5, 60.2], [0.4, 1.1]).mean
        [81.5, 60.2]
    """

    arm: str
    family: str
    unit: str
    strengths: Values
    mean: Values
    std: Values


@looked
def robustness_curves(rows: Sequence[Curve], label: str) -> Figure:
    """A metric against the strength of what is done to the samples: a panel a family.

    Families of a single strength share the last panel, as points. The bars are ± one standard
    deviation.

    Args:
        rows: Arms and families come in the order of their first appearance.
        label: The metric with its unit, as ``"accuracy (%)"``.

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> rows = [Curve("no mixing", "rotation", "degrees", [10, 20], [90, 80], [1, 2])]
        >>> figure = robustness_curves(rows, "accuracy (%)")
        >>> figure.axes[0].get_title()
        'rotation'
    """
    arms = positions(row.arm for row in rows)
    lines, points = _families(rows)
    figure, axes = _axes(len(lines), len(points))
    for ax, (family, curves) in zip(axes, lines.items(), strict=False):
        ax.set(title=family, xlabel=curves[0].unit)
        for row in curves:
            at, mean, std = array(row.strengths), array(row.mean), array(row.std)
            ax.errorbar(at, mean, std, **_bars(arms[row.arm]))
    if points:
        _dots(axes[-1], points, arms)
    figure.supylabel(label)
    arm_legend(figure, arms)
    return figure


def _families(rows: Sequence[Curve]) -> tuple[dict[str, list[Curve]], dict[str, list[Curve]]]:
    """The families of several strengths, and those of one."""
    families: dict[str, list[Curve]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row)
    several = {
        family: curves
        for family, curves in families.items()
        if any(array(row.strengths).size > 1 for row in curves)
    }
    return several, {name: each for name, each in families.items() if name not in several}


def _axes(lines: int, points: int) -> tuple[Figure, list[Axes]]:
    """Panels for lines, in rows of at most four; three points take another, more of them a row."""
    wide = points > 3
    cells = lines + (0 < points <= 3)
    rows = ceil(cells / 4)
    columns = ceil(cells / rows) if rows else int(wide)
    figure = sheet(max(columns, 3 * wide), 2.1 * (rows + wide) + 0.5)
    grid = figure.add_gridspec(rows + wide, columns)
    spots = [grid[i // columns, i % columns] for i in range(lines)]
    if points:
        start = rows * columns if wide else lines
        spots.append(grid[start // columns, start % columns :])
    axes: list[Axes] = []
    for spot in spots:
        axes.append(figure.add_subplot(spot, sharey=axes[0] if axes else None))
        axes[-1].tick_params(labelleft=spot.colspan.start == 0)
    return figure, axes


def _dots(ax: Axes, points: Mapping[str, Sequence[Curve]], arms: Mapping[str, int]) -> None:
    for place, curves in enumerate(points.values()):
        for row in curves:
            at = place + 0.5 * ((arms[row.arm] + 0.5) / len(arms) - 0.5)
            style = {**_bars(arms[row.arm]), "linestyle": ""}
            ax.errorbar([at], array(row.mean), array(row.std), **style)
    ax.set_xticks(range(len(points)), [_name(curves[0]) for curves in points.values()])
    ax.set_xlim(-0.5, len(points) - 0.5)
    ax.grid(visible=False, axis="x")


def _bars(position: int) -> Style:
    return {**ink(position), "capsize": 2, "elinewidth": 0.8}


def _name(curve: Curve) -> str:
    strength = f"{curve.unit} {array(curve.strengths).item():g}" if curve.unit else ""
    return fill(curve.family, 12) + f"\n{strength}" * bool(strength)
