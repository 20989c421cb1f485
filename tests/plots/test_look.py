import numpy as np
import pytest
import torch

from lightning_mmix.plots.look import (
    arm_legend,
    array,
    cycled,
    ink,
    panels,
    positions,
    sheet,
    tint,
)


@pytest.mark.parametrize(
    "values", [[1, 2], torch.tensor([1, 2]), torch.tensor([1.0, 2.0]).bfloat16().requires_grad_()]
)
def test_values_of_any_kind_become_float64(values):
    assert array(values).dtype == np.float64
    assert array(values).tolist() == [1, 2]


def test_two_arms_differ_in_colour_dashes_and_marker():
    for name in ("color", "linestyle", "marker"):
        assert len({ink(position)[name] for position in range(4)}) == 4


def test_arms_differ_in_lightness():
    lightness = [np.dot(tint(ink(i)["color"], 1), (0.299, 0.587, 0.114)) for i in range(3)]
    assert np.diff(sorted(lightness)).min() > 0.2


def test_markers_stand_on_about_eight_points_and_not_on_those_of_the_next_arm():
    for points in (0, 1, 8):
        assert ink(1, points)["markevery"] == (0, 1)
    starts, steps = zip(*(ink(position, 60)["markevery"] for position in range(4)), strict=True)
    assert set(steps) == {7}
    assert len(set(starts)) == 4


def test_positions_are_in_order_of_first_appearance():
    assert positions(["b", "a", "b", "c"]) == {"b": 0, "a": 1, "c": 2}


def test_choices_begin_anew_when_they_run_out():
    assert [cycled("ab", position) for position in range(3)] == ["a", "b", "a"]


def test_a_tint_lies_between_white_and_the_colour():
    assert tint("#ff0000", 0) == (1, 1, 1)
    assert tint("#ff0000", 0.5) == (1, 0.5, 0.5)
    assert tint("#ff0000", 1) == (1, 0, 0)


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (5, 2, 3), (7, 2, 4)])
def test_panels_stand_in_rows_of_about_equal_length(count, rows, columns):
    figure, axes = panels(count, 2.0)
    assert figure.axes == axes
    assert len(axes) == count
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == (rows, columns)
    assert figure.get_figwidth() <= 8


def test_a_legend_has_columns_of_equal_length_that_fit_the_figure():
    figure = sheet(3, 2)
    arm_legend(figure, [f"an arm of the name {i}" for i in range(5)])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend._ncols == 3
    assert legend.get_window_extent().width < figure.bbox.width
