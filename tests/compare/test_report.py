"""The report and its pictures, of results that were not trained for."""

import json
import math
import re
import shlex

import pytest
import torch

from lightning_mmix.compare.pictures import pictures
from lightning_mmix.compare.report import write_report

ABOUT = {"command": "lightning-mmix compare --config c.yaml", "machine": "a desk"}


def run(arm, seed, accuracy):
    scores = {"samples": 8.0, "accuracy": accuracy, "nll": 1 - accuracy, "brier": 0.5, "ece": 0.1}
    scores = {**scores, "smece": 0.05, "gap": -0.1}
    row = {"condition": "clean", "family": "clean", "strength": 0.0, "unit": "", **scores}
    strengths = [
        {**row, "condition": f"FGSM {eps}", "family": "FGSM", "strength": eps, "unit": "ε",
         "accuracy": accuracy - eps}
        for eps in (0.1, 0.2)
    ]  # fmt: skip
    return {
        "arm": arm,
        "seed": seed,
        "stage": "test",
        "own": {"test/f1": accuracy / 2},
        "clean": scores,
        "tempered": scores,
        "temperature": 0.5,
        "bins": [[0.0, 8.0], [0.0, 7.0], [0.0, 8 * accuracy]],
        "spectrum": {"net.1": [[4.0, 1.0], [2.0, 0.0]]},
        "interpolation": {"input": {"lam": [0.0, 1.0], "confidence": [0.5, accuracy]}},
        "conditions": [row, *strengths],
        "history": {
            "val/loss": {"epoch": [0, 1, 2], "value": [3.0, 2.0, accuracy]},
            "lr": {"epoch": [0], "value": [0.1]},
        },
    }


@pytest.fixture
def results():
    accuracies = {"no mixing": (0.5, 0.6), "manifold mixup": (0.7, 0.8)}
    return {arm: [run(arm, s, a) for s, a in enumerate(both)] for arm, both in accuracies.items()}


def page_of(folder):
    return (folder / "report.md").read_text().replace("\xa0", " ")


def test_the_page_gives_means_deviations_and_differences(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    page = page_of(tmp_path)
    assert "- machine: a desk" in page
    assert "| accuracy % | 55.00 ± 7.07 | 75.00 ± 7.07 | +20.00 ± 0.00 |" in page
    assert "| smECE % | 5.00 ± 0.00 | 5.00 ± 0.00 | 0.00 ± 0.00 |" in page
    assert "| T | 0.500 ± 0.000 | 0.500 ± 0.000 | 0.000 ± 0.000 |" in page
    assert page.count("| gap % | -10.00 ± 0.00 | -10.00 ± 0.00 | 0.00 ± 0.00 |") == 2
    assert "| FGSM | 40.00 ± 7.07 | 60.00 ± 7.07 | +20.00 ± 0.00 |" in page
    assert "| net.1: largest | 3.00 ± 0.00 | 3.00 ± 0.00 | 0.00 ± 0.00 |" in page
    assert "| test/f1 | 0.275 ± 0.035 | 0.375 ± 0.035 | +0.100 ± 0.000 |" in page


def titles(page):
    return re.findall(r"^## (.*)$", page, re.MULTILINE)


LAST = ["Every finding", "How it was made"]


def test_the_page_begins_with_what_was_found_and_ends_with_how_it_was_made(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    page = page_of(tmp_path)
    title, warning, found, *_ = page.split("\n\n")
    assert title == "# Comparison: no mixing, manifold mixup"
    assert warning.startswith("Only 2 seeds: a first look.")
    assert found.splitlines() == [f"- {line}" for line in IN_BOLD]
    assert titles(page) == ["Scores as trained", "Scores at the temperature", "Pictures", *LAST]


IN_BOLD = [
    "**Accuracy**: no mixing 55.00 %; manifold mixup 75.00 %: no difference shown.",
    "**Likelihood** (NLL): no mixing 0.450; manifold mixup 0.250: no difference shown.",
    "**Calibration**: no mixing under-confident by 10.00 points; manifold mixup under-confident by "
    "10.00 points: no difference shown.",
    "**Robustness** (accuracy on disturbed inputs): manifold mixup: no difference shown.",
    "**Hidden states** (directions that a class spreads over on average; neither good nor bad): "
    "manifold mixup: no difference shown.",
]


def test_the_page_says_what_each_way_is_and_lists_it_once(results, tmp_path):
    ways = {"no mixing": "nothing mixed", "manifold mixup": "as in the config"}
    write_report(tmp_path, results, {**ABOUT, "ways": ways})
    lines = page_of(tmp_path).splitlines()
    assert lines[2:5] == ["- no mixing: nothing mixed", "- manifold mixup: as in the config", ""]
    assert not any(line.startswith("- ways") for line in lines)


def test_each_word_of_the_tables_has_a_line_that_explains_it(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    page = page_of(tmp_path)
    words = re.findall(r"^- \*\*(.*)\*\*: ", page.split("\n\n## ")[0], re.MULTILINE)
    assert words[2:] == [
        *("accuracy", "NLL", "confidence", "ECE", "smECE", "gap", "Brier", "T", "points", "FGSM"),
        *("effective rank", "±", "Δ"),
    ]


def test_findings_come_kind_by_kind_and_pair_by_pair(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    page = page_of(tmp_path).split("## Every finding")[1]
    kinds = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert kinds == [
        *("Scores as trained", "Scores at the temperature", "Accuracy under conditions"),
        *("Hidden states", "What the module logs"),
    ]
    assert page.count("**manifold mixup against no mixing**\n\n- No difference") == len(kinds)
    assert "- No difference shown: accuracy under FGSM +20.00 points (the same with every" in page
    assert "<details>" not in page


def test_of_many_numbers_table_and_sentences_are_folded(results, tmp_path):
    for arm, runs in results.items():
        for seed, run in enumerate(runs):
            shift = (arm == "manifold mixup") * (1 + seed / 100)
            run["own"] = {"test/u": 3 + seed, **{f"test/{i}": 3 + shift for i in range(7)}}
    write_report(tmp_path, results, ABOUT)
    page = page_of(tmp_path)
    assert "<details>\n<summary>Table, 8 rows</summary>\n\n|  | no mixing |" in page
    clear = ", ".join(f"test/{i}" for i in range(7))
    title = f"manifold mixup against no mixing: larger: {clear}; no difference shown in 1"
    assert f"<summary>{title}</summary>\n\n- test/0 is larger, +1.00" in page
    assert page.count("\n\n</details>\n") == 2


def test_what_is_logged_and_measured_is_told_once(results, tmp_path):
    for run in [run for runs in results.values() for run in runs]:
        run["own"] = {"test/accuracy": run["clean"]["accuracy"]}
    write_report(tmp_path, results, ABOUT)
    told = "### What the module logs\n\nLeft out, since they equal a score in every run: "
    assert f"{told}test/accuracy.\n" in page_of(tmp_path)


def test_a_second_spectrum_is_not_explained_again(results, tmp_path):
    for run in [run for runs in results.values() for run in runs]:
        run["spectrum"]["net.2"] = run["spectrum"]["net.1"]
    write_report(tmp_path, results, ABOUT)
    page = page_of(tmp_path)
    assert "*Spectrum of net.1: the singular values" in page
    assert "![spectrum](spectrum-net.2.png)\n\n*The same of net.2.*" in page


def test_a_long_command_has_a_line_for_each_option(results, tmp_path):
    command = "lightning-mmix compare --config 'my config.yaml' --fast --out " + "a" * 40
    write_report(tmp_path, results, {"command": command})
    block = (tmp_path / "report.md").read_text().split("```")[1]
    assert block.splitlines()[1:3] == [
        "lightning-mmix compare \\",
        "  --config 'my config.yaml' \\",
    ]
    assert shlex.split(block.replace("\\\n", ""))[1:] == shlex.split(command)


def test_what_is_no_classifier_is_compared_by_what_it_logs(results, tmp_path):
    bare = ("arm", "seed", "stage", "own", "history")
    logged = {
        arm: [{**{k: run[k] for k in bare}, "unmeasured": "targets are no labels"} for run in runs]
        for arm, runs in results.items()
    }
    write_report(tmp_path, logged, ABOUT)
    page = page_of(tmp_path)
    assert "scores were not measured: targets are no labels." in page
    assert page.count("| test/f1 |") == 1
    assert titles(page) == ["What the module logs", "Pictures", *LAST]
    assert [path.name for path in tmp_path.glob("*.png")] == ["training.png"]


def test_the_results_can_be_read_again(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept == {"about": ABOUT, "runs": [run for runs in results.values() for run in runs]}
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == (
        "arm,seed,condition,family,strength,samples,accuracy,nll,brier,ece,smece,gap,value"
    )
    assert "no mixing,0,FGSM 0.1,FGSM,0.1,8.0,0.4,0.5,0.5,0.1,0.05,-0.1," in lines
    assert len(lines) == 1 + 4 * (3 + 1 + 1)


def test_a_run_from_before_there_was_a_score_leaves_its_cell_empty(results, tmp_path):
    for run in [run for runs in results.values() for run in runs]:
        for scores in (run["clean"], run["tempered"], *run["conditions"]):
            scores.pop("smece", None)
    write_report(tmp_path, results, ABOUT)
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert "no mixing,0,FGSM 0.1,FGSM,0.1,8.0,0.4,0.5,0.5,0.1,,-0.1," in lines
    assert "smECE" not in (tmp_path / "report.md").read_text()


def test_the_pictures_show_the_numbers_of_the_results(results):
    figures = dict(pictures(results))
    assert list(figures) == [
        "training.png", "reliability.png", "robustness.png", "spectrum-net.1.png",
        "interpolation.png",
    ]  # fmt: skip
    lines = figures["training.png"].axes[0].lines
    expected = torch.tensor([3.0, 2.0, 0.55]), torch.tensor([3.0, 2.0, 0.75])
    drawn = [torch.tensor(line.get_ydata()).float() for line in lines[:2]]
    torch.testing.assert_close(drawn, list(expected))
    assert "ECE 10.0 %\ngap -10.0 %" in {
        t.get_text() for t in figures["reliability.png"].axes[0].texts
    }


def test_of_one_seed_there_is_a_report_without_deviations(results, tmp_path):
    single = {arm: runs[:1] for arm, runs in results.items()}
    write_report(tmp_path, single, ABOUT)
    page = page_of(tmp_path)
    assert "| accuracy % | 50.00 | 70.00 | +20.00 |" in page
    assert "one seed says nothing about others" in page


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_diverged_is_reported_as_such(results, tmp_path, value):
    results["manifold mixup"][0]["clean"]["nll"] = value
    write_report(tmp_path, results, ABOUT)
    page = page_of(tmp_path)
    assert re.search(rf"^\| NLL \| 0.450 ± 0.071 \| {value} ± nan", page, re.MULTILINE)
    assert "- NLL is not comparable, since a run gave NaN or infinity." in page
