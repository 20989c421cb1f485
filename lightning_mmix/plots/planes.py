"""Planes: pictures of what a classifier predicts for points in two dimensions."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lightning_mmix.plots.look import (
    HUES,
    MARKERS,
    Array,
    Style,
    Values,
    array,
    cycled,
    legend,
    looked,
    sheet,
    tint,
)

_BOUNDARY: Style = {"color": "black", "linewidth": 1.2, "linestyle": "-"}
_CERTAIN: Style = {"color": "0.25", "linewidth": 0.8, "linestyle": "--"}


@dataclass(frozen=True, eq=False)
class Boundary:
    """What a classifier predicts over a part of the plane, and where its bottleneck has the data.

    Attributes:
        probabilities: Shape (R, R, C), R ≥ 2: of C classes on a grid with a row for each y and a
            column for each x, both ascending in even steps from edge to edge of the extent.
        extent: x from, x to, y from, y to.
        points: Shape (N, 2): the training points.
        labels: Shape (N,): their classes, in [0, C).
        hidden: Shape (N, 2): their hidden states, if there are any to show.
        note: Stands under the input space.
        hidden_note: Stands under the hidden states.

    Example:
        >>> grid = np.full((2, 2, 3), 1 / 3)
        >>> Boundary(grid, (-1.0, 1.0, -1.0, 1.0), points=[[0.0, 0.5]], labels=[2]).hidden is None
        True
    """

    probabilities: Values
    extent: tuple[float, float, float, float]
    points: Values
    labels: Values
    hidden: Values | None = None
    note: str = ""
    hidden_note: str = ""


@looked
def decision_boundaries(panels: Mapping[str, Boundary]) -> Figure:
    """The input space as each arm sees it, above its hidden states (figure 1 of the paper).

    The hue is the predicted class, its intensity the confidence: white at 1/C, full at 1.

    Args:
        panels: Arm → what it predicts.

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> grid = np.array([[[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.1, 0.9]]])
        >>> seen = Boundary(grid, (0.0, 1.0, 0.0, 1.0), [[0.1, 0.2], [0.8, 0.9]], labels=[0, 1])
        >>> figure = decision_boundaries({"no mixing": seen})
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['class 0', 'class 1', 'decision boundary', 'confidence 0.9']
    """
    columns = len(panels)
    deep = any(boundary.hidden is not None for boundary in panels.values())
    figure = sheet(columns, 0.7 + 0.2 * deep, squares=1 + deep)
    axes = figure.subplots(1 + deep, columns, squeeze=False)
    for above, (arm, boundary) in zip(axes[0], panels.items(), strict=True):
        _input_space(above, boundary)
        above.set_title(arm)
        _frame(above, "x", fill(boundary.note, 120 // columns))
    for below, boundary in zip(axes[1:].flat, panels.values(), strict=False):
        if boundary.hidden is None:
            below.remove()
            continue
        _scatter(below, array(boundary.hidden), array(boundary.labels))
        below.set_aspect("equal", adjustable="datalim")  # how thin a class is, is the point
        _frame(below, "h", fill(boundary.hidden_note, 120 // columns))
    classes = max(array(boundary.probabilities).shape[-1] for boundary in panels.values())
    _key(axes[0, -1].inset_axes((1.05, 0, 0.06 * min(classes, 5), 1)), classes)
    legend(figure, _handles(classes))
    return figure


def _input_space(ax: Axes, boundary: Boundary) -> None:
    probs = np.nan_to_num(array(boundary.probabilities))
    x0, x1, y0, y1 = boundary.extent
    x, y = np.linspace(x0, x1, probs.shape[1]), np.linspace(y0, y1, probs.shape[0])
    dx, dy = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    around = (x0 - dx, x1 + dx, y0 - dy, y1 + dy)  # a pixel is centred on its point of the grid
    shades = _shades(probs.argmax(-1), probs.max(-1), probs.shape[-1])
    ax.imshow(shades, origin="lower", extent=around, aspect="auto")
    _contour(ax, x, y, probs.max(-1) - 0.9, _CERTAIN)
    for label in range(probs.shape[-1] - 1):  # a boundary has two sides, one is not the last class
        rival = np.delete(probs, label, -1).max(-1)
        _contour(ax, x, y, probs[..., label] - rival, _BOUNDARY)
    _scatter(ax, array(boundary.points), array(boundary.labels))
    ax.set(xlim=(x0, x1), ylim=(y0, y1))
    ax.grid(visible=False)


def _shades(labels: NDArray[np.int64], confidence: Array, classes: int) -> Array:
    least = _least(classes)
    strength = ((confidence - least) / (1 - least)).clip(0, 1)
    # the full hue is kept for the points
    hues = np.array([tint(cycled(HUES, label), 0.7) for label in range(classes)])
    shades: Array = 1 - strength[..., None] * (1 - hues[labels])
    return shades


def _least(classes: int) -> float:
    """The least confidence there can be."""
    return 1 / classes if classes > 1 else 0.0


def _contour(ax: Axes, x: Array, y: Array, heights: Array, style: Style) -> None:
    # matplotlib warns of a level that lies outside
    if heights.min() < 0 < heights.max():
        ax.contour(x, y, heights, [0], **{f"{name}s": value for name, value in style.items()})


def _scatter(ax: Axes, points: Array, labels: Array) -> None:
    for label in np.unique(labels).astype(int):
        ax.plot(*points[labels == label].T, **_dot(label))


def _dot(label: int) -> Style:
    return {
        "linestyle": "",
        "marker": cycled(MARKERS, label),
        "markersize": 3,
        "markerfacecolor": cycled(HUES, label),
        "markeredgecolor": "black",
        "markeredgewidth": 0.4,
    }


def _frame(ax: Axes, letter: str, note: str) -> None:
    ax.set_xlabel(f"${letter}_1$" + f"\n{note}" * bool(note), fontsize=8)
    ax.set_ylabel(f"${letter}_2$", fontsize=8)
    ax.set_box_aspect(1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.spines[:].set_visible(True)


def _key(ax: Axes, classes: int) -> None:
    """The scale of confidence, in the hue of each class."""
    least = _least(classes)
    shades = _shades(np.arange(classes), np.linspace(least, 1, 65)[:, None], classes)
    ax.imshow(shades, origin="lower", extent=(0, classes, least, 1), aspect="auto")
    ax.axhline(0.9, **_CERTAIN)
    ax.set(xticks=[], ylabel="confidence")
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)


def _handles(classes: int) -> list[Line2D]:
    return [
        *(Line2D([], [], label=f"class {label}", **_dot(label)) for label in range(classes)),
        Line2D([], [], label="decision boundary", **_BOUNDARY),
        Line2D([], [], label="confidence 0.9", **_CERTAIN),
    ]
