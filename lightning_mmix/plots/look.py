"""The one look of all pictures: colours, dashes, sheets of panels, legends that hide no data."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from math import ceil
from typing import Any, ParamSpec

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Values = Tensor | ArrayLike
Array = NDArray[np.float64]
Style = dict[str, Any]
P = ParamSpec("P")

LOOK: Style = {
    "figure.dpi": 200,
    "font.size": 9,
    "axes.titlesize": 9,
    "figure.labelsize": 9,
    "figure.constrained_layout.w_pad": 0.06,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 3,  # shows a whole period of dashes
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "hatch.linewidth": 0.6,
}
# Okabe and Ito (2008), in orders whose neighbours differ in lightness too
COLOURS = ("#000000", "#E69F00", "#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
MARKERS = "osD^vPX"
DASHES = ("-", (0, (4, 1.5)), (0, (8, 1.5, 1.5, 1.5)), (0, (1, 1)))


def looked(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Have a function draw in this look whatever the user's settings, which stay as they are.

    Example:
        >>> @looked
        ... def picture():
        ...     figure, (ax,) = panels(1, 2.0)
        ...     ax.plot([0, 1], [0, 1])
        ...     return figure
        >>> picture().axes[0].spines["top"].get_visible()
        False
    """

    @wraps(plot)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style.context(LOOK, after_reset=True):
            figure = plot(*args, **kwargs)
            figure.draw_without_rendering()  # most ticks are made, and take on a look, only now
            return figure

    return drawn


def sheet(columns: int, height: float, squares: float = 0) -> Figure:
    """An empty figure for panels beside each other, at most 8 inches wide.

    Args:
        columns: The number of panels beside each other.
        height: In inches.
        squares: How many times the width of a panel is added to the height.

    Raises:
        ValueError: If there is no panel.
    """
    if not columns:
        raise ValueError("expected at least one panel, but got none")
    width = min(8.0, 1.5 + 2.6 * columns)
    height += squares * (width - 1) / columns
    return Figure(figsize=(width, height), layout="constrained")


def panels(count: int, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of panels beside and below each other, in rows of about equal length, at most four.

    Args:
        count: The number of panels.
        height: Of each, in inches.
        sharey: Whether they share a scale.

    Returns:
        The figure, and its axes in the order of reading.

    Raises:
        ValueError: If there is no panel.

    Example:
        >>> figure, axes = panels(6, 2.0)
        >>> len(axes), axes[0].get_subplotspec().get_gridspec().get_geometry()
        (6, (2, 3))
    """
    rows = ceil(count / 4)
    figure = sheet(ceil(count / max(rows, 1)), rows * height + 0.4)
    axes = figure.subplots(rows, ceil(count / rows), squeeze=False, sharey=sharey).flatten()
    for ax in axes[count:]:
        ax.remove()
    return figure, list(axes[:count])


def positions(arms: Iterable[str]) -> dict[str, int]:
    """The positions of arms, in the order of their first appearance."""
    return {arm: position for position, arm in enumerate(dict.fromkeys(arms))}


def ink(position: int, points: int = 1) -> Style:
    """How the line of the arm in a position is drawn, with markers on about eight of its points."""
    step = 1 + points // 9
    return {
        "color": cycled(COLOURS, position),
        "linestyle": cycled(DASHES, position),
        "marker": cycled(MARKERS, position),
        "markevery": (position * step // 4 % step, step),  # beside those of the other arms
    }


def cycled(choices: Sequence[Any], position: int) -> Any:
    """The choice in a position; from the first again when they run out."""
    return choices[position % len(choices)]


def tint(colour: str, amount: float) -> tuple[float, ...]:
    """A colour laid on white, from 0 (white) to 1 (the colour itself)."""
    return tuple(1 - amount * (1 - part) for part in to_rgb(colour))


def array(values: Values) -> Array:
    """Values as float64, whatever their device, dtype or graph."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend above the panels, in as many columns as there is room for.

    Args:
        figure: As :func:`panels` gives it.
        handles: What it explains, each with a label; one at least.

    Example:
        >>> figure, _ = panels(2, 2.0)
        >>> legend(figure, [Line2D([], [], label=label) for label in ("accuracy", "confidence")])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['accuracy', 'confidence']
    """
    longest = max(len(str(handle.get_label())) for handle in handles)
    room = max(1, int(figure.get_figwidth() / (0.7 + 0.065 * longest)))
    columns = ceil(len(handles) / ceil(len(handles) / room))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def arm_legend(figure: Figure, arms: Iterable[str]) -> None:
    """A legend of the arms, in the order of their positions."""
    legend(figure, [Line2D([], [], label=arm, **ink(i)) for i, arm in enumerate(arms)])
