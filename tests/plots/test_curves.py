import numpy as np
import pytest
import torch

from lightning_mmix.plots.curves import Curve, robustness_curves
from lightning_mmix.plots.look import COLOURS

NAN = float("nan")


def curve(arm="a", family="rotation", strengths=(10, 20), mean=(90, 60)):
    return Curve(arm, family, "degrees", strengths, mean[: len(strengths)], [2] * len(strengths))


def test_a_family_of_several_strengths_is_a_panel_with_a_line_an_arm():
    rows = [curve("a"), curve("b", mean=torch.tensor([80, 70])), curve("b", "shear")]
    figure = robustness_curves(rows, "accuracy (%)")
    rotation, shear = figure.axes
    assert (rotation.get_title(), rotation.get_xlabel()) == ("rotation", "degrees")
    drawn = [bar.lines[0].get_xydata() for bar in rotation.containers]
    np.testing.assert_allclose(drawn, [[[10, 90], [20, 60]], [[10, 80], [20, 70]]])
    assert shear.containers[0].lines[0].get_color() == COLOURS[1]
    assert figure.get_supylabel() == "accuracy (%)"


def test_the_bars_are_one_standard_deviation():
    (bar,) = robustness_curves([curve()], "accuracy (%)").axes[0].containers
    segments = bar.lines[2][0].get_segments()
    np.testing.assert_allclose(segments, [[[10, 88], [10, 92]], [[20, 58], [20, 62]]])


def test_families_of_a_single_strength_share_the_last_panel_as_points():
    rows = [
        curve("a", "PGD", [20]),
        curve("a"),
        *(curve(arm, "time shift of a frame", [1]) for arm in ("a", "b")),
    ]
    figure = robustness_curves(rows, "accuracy (%)")
    lines, points = figure.axes
    assert lines.get_title() == "rotation"
    labels = [label.get_text() for label in points.get_xticklabels()]
    assert labels == ["PGD\ndegrees 20", "time shift\nof a frame\ndegrees 1"]
    at = [bar.lines[0].get_xdata().item() for bar in points.containers]
    assert np.round(at).tolist() == [0, 1, 1]
    assert at[1] < 1 < at[2]


def test_all_panels_have_the_same_scale():
    rows = [curve(), curve(family="shear", mean=(10, 5)), curve(family="PGD", strengths=[1])]
    assert len({ax.get_ylim() for ax in robustness_curves(rows, "accuracy (%)").axes}) == 1


@pytest.mark.parametrize(
    ("lines", "points", "grid"),
    [(1, 0, (1, 1)), (4, 0, (1, 4)), (5, 0, (2, 3)), (12, 0, (3, 4)), (0, 3, (1, 1)),
     (3, 3, (1, 4)), (4, 4, (2, 4)), (0, 12, (1, 1))],
)  # fmt: skip
def test_panels_stand_in_rows_of_at_most_four(lines, points, grid):
    rows = [curve(family=f"f{i}", strengths=(1, 2)) for i in range(lines)]
    rows += [curve(family=f"g{i}", strengths=[1]) for i in range(points)]
    figure = robustness_curves(rows, "accuracy (%)")
    assert len(figure.axes) == lines + bool(points)
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == grid


def test_a_single_run_has_no_deviation():
    row = Curve("a", "rotation", "degrees", [10, 20], [90, 60], [NAN, NAN])
    (bar,) = robustness_curves([row], "accuracy (%)").axes[0].containers
    assert bar.lines[0].get_ydata().tolist() == [90, 60]


def test_what_is_not_a_number_leaves_a_gap():
    figure = robustness_curves([curve(mean=(NAN, 60)), curve("b", mean=(NAN, NAN))], "accuracy (%)")
    assert np.isnan(figure.axes[0].containers[0].lines[0].get_ydata()).tolist() == [True, False]
