"""What is said first of a comparison, in golden text."""

import math

import pytest

from lightning_mmix.compare.summary import caveats, summary

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
    results = {"plain": [plain] * len(ways[0]), **dict(zip("ab", ways, strict=False))}
    return [line.replace("\xa0", " ") for line in summary(results)]


def test_each_kind_of_score_has_a_line_that_names_every_way():
    mixed = runs(accuracy=0.02, nll=-0.1, ece=0.03, gap=-0.14, FGSM=0.1, zoom=-0.05, rest=-0.5)
    assert held(mixed, runs(brier=-0.05)) == [
        "Accuracy: plain 90.00 %; a 92.00 %: better, +2.00 points (+1.75 to +2.25); b 90.00 %: "
        "no difference shown.",
        "Likelihood (NLL): plain 0.300; a 0.200: better, -0.100 (-0.102 to -0.098), but no "
        "difference shown in Brier score, 0.000 (-0.002 to +0.002); b 0.300: no difference shown, "
        "but better in Brier score, -0.050 (-0.052 to -0.048).",
        "Calibration: plain over-confident by 4.00 points; a under-confident by 10.00 points: a "
        "change of -14.00 points (-14.25 to -13.75), and worse in ECE, +3.00 points (+2.75 to "
        "+3.25), and no difference shown in ECE at the temperature, 0.00 points (-0.25 to +0.25); "
        "b over-confident by 4.00 points: no difference shown.",
        "Robustness (accuracy on disturbed inputs): a is better under FGSM, 50.00 → 60.00 %, "
        "+10.00 points (+9.75 to +10.25), and is worse under zoom, 60.00 → 55.00 %, -5.00 points "
        "(-5.25 to -4.75), and no difference shown under PGD; b: no difference shown.",
        "Hidden states (directions that a class spreads over on average; neither good nor bad): a "
        "has fewer at net, 2.00 → 1.89, -0.11 (-0.11 to -0.11); b: no difference shown.",
    ]


def test_better_likelihood_that_a_temperature_gives_as_well_is_told_as_such():
    warm = [{**each, "tempered": {**each["tempered"], "nll": 0.3}} for each in runs(nll=-0.1)]
    assert "but no difference shown at a fitted temperature, 0.000" in held(warm)[1]


def test_a_change_of_confidence_in_both_directions_is_no_calibration():
    line = held(runs(gap=-0.08))[2]
    assert "a under-confident by 4.00 points: a change of -8.00 points (-8.25 to -7.75), " in line
    assert line.endswith("but no difference shown in ECE, 0.00 points (-0.25 to +0.25).")


def test_ways_of_which_the_same_is_said_share_a_clause():
    line = held(runs(), runs())[1]
    expected = "plain 0.300; a 0.300 and b 0.300: no difference shown for either."
    assert line == f"Likelihood (NLL): {expected}"


def test_of_many_families_the_greatest_difference_is_told():
    names = [f"attack {i}" for i in range(6)]

    def attacked(*shifts):
        rows = [{"family": n, "accuracy": 0.5 + s} for n, s in zip(names, shifts, strict=True)]
        return {**run(PLAIN), "conditions": rows}

    moved = [attacked(0.1 + noise, 0.2 + noise, *[noise] * 4) for noise in (-0.001, 0, 0.001)]
    line = summary({"plain": [attacked(*[0] * 6)] * 3, "a": moved})[3].replace("\xa0", " ")
    assert line.split(": ")[1] == (
        "a is better under 2 of 6, most under attack 1, 50.00 → 70.00 %, +20.00 points "
        "(+19.75 to +20.25), and no difference shown under 4 of 6."
    )


def test_no_interval_breaks_over_two_lines():
    plain = [run(PLAIN)] * 3
    line = summary({"plain": plain, "a": runs(accuracy=0.02)})[0]
    assert "92.00\xa0%: better, +2.00\xa0points (+1.75\xa0to\xa0+2.25)." in line


def test_what_is_missing_makes_room_for_what_there_is():
    without = ("rest", "FGSM", "PGD", "zoom")
    *_, calibration, logged = held(runs(without, f1=0.1), without=without)
    assert calibration.startswith("Calibration: ")
    assert logged == "test/f1: plain 0.700; a 0.800: larger, +0.100 (+0.098 to +0.102)."
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
    assert found[1].replace("\xa0", " ") == (
        "v: plain 0.000; a -0.020: smaller, -0.020 (-0.022 to -0.018)."
    )
    assert found[3] == "u: plain 0.000; a 0.000: no difference shown."


def test_one_seed_gives_numbers_that_are_said_to_be_worth_little():
    found = held(runs(accuracy=0.02)[:1])
    assert found[0] == (
        "Accuracy: plain 90.00 %; a 91.90 %: +1.90 points; one seed says nothing about others."
    )
    assert "a differs under FGSM, 50.00 → 49.90 %, -0.10 points" in found[3]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_diverged_is_no_reason_to_fail(value):
    found = held(runs(nll=value, gap=value), runs())
    assert found[1].startswith(
        "Likelihood (NLL): plain 0.300; a: not comparable, since a run gave NaN or infinity, but "
        "no difference shown in Brier score, "
    )
    assert "points; a: not comparable, since a run gave NaN or infinity, but no" in found[2]


def test_few_seeds_and_many_comparisons_are_said_before_anything_else():
    few = {"plain": [run(PLAIN)] * 2, "a": runs()[:2]}
    assert caveats(few) == [
        "Only 2 seeds: a first look. An interval reaches 9 standard deviations of the differences "
        "to each side; with --seeds 5 it would be 1.2."
    ]
    many = {"plain": runs() * 2, "a": runs() * 2, "b": runs() * 2}
    assert caveats(many) == [
        "Of the 48 comparisons, 2 or 3 would look clear by chance even if nothing differed."
    ]


def test_of_one_way_alone_there_is_nothing_to_say():
    assert summary({"plain": runs()}) == caveats({"plain": runs() * 2}) == []
