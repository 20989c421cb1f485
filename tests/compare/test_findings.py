"""What is said of runs, in golden text."""

import pytest

from lightning_mmix.compare.findings import (
    calibration_scores,
    clean_scores,
    family_scores,
    findings,
    noise_scores,
    spectrum_scores,
    table,
    tempered_scores,
)

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


UP, DOWN, NEITHER = (0.019, 0.02, 0.021), (-0.019, -0.02, -0.021), (-0.01, 0, 0.02)


@pytest.mark.parametrize(
    ("key", "differences", "sentence"),
    [
        ("accuracy", UP, "accuracy is better, +2.00 points (95 % interval +1.75 to +2.25)."),
        ("accuracy", DOWN, "accuracy is worse, -2.00 points (95 % interval -2.25 to -1.75)."),
        (
            "accuracy",
            NEITHER,
            "no difference in accuracy shown with 3 seeds, "
            "+0.33 points (95 % interval -3.46 to +4.13).",
        ),
        ("accuracy", UP[:1], "accuracy +1.90 points; one seed says nothing about others."),
        ("nll", UP, "NLL is worse, +0.020 (95 % interval +0.018 to +0.022)."),
        ("nll", DOWN, "NLL at T is better, -0.010 (95 % interval -0.011 to -0.009)."),
        ("nll", DOWN[:1], "NLL -0.019; one seed says nothing about others."),
        ("ece", DOWN, "ECE is better, -2.00 points (95 % interval -2.25 to -1.75)."),
        ("ece", UP, "ECE at T is worse, +1.00 points (95 % interval +0.88 to +1.12)."),
        ("brier", DOWN, "Brier is better, -0.020 (95 % interval -0.022 to -0.018)."),
        (
            "brier",
            NEITHER,
            "no difference in Brier shown with 3 seeds, +0.003 (95 % interval -0.035 to +0.041).",
        ),
    ],
)
def test_a_clean_score_is_better_worse_or_not_shown_to_differ(key, differences, sentence):
    results = {"plain": [run()] * len(differences), "mixed": moved(key, differences)}
    assert f"mixed against plain: {sentence}" in findings(results)


def attacked(*accuracies):
    return [run(conditions=[{"family": "FGSM", "accuracy": a}]) for a in accuracies]


def test_a_family_is_better_or_worse():
    found = findings({"plain": attacked(0.5, 0.5, 0.5), "mixed": attacked(0.519, 0.52, 0.521)})
    expected = "accuracy under FGSM is better, +2.00 points (95 % interval +1.75 to +2.25)."
    assert found[-1] == f"mixed against plain: {expected}"


def spread(*rests):
    return [run(spectrum={"net.1": [[4.0, rest]]}) for rest in rests]


def test_a_spectrum_is_larger_or_smaller_but_never_better():
    found = findings({"plain": spread(2, 2, 2), "mixed": spread(1.019, 1.02, 1.021)})
    assert found[-2] == (
        "mixed against plain: net.1 rest is smaller, -0.980 (95 % interval -0.982 to -0.978)."
    )
    assert "net.1 effective rank is smaller" in found[-1]
    assert "no difference in net.1 largest shown with 3 seeds, +0.000" in found[-3]
    turned = findings({"plain": spread(1, 1), "mixed": spread(2, 2.001)})
    assert "net.1 rest is larger, +1.00 (95 % interval +0.99 to +1.01)" in turned[-2]


def test_equal_differences_have_no_width_to_judge_by():
    found = findings({"plain": spread(1, 1), "mixed": spread(2, 2)})
    assert "no difference in net.1 rest shown with 2 seeds, +1.000" in found[-2]


def labels(found):
    return [each.split("; ")[0].rsplit(" ", 1)[0].removesuffix(" +0.00") for each in found]


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
    ["accuracy", "NLL", "ECE", "Brier", "smECE"],
    ["NLL at T", "ECE at T", "Brier at T", "smECE at T"],
    ["accuracy under zoom"],
    ["net largest", "net rest", "net effective rank"],
    ["loss"],
]


def test_every_way_is_held_against_the_first_and_the_third_against_the_second():
    pairs = ["mixup against plain", "manifold against plain", "manifold against mixup"]
    expected = [f"{pair}: {name}" for kind in KINDS for pair in pairs for name in kind]
    assert labels(findings(FULL)) == expected


def test_what_a_module_logs_is_larger_or_smaller_with_as_many_digits_as_tell():
    def logged(*values):
        return [run(own={"loss": value}, temperature=None) for value in values]

    found = findings({"plain": logged(5, 5, 5), "mixed": logged(5.0029, 5.003, 5.0031)})
    assert found[-1] == (
        "mixed against plain: loss is larger, +0.00300 (95 % interval +0.00275 to +0.00325)."
    )


def test_of_what_is_no_classifier_there_are_findings_of_what_it_logs():
    bare = [{"own": {"loss": 1.0}, "unmeasured": "targets are no labels"}] * 2
    assert findings({"plain": bare, "mixed": bare}) == [
        "mixed against plain: no difference in loss shown with 2 seeds, "
        "+0.000 (the same with every seed)."
    ]


def test_one_way_alone_is_held_against_nothing():
    assert findings({"plain": [run(), run()]}) == []


def test_a_run_that_diverged_is_no_reason_to_fail():
    results = {"plain": [run(), run()], "mixed": [run(), run(nll=float("nan"))]}
    assert findings(results)[1] == (
        "mixed against plain: NLL can't be compared, since a run gave NaN or infinity."
    )
