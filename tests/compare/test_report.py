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


def test_the_page_gives_means_deviations_and_differences(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    page = (tmp_path / "report.md").read_text()
    assert "- machine: a desk" in page
    assert "| accuracy % | 55.00 ± 7.07 | 75.00 ± 7.07 | +20.00 ± 0.00 |" in page
    assert "| smECE % | 5.00 ± 0.00 | 5.00 ± 0.00 | +0.00 ± 0.00 |" in page
    assert "| T | 0.500 ± 0.000 | 0.500 ± 0.000 | +0.000 ± 0.000 |" in page
    assert "| FGSM | 40.00 ± 7.07 | 60.00 ± 7.07 | +20.00 ± 0.00 |" in page
    assert "| net.1 largest | 3.00 ± 0.00 | 3.00 ± 0.00 | +0.00 ± 0.00 |" in page
    assert "| test/f1 | 0.275 ± 0.035 | 0.375 ± 0.035 | +0.100 ± 0.000 |" in page


def titles(page):
    return re.findall(r"^## (.*)$", page, re.MULTILINE)


LAST = ["Every finding", "How it was made"]


def test_the_page_begins_with_what_was_found_and_ends_with_how_it_was_made(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    page = (tmp_path / "report.md").read_text()
    title, _, *found = page.split("\n\n## ")[0].splitlines()
    assert title == "# Comparison: no mixing, manifold mixup"
    assert found[:5] == [f"- {line}" for line in IN_BOLD]
    assert titles(page) == ["Scores as trained", "Scores at the temperature", "Pictures", *LAST]


IN_BOLD = [
    "**Accuracy** against no mixing: manifold mixup shows no difference.",
    "**Likelihood** against no mixing: manifold mixup shows no difference in NLL and in Brier "
    "score.",
    "**Calibration** against no mixing (under-confident by 10.0 points): manifold mixup "
    "(under-confident by 10.0 points) shows no difference in ECE and in ECE at the temperature.",
    "**Robustness** (accuracy under FGSM) against no mixing: manifold mixup shows no difference.",
    "**Hidden states** (effective rank) against no mixing: manifold mixup shows no difference at "
    "net.1.",
]


def test_each_word_of_the_tables_has_a_line_that_explains_it(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    page = (tmp_path / "report.md").read_text()
    words = re.findall(r"^- \*\*(\w+|.)\*\*: ", page, re.MULTILINE)
    assert words == ["NLL", "ECE", "Brier", "smECE", "gap", "T", "±", "Δ"]


def test_findings_come_kind_by_kind_and_pair_by_pair(results, tmp_path):
    write_report(tmp_path, results, ABOUT)
    page = (tmp_path / "report.md").read_text().split("## Every finding")[1]
    kinds = re.findall(r"^### (.*)$", page, re.MULTILINE)
    assert kinds == [
        *("Scores as trained", "Scores at the temperature", "Accuracy under conditions"),
        *("Hidden states", "What the module logs"),
    ]
    assert page.count("**manifold mixup against no mixing: no difference shown in ") == len(kinds)
    assert "- no difference in accuracy under FGSM shown with 2 seeds, +20.00 points (" in page
    assert "<details>" not in page


def test_of_many_numbers_table_and_sentences_are_folded(results, tmp_path):
    for run in [run for runs in results.values() for run in runs]:
        run["own"] = {f"test/{i}": run["clean"]["accuracy"] for i in range(7)}
    write_report(tmp_path, results, ABOUT)
    page = (tmp_path / "report.md").read_text()
    assert "<details>\n<summary>Table</summary>\n\n|  | no mixing |" in page
    folded = "<summary>manifold mixup against no mixing: no difference shown in 7</summary>\n\n- no"
    assert folded in page
    assert page.count("\n\n</details>\n") == 2


def test_a_second_spectrum_is_not_explained_again(results, tmp_path):
    for run in [run for runs in results.values() for run in runs]:
        run["spectrum"]["net.2"] = run["spectrum"]["net.1"]
    write_report(tmp_path, results, ABOUT)
    page = (tmp_path / "report.md").read_text()
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
    page = (tmp_path / "report.md").read_text()
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
    page = (tmp_path / "report.md").read_text()
    assert "| accuracy % | 50.00 | 70.00 | +20.00 |" in page
    assert "one seed says nothing about others" in page


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_diverged_is_reported_as_such(results, tmp_path, value):
    results["manifold mixup"][0]["clean"]["nll"] = value
    write_report(tmp_path, results, ABOUT)
    page = (tmp_path / "report.md").read_text()
    assert re.search(rf"^\| NLL \| 0.450 ± 0.071 \| {value} ± nan", page, re.MULTILINE)
    assert "- NLL can't be compared, since a run gave NaN or infinity." in page
