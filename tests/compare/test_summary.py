"""What is said first of a comparison, in golden text."""

import math

import pytest

from lightning_mmix.compare.summary import summary

PLAIN = {
    "accuracy": 0.9,
    "nll": 0.3,
    "brier": 0.2,
    "ece": 0.05,
    "gap": 0.04,
    "ece_at_T": 0.03,
    "FGSM": 0.5,
    "PGD": 0.4,
    "zoom": 0.6,
    "rest": 1.0,
    "f1": 0.7,
}


def run(numbers):
    """A run, as far as there are numbers for it."""
    clean = {name: numbers[name] for name in ("accuracy", "nll", "brier", "ece", "gap")}
    families = [name for name in ("FGSM", "PGD", "zoom") if name in numbers]
    return {
        "clean": clean,
        "temperature": 1.5 if "ece_at_T" in numbers else None,
        "tempered": {**clean, "ece": numbers.get("ece_at_T")},
        "conditions": [{"family": name, "accuracy": numbers[name]} for name in families],
        "spectrum": {"net": [[1.0, numbers["rest"]]]} if "rest" in numbers else {},
        "own": {"test/f1": numbers["f1"]},
    }


def runs(without=(), **shifts):
    """Three runs whose numbers differ by shifts, and from each other a little."""
    numbers = {name: value + shifts.get(name, 0) for name, value in PLAIN.items()}
    return [
        run({name: value + noise for name, value in numbers.items() if name not in without})
        for noise in (-0.001, 0.0, 0.001)
    ]


def held(*ways, without=()):
    """The summary of ways to train against one whose runs are all the same."""
    plain = run({name: value for name, value in PLAIN.items() if name not in without})
    return summary({"plain": [plain] * len(ways[0]), **dict(zip("ab", ways, strict=False))})


def test_each_kind_of_score_has_a_line_that_names_every_way():
    mixed = runs(accuracy=0.02, nll=-0.1, ece=0.03, gap=-0.14, FGSM=0.1, zoom=-0.05, rest=-0.5)
    assert held(mixed, runs(brier=-0.05)) == [
        "Accuracy against plain: a is better, +2.00 points (interval +1.75 to +2.25); "
        "b shows no difference.",
        "Likelihood against plain: a is better in NLL, -0.100 (interval -0.102 to -0.098), and "
        "shows no difference in Brier score; b shows no difference in NLL, and is better in Brier "
        "score, -0.050 (-0.052 to -0.048).",
        "Calibration against plain (over-confident by 4.0 points): a (under-confident by 10.0 "
        "points) is worse in ECE, +3.00 points (interval +2.75 to +3.25), and shows no difference "
        "in ECE at the temperature; b (over-confident by 4.0 points) shows no difference in ECE "
        "and in ECE at the temperature.",
        "Robustness (accuracy in 3 families of conditions) against plain: a is better in 1, most "
        "clearly under FGSM, +10.00 points (interval +9.75 to +10.25), and is worse in 1, and "
        "shows no difference in 1; b shows no difference in any.",
        "Hidden states (effective rank) against plain: a spreads each class over fewer directions "
        "at net, -0.110 (interval -0.112 to -0.109); b shows no difference at net.",
    ]


def test_ways_of_which_the_same_is_said_share_a_clause():
    line = held(runs(), runs())[1]
    assert line == "Likelihood against plain: a and b show no difference in NLL and in Brier score."
    better = runs(FGSM=0.1, PGD=0.1, zoom=0.2)
    assert " a is better in all, most clearly under zoom, +20.00" in held(better)[3]


def test_a_single_family_of_conditions_is_named():
    line = held(runs(("PGD", "zoom"), FGSM=0.1), without=("PGD", "zoom"))[3]
    assert line == (
        "Robustness (accuracy under FGSM) against plain: a is better, +10.00 points "
        "(interval +9.75 to +10.25)."
    )


def test_what_is_missing_makes_room_for_what_there_is():
    without = ("rest", "FGSM", "PGD", "zoom")
    *_, tempered, logged = held(runs(without, nll=-0.1, f1=0.1), without=without)
    assert tempered == (
        "Likelihood at the temperature against plain: a is better in NLL, -0.100 (interval -0.102 "
        "to -0.098), and shows no difference in Brier score."
    )
    assert logged == (
        "test/f1 against plain: a makes it larger, +0.100 (interval +0.098 to +0.102)."
    )
    without += ("ece_at_T",)
    assert len(held(runs(without), without=without)) == 4


def logged(seeds=3, **shifts):
    """Runs of what is no classifier."""
    noise = (-0.001, 0.0, 0.001)[:seeds]
    return [
        {"own": {n: s + each for n, s in shifts.items()}, "unmeasured": "no labels"}
        for each in noise
    ]


def test_of_what_is_no_classifier_the_clearest_quantities_have_a_line_each():
    plain = [{"own": dict.fromkeys("uvwxyz", 0.0), "unmeasured": "no labels"}] * 3
    mixed = logged(u=0.0, v=-0.02, w=0.0, x=0.01, y=0.04, z=0.0)
    found = summary({"plain": plain, "a": mixed})
    assert [line[0] for line in found] == ["y", "v", "x", "u", "w"]
    assert found[1] == "v against plain: a makes it smaller, -0.020 (interval -0.022 to -0.018)."
    assert found[3] == "u against plain: a shows no difference."


def test_one_seed_gives_numbers_that_are_said_to_be_worth_little():
    found = held(runs(accuracy=0.02)[:1])
    assert found[:2] == [
        "Accuracy against plain: a differs, +1.90 points; one seed says nothing about others.",
        "Likelihood against plain: a differs in NLL, -0.001, and in Brier score, -0.001; one seed "
        "says nothing about others.",
    ]
    assert not any(line.startswith("Robustness") for line in found)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_diverged_is_no_reason_to_fail(value):
    found = held(runs(nll=value, gap=value), runs())
    assert found[1] == (
        "Likelihood against plain: a can't be compared in NLL, since a run gave NaN or infinity, "
        "and shows no difference in Brier score; b shows no difference in NLL and in Brier score."
    )
    assert "points): a and b (over-confident by 4.0 points) show no" in found[2]


def test_of_one_way_alone_there_is_nothing_to_say():
    assert summary({"plain": runs()}) == []
