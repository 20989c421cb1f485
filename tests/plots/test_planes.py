import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from lightning_mmix.plots.look import HUES, tint
from lightning_mmix.plots.planes import Boundary, decision_boundaries

POINTS = torch.tensor([[-0.5, 0.0], [0.5, 0.1], [0.6, -0.2]])


def boundary(classes=2, **others):
    """Class c wins in the c-th of strips from left to right, in a plane of 4 times 2."""
    centre = torch.linspace(-2, 2, 2 * classes + 1)[1::2]
    scores = -((torch.linspace(-2, 2, 41)[:, None] - centre) ** 2) * 5
    probs = scores.softmax(-1).expand(21, 41, classes)
    return Boundary(probs, (-2, 2, -1, 1), POINTS, [0, *[classes - 1] * 2], **others)


def lines(ax):
    """Where the contours run, in x, by how they are dashed."""
    found = {}
    for contour in ax.collections:
        at = contour.get_paths()[0].vertices[:, 0]
        found.setdefault(contour.get_linestyle()[0][1] is None, []).extend(np.unique(at.round(2)))
    return found[True], found[False]


def test_each_arm_has_its_input_space_above_its_hidden_states():
    panel = boundary(hidden=9 * POINTS, note="half is sure", hidden_note="all in a line")
    figure = decision_boundaries({"a": panel, "b": panel})
    above, below = figure.axes[:2], figure.axes[2:]
    assert [ax.get_title() for ax in above] == ["a", "b"]
    assert {ax.get_xlabel() for ax in above} == {"$x_1$\nhalf is sure"}
    assert {ax.get_xlabel() for ax in below} == {"$h_1$\nall in a line"}
    np.testing.assert_allclose(below[1].lines[1].get_xydata(), 9 * POINTS[1:])


def test_the_hue_is_the_class_and_the_intensity_the_confidence():
    probs = torch.tensor([[[1.0, 0], [0.75, 0.25]], [[0.5, 0.5], [0, 1.0]]])
    (ax,) = decision_boundaries({"a": Boundary(probs, (0, 1, 0, 1), POINTS, [0, 1, 1])}).axes
    first, second = (np.array(tint(hue, 0.7)) for hue in HUES[:2])
    (image,) = ax.images
    assert image.origin == "lower"
    expected = [[first, (first + 1) / 2], [np.ones(3), second]]
    np.testing.assert_allclose(image.get_array(), expected)


def test_pixels_are_centred_on_the_points_of_the_grid():
    (ax,) = decision_boundaries({"a": boundary()}).axes
    assert ax.images[0].get_extent() == pytest.approx((-2.05, 2.05, -1.05, 1.05))
    assert (*ax.get_xlim(), *ax.get_ylim()) == (-2, 2, -1, 1)


def test_lines_run_where_two_classes_tie_and_where_confidence_is_nine_tenths():
    (ax,) = decision_boundaries({"a": boundary()}).axes
    ties, sure = lines(ax)
    assert ties == pytest.approx([0], abs=0.01)
    # p = 0.9 ⇔ 20 |x| = ln 9
    assert sure == pytest.approx([-0.11, 0.11], abs=0.02)
    ties, _ = lines(decision_boundaries({"a": boundary(4)}).axes[0])
    assert sorted(set(ties)) == pytest.approx([-1, 0, 1], abs=0.01)


def test_points_of_a_class_have_its_hue_and_marker():
    (ax,) = decision_boundaries({"a": boundary()}).axes
    first, second = ax.lines
    np.testing.assert_allclose(second.get_xydata(), POINTS[1:])
    assert [line.get_markerfacecolor() for line in (first, second)] == list(HUES[:2])
    assert first.get_marker() != second.get_marker()


def test_a_key_shows_the_confidence_of_every_class():
    (ax,) = decision_boundaries({"a": boundary(3)}).axes
    (key,) = ax.child_axes
    assert key.get_ylabel() == "confidence"
    assert key.get_ylim() == pytest.approx((1 / 3, 1))
    full = key.images[0].get_array()[-1]
    np.testing.assert_allclose(full, [1 - 0.7 * (1 - np.array(to_rgb(hue))) for hue in HUES[:3]])


def test_the_legend_names_classes_and_lines():
    figure = decision_boundaries({"a": boundary()})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["class 0", "class 1", "decision boundary", "confidence 0.9"]


def test_an_arm_without_hidden_states_leaves_its_place_empty():
    figure = decision_boundaries({"a": boundary(), "b": boundary(hidden=POINTS)})
    assert [ax.get_xlabel() for ax in figure.axes] == ["$x_1$", "$x_1$", "$h_1$"]


def test_there_may_be_one_class_or_more_than_hues():
    for classes in (1, 12):
        (ax,) = decision_boundaries({"a": boundary(classes)}).axes
        assert len(ax.child_axes[0].images[0].get_array()[0]) == classes


def test_what_is_not_a_number_has_no_confidence():
    probs = torch.full((3, 3, 2), float("nan"))
    (ax,) = decision_boundaries({"a": Boundary(probs, (0, 1, 0, 1), POINTS, [0, 1, 1])}).axes
    np.testing.assert_allclose(ax.images[0].get_array(), 1)
    assert not ax.collections
