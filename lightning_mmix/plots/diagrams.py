"""Diagrams of scores: reliability, spectra, training curves and interpolations."""

from collections.abc import Mapping
from functools import partial
from itertools import chain

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lightning_mmix.plots.look import (
    Array,
    Style,
    Values,
    arm_legend,
    array,
    ink,
    legend,
    looked,
    panels,
    positions,
    sheet,
    tint,
)

_BAR: Style = {"facecolor": "0.85", "edgecolor": "0.4"}
_OVER: Style = {"facecolor": tint("#D55E00", 0.3), "edgecolor": "#D55E00", "hatch": "/////"}
_UNDER: Style = {"facecolor": tint("#56B4E9", 0.3), "edgecolor": "#0072B2", "hatch": "....."}
_PERFECT: Style = {"color": "0.4", "linestyle": ":", "linewidth": 1}
_ACCURACY: Style = {"color": "0.2", "linestyle": "--"}
_CONFIDENCE: Style = {"color": "0.2", "linestyle": "-"}
_CLASS: Style = {"linewidth": 0.6, "alpha": 0.7}
_MEAN: Style = {"linewidth": 1.8}
_FLOOR: Style = {"color": "0.3", "linestyle": ":", "linewidth": 1}
_WHOLE = partial(MaxNLocator, 8, integer=True, steps=[1, 2, 5, 10])


@looked
def reliability_diagram(
    bins: Mapping[str, Values],
    *,
    edges: Values | Mapping[str, Values] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """How far confidence can be trusted (Guo et al., 2017).

    Of each arm, above: the accuracy of each bin, and what lies between it and the bin's mean
    confidence; below: the share of the samples in each bin, overall accuracy and mean confidence.

    Args:
        bins: Arm → shape (3, num_bins), as :func:`lightning_mmix.metrics.calibration_bins` gives
            them.
        edges: Shape (num_bins + 1,), or one such an arm; equal bins of [0, 1] by default.
        notes: Arm → what is written in its panel.

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> figure = reliability_diagram({"no mixing": [[10, 40], [4, 36], [5, 30]]})
        >>> figure.axes[0].get_title(), figure.axes[0].get_ylabel()
        ('no mixing', 'accuracy')
    """
    figure = sheet(len(bins), 1.2, squares=1.4)
    axes = figure.subplots(
        2, len(bins), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1)
    )
    for position, (arm, sums) in enumerate(bins.items()):
        above, below = axes[:, position]
        own = edges[arm] if isinstance(edges, Mapping) else edges
        rows, colour = array(sums), ink(position)["color"]
        at = np.linspace(0, 1, rows.shape[1] + 1) if own is None else array(own)
        _reliability(above, at, rows)
        _shares(below, at, rows, colour)
        above.set_title(arm)
        note = above.text(0.04, 0.97, (notes or {}).get(arm, ""), va="top", fontsize=8)
        note.set_path_effects([withStroke(linewidth=2, foreground="white")])  # bars may be behind
    axes[0, 0].set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    axes[1, 0].set(ylabel="samples (%)")
    figure.supxlabel("confidence")
    legend(figure, _handles())
    return figure


@looked
def spectrum(values: Mapping[str, Values]) -> Figure:
    """The singular values of each class's hidden states: a thin line a class, and their mean.

    What is below 10⁻⁶ of the largest, about what float32 can tell from zero, is drawn there.

    Args:
        values: Arm → shape (num_classes, D), descending.

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> figure = spectrum({"no mixing": [[9.0, 3.0, 1.0], [8.0, 4.0, 2.0]]})
        >>> figure.axes[0].get_yscale(), len(figure.axes[0].lines)
        ('log', 3)
    """
    rows = {arm: array(each) for arm, each in values.items()}
    top = max((np.nan_to_num(each).max() for each in rows.values()), default=0)
    floor = 1e-6 * (top or 1)
    figure, axes = panels(len(rows), 2.5, sharey=True)
    for position, (ax, (arm, each)) in enumerate(zip(axes, rows.items(), strict=True)):
        at, colour = np.arange(1, each.shape[1] + 1), ink(position)["color"]
        ax.plot(at, each.clip(floor).T, color=colour, **_CLASS)
        ax.plot(at, np.ma.masked_invalid(each).mean(0).clip(floor), color=colour, **_MEAN)
        ax.set(title=arm, yscale="log")
        ax.xaxis.set_major_locator(_WHOLE())
    figure.supxlabel("index of the singular value")
    figure.supylabel("singular value")
    handles = [
        Line2D([], [], color="0.3", label="a class", **_CLASS),
        Line2D([], [], color="0.3", label="mean over classes", **_MEAN),
    ]
    if any((each < floor).any() for each in rows.values()):
        handles.append(Line2D([], [], label="floor: 10⁻⁶ of the largest", **_FLOOR))
        for ax in axes:
            ax.axhline(floor, **_FLOOR)
    legend(figure, handles)
    return figure


@looked
def training_curves(
    curves: Mapping[str, Mapping[str, tuple[Values, Values]]],
) -> Figure:
    """Metrics over the epochs: a panel a metric, the mean over seeds and ± one standard deviation.

    Args:
        curves: Metric → arm → epochs of shape (E,) and values of shape (R, E) for R seeds; what
            was not measured is NaN.

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> seeds = [[0.6, 0.8, 0.9], [0.5, 0.7, 0.9]]
        >>> figure = training_curves({"val/accuracy": {"no mixing": ([0, 1, 2], seeds)}})
        >>> figure.axes[0].lines[0].get_ydata().round(2).tolist()
        [0.55, 0.75, 0.9]
    """
    figure, axes = panels(len(curves), 2.5)
    arms = positions(chain(*curves.values()))
    for ax, (metric, each) in zip(axes, curves.items(), strict=True):
        for arm, (epochs, values) in each.items():
            runs = np.ma.masked_invalid(array(values))
            mean, std = runs.mean(0), runs.std(0, ddof=1).filled(0)  # no spread of a single seed
            seen = ~np.ma.getmaskarray(mean)
            at, mid, half = array(epochs)[seen], mean[seen].filled(), std[seen]
            line = ink(arms[arm], len(at))
            ax.plot(at, mid, **line)
            ax.fill_between(at, mid - half, mid + half, color=line["color"], alpha=0.2, lw=0)
        ax.set(ylabel=metric, xlabel="epoch")
        ax.xaxis.set_major_locator(_WHOLE())
    arm_legend(figure, arms)
    return figure


@looked
def interpolations(lam: Values, curves: Mapping[str, Mapping[str, Values]]) -> Figure:
    """Mean confidence on the way between two samples: a panel a layer that is mixed.

    Args:
        lam: Shape (L,), in [0, 1].
        curves: Layer → arm → shape (L,).

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> figure = interpolations([0, 0.5, 1], {"layer1": {"no mixing": [0.9, 0.6, 0.9]}})
        >>> figure.axes[0].get_title()
        'layer1'
    """
    figure, axes = panels(len(curves), 2.3, sharey=True)
    arms = positions(chain(*curves.values()))
    at = array(lam)
    for ax, (layer, each) in zip(axes, curves.items(), strict=True):
        for arm, confidence in each.items():
            ax.plot(at, array(confidence), **ink(arms[arm], len(at)))
        ax.set(title=layer, xlim=(0, 1))
    figure.supxlabel("λ (weight of the sample itself)")
    figure.supylabel("mean confidence")
    arm_legend(figure, arms)
    return figure


def _handles() -> list[Artist]:
    return [
        Patch(**_BAR, label="accuracy in the bin"),
        Line2D([], [], **_PERFECT, label="perfect calibration"),
        Patch(**_OVER, label="over-confidence"),
        Patch(**_UNDER, label="under-confidence"),
        Line2D([], [], **_ACCURACY, label="overall accuracy"),
        Line2D([], [], **_CONFIDENCE, label="mean confidence"),
    ]


def _reliability(ax: Axes, edges: Array, bins: Array) -> None:
    filled = bins[0] > 0
    count, confidence, correct = bins[:, filled]
    accuracy, trust = correct / count, confidence / count
    left, width = edges[:-1][filled], np.diff(edges)[filled]
    ax.bar(left, accuracy, width, align="edge", linewidth=0.5, **_BAR)
    for kind, these in ((_OVER, trust > accuracy), (_UNDER, trust < accuracy)):
        gap, base = (trust - accuracy)[these], accuracy[these]
        ax.bar(left[these], gap, width[these], base, align="edge", linewidth=0.5, **kind)
    ax.hlines(accuracy, left, left + width, color="0.2", linewidth=1.2)
    ax.plot((0, 1), (0, 1), **_PERFECT)


def _shares(ax: Axes, edges: Array, bins: Array, colour: str) -> None:
    count, confidence, correct = bins.sum(1)
    if not count:
        return
    face: Style = {"facecolor": tint(colour, 0.2), "edgecolor": colour}
    ax.bar(edges[:-1], 100 * bins[0] / count, np.diff(edges), align="edge", linewidth=0.8, **face)
    ax.axvline(correct / count, **_ACCURACY)
    ax.axvline(confidence / count, **_CONFIDENCE)
