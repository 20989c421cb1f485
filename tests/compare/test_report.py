"""The report and its pictures, of results that were not trained for."""

import json
import math
import re

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
    assert "| smECE % at T | 5.00 ± 0.00 | 5.00 ± 0.00 | +0.00 ± 0.00 |" in page
    assert "| T | 0.5000 ± 0.0000 | 0.5000 ± 0.0000 | +0.0000 ± 0.0000 |" in page
    assert "| FGSM | 40.00 ± 7.07 | 60.00 ± 7.07 | +20.00 ± 0.00 |" in page
    assert "| net.1 largest | 3.00 ± 0.00 | 3.00 ± 0.00 | +0.00 ± 0.00 |" in page
    assert "| test/f1 | 0.2750 ± 0.0354 | 0.3750 ± 0.0354 | +0.1000 ± 0.0000 |" in page


def test_what_is_no_classifier_is_compared_by_what_it_logs(results, tmp_path):
    bare = ("arm", "seed", "stage", "own", "history")
    logged = {
        arm: [{**{k: run[k] for k in bare}, "unmeasured": "targets are no labels"} for run in runs]
        for arm, runs in results.items()
    }
    write_report(tmp_path, logged, ABOUT)
    page = (tmp_path / "report.md").read_text()
    assert "Only what the module logs is compared, since targets are no labels." in page
    assert "| test/f1 |" in page
    assert "Findings" not in page
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
    assert "smECE" not in (tmp_path / "report.md").read_text().split("## Calibration")[0]


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
    assert "| accuracy % | 50.00 | 70.00 | +20.00 ± inf |" in page
    assert "one seed says nothing about others" in page


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_diverged_is_reported_as_such(results, tmp_path, value):
    results["manifold mixup"][0]["clean"]["nll"] = value
    write_report(tmp_path, results, ABOUT)
    page = (tmp_path / "report.md").read_text()
    assert re.search(rf"^\| NLL \| 0.4500 ± 0.0707 \| {value} ± nan", page, re.MULTILINE)
    assert "- NLL can't be compared, since a run gave NaN or infinity." in page
