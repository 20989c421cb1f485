import importlib
import re
import sys
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from lightning_mmix.plots.curves import Curve, robustness_curves
from lightning_mmix.plots.diagrams import (
    interpolations,
    reliability_diagram,
    spectrum,
    training_curves,
)
from lightning_mmix.plots.look import COLOURS
from lightning_mmix.plots.planes import Boundary, decision_boundaries

NAN = float("nan")
# of four bins one is empty, one over-confident, two under-confident
BINS = torch.tensor([[0.0, 10, 20, 10], [0, 4, 12, 9], [0, 2, 15, 10]])
CURVES = [
    Curve("a", "rotation", "degrees", [10, 20], [90, 60], [1, 2]),
    Curve("b", "rotation", "degrees", [10, 20], [95, 70], [1, 2]),
    Curve("a", "PGD", "ε", [0.03], [20], [3]),
]
BOUNDARY = Boundary(
    torch.rand(5, 5, 2), (0, 1, 0, 1), torch.rand(3, 2), [0, 1, 1], torch.rand(3, 2)
)
FIGURES = {
    "reliability": lambda: reliability_diagram({"a": BINS, "b": BINS}),
    "spectrum": lambda: spectrum({"a": [[3, 2, 0]], "b": [[3, 2, 1]]}),
    "robustness": lambda: robustness_curves(CURVES, "accuracy (%)"),
    "boundaries": lambda: decision_boundaries({"a": BOUNDARY, "b": BOUNDARY}),
    "training": lambda: training_curves({"loss": {"a": ([1, 2], [[3, 2], [3, 1]])}}),
    "interpolations": lambda: interpolations([0, 1], {"input": {"a": [1, 1], "b": [0, 1]}}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_saved_with_all_that_is_written_on_it(name):
    figure = FIGURES[name]()
    figure.savefig(BytesIO(), dpi=50)
    box = figure.get_tightbbox()
    assert min(box.min) > 0
    assert (box.max < figure.get_size_inches()).all()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_leaves_settings_and_pyplot_alone(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    before = dict(mpl.rcParams)
    FIGURES[name]()
    assert dict(mpl.rcParams) == before


def test_a_figure_looks_the_same_whatever_the_settings():
    with mpl.rc_context({"axes.facecolor": "black", "xtick.labelsize": 30, "figure.dpi": 10}):
        figure = FIGURES["interpolations"]()
    assert figure.dpi == 200
    assert to_hex(figure.axes[0].get_facecolor()) == "#ffffff"
    assert figure.axes[0].get_xticklabels()[0].get_fontsize() == 8


def test_pictures_without_matplotlib_say_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "lightning_mmix.plots")
    message = (
        "matplotlib is needed for pictures: pip install 'lightning-mmix[report]', or pip install "
        "'.[report]' in a clone"
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        importlib.import_module("lightning_mmix.plots")


def test_a_figure_of_nothing_is_refused():
    for plot in (reliability_diagram, spectrum, decision_boundaries, training_curves):
        with pytest.raises(ValueError, match="expected at least one panel, but got none"):
            plot({})
    with pytest.raises(ValueError, match="expected at least one panel, but got none"):
        robustness_curves([], "accuracy (%)")


def hatched(ax, hatch):
    """(left, bottom, width, height) of the bars with a hatch."""
    bars = [bar for bar in ax.patches if (bar.get_hatch() or "")[:1] == hatch]
    return np.array([(*bar.get_xy(), bar.get_width(), bar.get_height()) for bar in bars])


def test_a_reliability_diagram_shows_accuracy_and_what_is_over_and_under():
    above = reliability_diagram({"a": BINS}).axes[0]
    np.testing.assert_allclose(
        hatched(above, ""), [[0.25, 0, 0.25, 0.2], [0.5, 0, 0.25, 0.75], [0.75, 0, 0.25, 1]]
    )
    np.testing.assert_allclose(hatched(above, "/"), [[0.25, 0.2, 0.25, 0.2]])
    under = [[0.5, 0.75, 0.25, -0.15], [0.75, 1, 0.25, -0.1]]
    np.testing.assert_allclose(hatched(above, "."), under)


def test_below_are_the_shares_of_samples_and_the_overall_accuracy_and_confidence():
    below = reliability_diagram({"a": BINS}).axes[1]
    np.testing.assert_allclose(hatched(below, "")[:, 3], [0, 25, 50, 25])
    assert [line.get_xdata()[0] for line in below.lines] == pytest.approx([27 / 40, 25 / 40])
    assert [line.get_linestyle() for line in below.lines] == ["--", "-"]


def test_each_arm_of_a_reliability_diagram_has_its_column_and_note():
    figure = reliability_diagram({"a": BINS, "b": BINS}, notes={"b": "ECE 0.1"})
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "", ""]
    assert [ax.texts[0].get_text() for ax in figure.axes[:2]] == ["", "ECE 0.1"]
    colours = [to_hex(ax.patches[0].get_edgecolor()) for ax in figure.axes[2:]]
    assert colours == [colour.lower() for colour in COLOURS[:2]]


def test_bins_may_have_edges_of_their_own():
    edges = [0, 0.1, 0.2, 0.6, 1]
    for given in (edges, {"a": torch.tensor(edges)}):
        above, below = reliability_diagram({"a": BINS}, edges=given).axes
        np.testing.assert_allclose(hatched(above, "")[:, 0], edges[1:4])
        np.testing.assert_allclose(hatched(below, "")[:, 2], np.diff(edges))


def test_bins_without_samples_have_no_bars():
    above, below = reliability_diagram({"a": BINS * 0}).axes
    assert not above.patches
    assert not below.patches


def test_a_spectrum_is_a_line_a_class_and_their_mean():
    figure = spectrum({"a": [[4.0, 2, 1], [2, 1, 1]], "b": [[1.0, 1, 1]]})
    first, second = figure.axes
    np.testing.assert_allclose(
        [line.get_ydata() for line in first.lines], [[4, 2, 1], [2, 1, 1], [3, 1.5, 1]]
    )
    assert list(first.lines[0].get_xdata()) == [1, 2, 3]
    assert first.get_yscale() == "log"
    assert first.get_ylim() == second.get_ylim()


def test_a_spectrum_says_so_when_values_are_drawn_at_the_floor():
    assert legend_of(spectrum({"a": [[4.0, 1]]})) == ["a class", "mean over classes"]
    figure = spectrum({"a": [[4.0, 0]]})
    assert legend_of(figure)[2] == "floor: 10⁻⁶ of the largest"
    line, _, floor = figure.axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [4, 4e-6])
    np.testing.assert_allclose(floor.get_ydata(), 4e-6)


def test_a_spectrum_may_be_of_zeros_or_miss_a_class():
    spectrum({"a": torch.zeros(2, 3)})
    mean = spectrum({"a": [[NAN, NAN], [2.0, 1.0]]}).axes[0].lines[-1]
    assert list(mean.get_ydata()) == [2, 1]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_training_curves_are_means_over_seeds_in_a_band_of_one_deviation():
    figure = training_curves({"loss": {"a": ([1, 2], torch.tensor([[3.0, 1], [5, 3]]))}})
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 4], [2, 2]])
    low, high = ax.collections[0].get_datalim(ax.transData).intervaly
    assert (low, high) == pytest.approx((2 - 2**0.5, 4 + 2**0.5))


def test_training_curves_pass_over_epochs_that_were_not_measured():
    values = [[NAN, 1, NAN, 3], [NAN, 2, NAN, NAN]]
    (line,) = training_curves({"loss": {"a": (range(4), values)}}).axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[1, 1.5], [3, 3]])
    (line,) = training_curves({"loss": {"a": ([1, 2], [[NAN, NAN]])}}).axes[0].lines
    assert line.get_xdata().size == 0


def test_an_arm_has_one_colour_in_all_panels_though_it_is_missing_in_some():
    loss, error = ([1, 2], [[1, 2]]), ([1, 2], [[3, 4]])
    figure = training_curves({"loss": {"a": loss, "b": loss}, "error": {"b": error}})
    assert legend_of(figure) == ["a", "b"]
    assert [line.get_color() for line in figure.axes[0].lines] == list(COLOURS[:2])
    assert [line.get_color() for line in figure.axes[1].lines] == [COLOURS[1]]


def test_interpolations_have_a_panel_a_layer_and_a_line_an_arm():
    lam, rows = torch.linspace(0, 1, 3), torch.tensor([[1, 0.5, 1], [1, 0.8, NAN]])
    figure = interpolations(lam, {"input": {"a": rows[0], "b": rows[1]}, "fc": {"b": rows[0]}})
    assert [ax.get_title() for ax in figure.axes] == ["input", "fc"]
    np.testing.assert_allclose([line.get_ydata() for line in figure.axes[0].lines], rows)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), lam)
    assert figure.get_supxlabel() == "λ (weight of the sample itself)"
    assert figure.get_supylabel() == "mean confidence"
