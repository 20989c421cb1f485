"""What is said of runs, in golden text."""

from itertools import groupby

import pytest

from lightning_mmix.compare.findings import compared, repeated
from lightning_mmix.compare.runs.scores import (
    calibration_scores,
    clean_scores,
    family_scores,
    spectrum_scores,
    table,
    tempered_scores,
)
from lightning_mmix.compare.score_tables import noise_scores
from lightning_mmix.compare.summary import sentences

CLEAN = {"accuracy": 0.9, "nll": 0.3, "ece": 0.05, "brier": 0.15, "gap": 0.04, "smece": 0.06}


def run(temperature=1.5, conditions=(), spectrum=None, own=None, **clean):
    """A run, as far as findings look at it."""
    rows = [{"family": "clean", "accuracy": 0.9}, *conditions]
    scores = {**CLEAN, **clean}
    at_t = {name: value / 2 for name, value in scores.items()}
    return {
        "clean": scores,
        "temperature": temperature,
        "tempered": None if temperature is None else at_t,
        "conditions": rows,
        "spectrum": spectrum or {},
        "own": own or {},
    }


def test_clean_scores_are_in_percent_or_as_they_are():
    expected = {"accuracy %": 90, "NLL": 0.3, "ECE %": 5, "Brier": 0.15}
    assert clean_scores(run()) == pytest.approx(expected)


def test_calibration_scores_are_those_at_the_temperature_if_there_is_one():
    plain, at_t = {"gap %": 4, "smECE %": 6}, {"NLL at T": 0.15, "ECE % at T": 2.5}
    expected = {**plain, "T": 1.5, **at_t, "Brier at T": 0.075, "smECE % at T": 3}
    assert calibration_scores(run()) == pytest.approx(expected)
    assert calibration_scores(run(temperature=None)) == pytest.approx(plain)


def test_a_run_from_before_there_was_a_score_is_compared_without_it():
    earlier = run()
    del earlier["clean"]["smece"], earlier["tempered"]["smece"]
    assert list(calibration_scores(earlier)) == [
        "gap %",
        "T",
        "NLL at T",
        "ECE % at T",
        "Brier at T",
    ]
    found = table({"a": [run()], "b": [earlier]}, calibration_scores)
    assert "smECE %" not in found["a"]


def test_scores_at_the_temperature_are_those_of_the_clean_ones_with_it_before_them():
    expected = {"T": 1.5, "NLL": 0.15, "ECE %": 2.5, "Brier": 0.075}
    assert tempered_scores(run()) == pytest.approx(expected)
    assert tempered_scores(run(temperature=None)) == {}


def test_of_noise_and_fgsm_the_two_weakest_are_picked():
    of = [("zoom", 0.6, 1), ("FGSM", 0.125, 0.5), ("FGSM", 0.03, 0.7), ("FGSM", 0.5, 0.3)]
    rows = [{"family": f, "strength": s, "accuracy": a} for f, s, a in of]
    assert noise_scores(run(conditions=rows)) == pytest.approx({"FGSM 0.03": 70, "FGSM 0.12": 50})
    rows.append({"family": "Gaussian noise", "strength": 0.2, "accuracy": 0.6})
    assert list(noise_scores(run(conditions=rows))) == ["noise 0.2", "FGSM 0.03", "FGSM 0.12"]
    assert noise_scores(run()) == {}


def test_a_family_is_scored_by_its_mean_over_the_strengths():
    rows = [("FGSM", 0.5), ("zoom", 0.8), ("FGSM", 0.2), ("FGSM", 0.2)]
    found = family_scores(run(conditions=[{"family": f, "accuracy": a} for f, a in rows]))
    assert found == pytest.approx({"FGSM": 30, "zoom": 80})


def test_a_spectrum_is_summed_up_over_the_classes_that_there_are():
    values = [[4.0, 2.0, 2.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    found = spectrum_scores(run(spectrum={"net": values}))
    rank = (2**1.5 + 2) / 2  # exp of the entropies 1.5·log 2 and log 2
    expected = {"net largest": 3, "net rest": 3, "net effective rank": rank}
    assert found == pytest.approx(expected)


def test_a_table_holds_the_scores_that_all_runs_have():
    results = {"a": [run(), run(temperature=None)], "b": [run(), run()]}
    found = table(results, calibration_scores)
    expected = {"gap %": pytest.approx([4, 4]), "smECE %": pytest.approx([6, 6])}
    assert found == {"a": expected, "b": expected}
    assert list(table(results, clean_scores)["b"]) == ["accuracy %", "NLL", "ECE %", "Brier"]


def moved(key, differences):
    """A run for each difference from the plain one."""
    return [run(**{key: CLEAN[key] + difference}) for difference in differences]


def findings(results):
    """What is said of each pair, kind by kind."""
    pairs = groupby(compared(results), lambda each: (each.kind, each.pair))
    return [
        f"{pair}: {each}".replace("\xa0", " ")
        for (_, pair), own in pairs
        for each in sentences(list(own))
    ]


UP, DOWN, NEITHER = (0.019, 0.02, 0.021), (-0.019, -0.02, -0.021), (-0.01, 0, 0.02)


@pytest.mark.parametrize(
    ("key", "differences", "sentence"),
    [
        ("accuracy", UP, "accuracy is better, +2.00 points (+1.75 to +2.25)."),
        ("accuracy", DOWN, "accuracy is worse, -2.00 points (-2.25 to -1.75)."),
        ("nll", UP, "NLL is worse, +0.020 (+0.018 to +0.022)."),
        ("nll", DOWN, "NLL at T is better, -0.010 (-0.011 to -0.009)."),
        ("ece", DOWN, "ECE is better, -2.00 points (-2.25 to -1.75)."),
        ("ece", UP, "ECE at T is worse, +1.00 points (+0.88 to +1.12)."),
        ("brier", DOWN, "Brier is better, -0.020 (-0.022 to -0.018)."),
    ],
)
def test_a_clean_score_is_better_or_worse(key, differences, sentence):
    results = {"plain": [run()] * len(differences), "mixed": moved(key, differences)}
    assert f"mixed against plain: {sentence}" in findings(results)


def test_what_is_not_shown_to_differ_shares_a_sentence():
    results = {"plain": [run()] * 3, "mixed": moved("accuracy", NEITHER)}
    first = "mixed against plain: No difference shown: accuracy +0.33 points (-3.46 to +4.13); NLL "
    assert findings(results)[0].startswith(first)
    single = {arm: runs[:1] for arm, runs in results.items()}
    first = "mixed against plain: One seed says nothing about others: accuracy -1.00 points; NLL "
    assert findings(single)[0].startswith(first)


def attacked(*accuracies):
    return [run(conditions=[{"family": "FGSM", "accuracy": a}]) for a in accuracies]


def test_a_family_is_better_or_worse():
    found = findings({"plain": attacked(0.5, 0.5, 0.5), "mixed": attacked(0.519, 0.52, 0.521)})
    expected = "accuracy under FGSM is better, +2.00 points (+1.75 to +2.25)."
    assert found[-1] == f"mixed against plain: {expected}"


def spread(*rests):
    return [run(spectrum={"net.1": [[4.0, rest]]}) for rest in rests]


def test_a_spectrum_is_larger_or_smaller_but_never_better():
    found = findings({"plain": spread(2, 2, 2), "mixed": spread(1.019, 1.02, 1.021)})
    assert found[-3] == (
        "mixed against plain: net.1: sum of the rest is smaller, -0.98 (-0.98 to -0.98)."
    )
    assert "net.1: effective rank is smaller" in found[-2]
    assert "No difference shown: net.1: largest 0.00 (" in found[-1]
    turned = findings({"plain": spread(1, 1), "mixed": spread(2, 2.001)})
    assert "net.1: sum of the rest is larger, +1.000 (+0.994 to +1.007)" in turned[-3]


def test_equal_differences_have_no_width_to_judge_by():
    found = findings({"plain": spread(1, 1), "mixed": spread(2, 2)})
    assert "net.1: sum of the rest +1.000 (the same with every seed)" in found[-1]


FULL = {
    arm: [
        run(
            conditions=[{"family": "zoom", "accuracy": 0.5}],
            spectrum={"net": [[2.0, 1.0]]},
            own={"loss": 3.0},
        )
    ]
    for arm in ("plain", "mixup", "manifold")
}
KINDS = [
    ["accuracy %", "NLL", "ECE %", "Brier", "smECE %", "gap %"],
    ["NLL at T", "ECE % at T", "Brier at T", "smECE % at T", "gap % at T"],
    ["accuracy % under zoom"],
    ["net: largest", "net: sum of the rest", "net: effective rank"],
    ["loss"],
]


def test_every_way_is_held_against_the_first_and_the_third_against_the_second():
    pairs = ["mixup against plain", "manifold against plain", "manifold against mixup"]
    expected = [(pair, name) for kind in KINDS for pair in pairs for name in kind]
    assert [(each.pair, each.label) for each in compared(FULL)] == expected


def test_what_a_module_logs_is_larger_or_smaller_with_as_many_digits_as_tell():
    def logged(*values):
        return [run(own={"loss": value}, temperature=None) for value in values]

    found = findings({"plain": logged(5, 5, 5), "mixed": logged(5.0029, 5.003, 5.0031)})
    assert found[-1] == ("mixed against plain: loss is larger, +0.00300 (+0.00275 to +0.00325).")


def test_of_what_is_no_classifier_there_are_findings_of_what_it_logs():
    bare = [{"own": {"loss": 1.0}, "unmeasured": "targets are no labels"}] * 2
    assert findings({"plain": bare, "mixed": bare}) == [
        "mixed against plain: No difference shown: loss 0.000 (the same with every seed)."
    ]


def test_one_way_alone_is_held_against_nothing():
    assert findings({"plain": [run(), run()]}) == []


def test_a_run_that_diverged_is_no_reason_to_fail():
    results = {"plain": [run(), run()], "mixed": [run(), run(nll=float("nan"))]}
    assert findings(results)[0] == (
        "mixed against plain: NLL is not comparable, since a run gave NaN or infinity."
    )


def test_what_a_module_logs_is_left_out_where_it_equals_a_score_in_every_run():
    def logged(**own):
        return run(own={"loss": 0.3, "f1": 0.9, "T": 1.5, "ece": 0.025, **own})

    results = {"plain": [logged(), logged()], "mixed": [logged(), logged(loss=0.3000001, f1=0.8)]}
    assert repeated(results) == ["loss", "T", "ece"]
    assert [each.label for each in compared(results) if not each.kind.is_judged] == ["f1"]
