import math

import pytest
import torch
from scipy import stats

from lightning_mmix.compare.differences import Difference, digits_for, paired_difference

VALUES, BASE = [0.93, 0.951, 0.947, 0.92, 0.96], [0.91, 0.924, 0.93, 0.925, 0.931]
DIFFERENCES = [a - b for a, b in zip(VALUES, BASE, strict=True)]


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_interval_is_students(count, confidence):
    found = paired_difference(VALUES[:count], BASE[:count], confidence)
    own = DIFFERENCES[:count]
    low, high = stats.t.interval(confidence, count - 1, sum(own) / count, stats.sem(own))
    assert found.mean - found.half_width == pytest.approx(low)
    assert found.mean + found.half_width == pytest.approx(high)
    assert found.pairs == count


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.03])
def test_a_difference_is_clear_where_the_paired_t_test_says_so(shift):
    base = [b + shift for b in BASE]
    pvalue = stats.ttest_rel(VALUES, base).pvalue
    for confidence in (0.5, 0.8, 0.95, 0.999):
        found = paired_difference(VALUES, base, confidence)
        assert found.is_clear == (pvalue < 1 - confidence)


def test_pairs_are_told_apart_where_their_means_are_not():
    spread, less = [0.1, 0.5, 0.9], [0.09, 0.488, 0.89]
    assert paired_difference(spread, less).is_clear
    assert not paired_difference(spread, less[::-1]).is_clear


@pytest.mark.parametrize(
    ("mean", "half_width", "verdicts"),
    [
        (0.2, 0.1, ("better", "worse")),
        (-0.2, 0.1, ("worse", "better")),
        (0.1, 0.1, ("no difference",) * 2),
        (-0.1, 0.2, ("no difference",) * 2),
        (math.nan, math.nan, ("no difference",) * 2),
    ],
)
def test_the_verdict_follows_the_interval_and_what_is_better(mean, half_width, verdicts):
    found = Difference(mean, half_width, 3)
    assert tuple(found.verdict(higher_is_better=each) for each in (True, False)) == verdicts


def test_one_pair_says_nothing_of_others():
    found = paired_difference([0.9], [0.8])
    assert found == Difference(pytest.approx(0.1), math.inf, 1)
    assert not found.is_clear


def test_runs_that_are_equal_do_not_differ_and_a_constant_difference_is_clear():
    assert paired_difference(BASE, BASE) == Difference(0, 0, 5)
    assert not paired_difference(BASE, BASE).is_clear
    assert paired_difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == Difference(1, 0, 3)


def test_a_spread_of_rounding_errors_makes_no_difference_a_clear_one():
    single = [0.76, 0.78, 0.75], [0.74, 0.76, 0.73]  # accuracies, which are counted in float32
    values, base = (torch.tensor(each).tolist() for each in single)
    found = paired_difference(values, base)
    assert (found.half_width, found.is_clear) == (0, False)
    assert found.mean == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([91.5, 0.1], 2), ([0.4, math.nan], 3), ([-0.01], 3), ([0.0], 3), ([0.004, -0.002], 5)],
)
def test_so_many_digits_show_a_value(values, expected):
    assert digits_for(values) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_run_that_diverged_makes_no_clear_difference(bad):
    found = paired_difference([bad, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert (math.isfinite(found.mean), found.is_clear) == (False, False)


@pytest.mark.parametrize("counts", [(0, 0), (1, 2), (3, 0)])
def test_runs_without_a_pair_are_refused(counts):
    with pytest.raises(
        ValueError, match="expected pairs of runs, but got {} and {}".format(*counts)
    ):
        paired_difference(VALUES[: counts[0]], BASE[: counts[1]])
