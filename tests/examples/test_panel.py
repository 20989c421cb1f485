"""The panel of data sets: its splits, conditions and statistics, and the page that shows them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import wilcoxon

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
arms = pytest.importorskip("panel.arms")
choice = pytest.importorskip("panel.choice")
command = pytest.importorskip("panel.__main__")
conditions = pytest.importorskip("panel.conditions")
results = pytest.importorskip("panel.results")
runs = pytest.importorskip("panel.runs")
tables = pytest.importorskip("panel.tables")
tasks = pytest.importorskip("panel.tasks")
training = pytest.importorskip("panel.training")

TASKS = tasks.TASKS
SMALL = replace(TASKS["wine"], steps=40)
BOUNDS = (-9.0, 9.0)


def rows_of(*parts):
    return {tuple(x.flatten().tolist()) for part in parts for x in part.tensors[0]}


@pytest.mark.parametrize("name", ["digits", "wine", "diabetes"])
def test_train_validation_and_test_data_share_no_row(name):
    split = TASKS[name].split(0)
    sizes = [len(part) for part in (split.train, split.val, split.test)]
    assert len(rows_of(split.train, split.val, split.test)) == sum(sizes)


def test_who_chooses_sees_no_row_of_the_test_data():
    task = TASKS["digits"]
    seen = [task.split(seed, held_out=True) for seed in range(3)]
    looked_at = rows_of(*(part for s in seen for part in (s.train, s.val, s.test)))
    assert not looked_at & rows_of(*(task.split(seed).test for seed in range(3)))


def test_a_seed_draws_what_is_trained_on_and_never_what_is_tested():
    one, other = (TASKS["digits"].split(seed) for seed in (0, 1))
    assert rows_of(one.test) == rows_of(other.test)
    assert rows_of(one.train) != rows_of(other.train)


def test_features_and_values_are_standardised_by_what_is_trained_on():
    split = TASKS["diabetes"].split(0)
    x, y = split.train.tensors
    assert torch.allclose(x.mean(0), torch.zeros(x.shape[1]), atol=1e-5)
    assert torch.allclose(x.std(0), torch.ones(x.shape[1]), atol=1e-5)
    assert (y.mean().abs() < 1e-5, y.std()) == (True, pytest.approx(1))
    assert split.scale == pytest.approx(77, rel=0.1)  # of the values as they come


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.filterwarnings("ignore")  # those of the packages that bring the data
def test_each_data_set_loads_and_its_network_fits_it(name):
    task = TASKS[name]
    split = task.split(0)
    x, y = split.train.tensors
    outputs = 1 if task.is_regression else int(y.max()) + 1
    assert task.network(tuple(x.shape[1:]), outputs).eval()(x[:3]).shape == (3, outputs)
    assert x.isfinite().all()
    if not task.is_regression:
        assert y.unique().tolist() == split.test.tensors[1].unique().tolist()


def test_batches_are_cut_from_one_permutation_after_the_other():
    batches = list(training.Permutations(7, 3, 5, seed=0))
    rows = [row for batch in batches for row in batch]
    assert (len(batches), len(rows)) == (5, 15)
    assert sorted(rows[:7]) == sorted(rows[7:14]) == list(range(7))
    assert batches == list(training.Permutations(7, 3, 5, seed=0))


def test_warped_time_stays_within_the_series_and_moves_by_the_share():
    times = torch.linspace(0, 1, 101).expand(500, 1, 101)
    warped = conditions.Warp(0.1).perturb(times, None, BOUNDS, np.random.default_rng(0))
    shift = (warped - times)[:, 0, 30:70]
    assert shift.abs().max() > 0.2
    assert shift.double().square().mean().sqrt() == pytest.approx(0.1 / 2**0.5, rel=0.1)
    assert (warped.min(), warped.max()) == (0, 1)
    still = conditions.Warp(0.0).perturb(times, None, BOUNDS, np.random.default_rng(0))
    assert torch.allclose(still, times, atol=1e-6)


def test_a_share_of_the_features_goes_missing():
    x = torch.ones(1000, 5)
    left = conditions.Missing(0.2).perturb(x, None, BOUNDS, np.random.default_rng(0))
    assert left.unique().tolist() == [0, 1]
    assert left.mean() == pytest.approx(0.8, abs=0.02)


def test_a_run_is_measured_on_the_test_data():
    scores = training.run(SMALL, arms.RECOMMENDED, 0)
    assert 0.5 < scores["accuracy"] <= 1
    assert {"nll", "brier", "ece", "gap", "T", "nll at T", "noise", "FGSM"} <= set(scores)
    assert training.run(SMALL, arms.RECOMMENDED, 0) == scores
    assert training.run(SMALL, None, 0) != scores


def test_an_error_of_a_regression_is_in_the_units_of_the_data():
    task = replace(TASKS["diabetes"], steps=40)
    scores = training.run(task, arms.arguments_for(task, {"settle": 0.5}), 0)
    assert 40 < scores["rmse"] < 100
    assert 20 < scores["train"] < 100
    assert scores["noise"] > scores["rmse"]


def made(tasks, arms, score):
    """Results in which a function makes the scores."""
    return {
        results.run_of(task, arguments, seed): score(task, arm, seed)
        for task in tasks
        for arm, arguments in arms.items()
        for seed in range(3)
    }


def test_differences_are_those_between_equal_seeds():
    found = made([SMALL], arms.ARMS, lambda _, arm, seed: {"nll": seed + (arm == "recommended")})
    difference = results.difference(found, SMALL, results.NLL)
    assert (difference.mean, difference.half_width, difference.pairs) == (1, 0, 3)


@pytest.mark.parametrize(("score", "better"), [(results.ACCURACY, 2), (results.NLL, 1)], ids=str)
def test_a_verdict_counts_what_is_clear_by_the_direction_of_its_score(score, better):
    found = [results.Difference(mean, 0.5, 5) for mean in (1.0, 2.0, 0.4, -3.0)]
    verdict = results.verdict(found, score)
    assert (verdict.better, verdict.unclear, verdict.worse) == (better, 1, 3 - better)
    assert verdict.p == wilcoxon([1.0, 2.0, 0.4, -3.0]).pvalue
    assert results.verdict([results.Difference(0.0, 0.0, 5)], score).p == 1


def test_the_setting_that_is_best_everywhere_is_ranked_first():
    quality = {name: i for i, name in enumerate(reversed(arms.CANDIDATES))}

    def score(task, arm, seed):
        worse = float(quality[arm])
        return {"accuracy": -worse, **dict.fromkeys(("nll", "brier", "ece", "gap", "noise"), worse)}

    found = {
        replace(run, held_out=True): scores
        for run, scores in made([SMALL], arms.CANDIDATES, score).items()
    }
    ranks = choice.mean_ranks(found, [SMALL])
    assert list(ranks) == list(reversed(arms.CANDIDATES))
    assert list(ranks.values()) == list(range(1, len(quality) + 1))


def test_a_panel_goes_on_after_a_kill_amid_a_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    run = runs.run_of(SMALL, None, 0)
    line = json.dumps({**vars(run), "scores": {"nll": 1.0}})
    path.write_text(f"{line}\n{line[:20]}")
    assert runs.results_in(path) == {run: {"nll": 1.0}}
    other = runs.run_of(replace(SMALL, steps=4), None, 0)
    done = runs.results_of([run, other], path, processes=1)
    assert done[run] == {"nll": 1.0}
    assert runs.results_in(path) == done


@pytest.mark.slow
def test_the_command_leaves_tables_and_a_picture(tmp_path):
    words = [sys.executable, "-m", "panel", "--quick", "--steps", "40", "--out", str(tmp_path)]
    for _ in range(2):  # the second time nothing is left to do
        told = subprocess.run(words, cwd=EXAMPLES, capture_output=True, text=True, check=True)
    assert "recommended" in told.stdout
    assert (tmp_path / "panel.png").stat().st_size > 10_000
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 3 * 3 * len(arms.ARMS)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--seeds", "1"], "expected --seeds of 2 or more, but got 1"),
        (["--steps", "0"], "expected --steps of 1 or more, but got 0"),
        (["--processes", "-1"], "expected --processes of 1 or more, but got -1"),
        (["--show", "README.md"], "README.md holds no runs; expected a runs.jsonl of a panel"),
    ],
    ids=str,
)
def test_a_wrong_option_is_told_in_a_sentence(options, told, capsys):
    with pytest.raises(SystemExit):
        command.main(options)
    assert told in capsys.readouterr().err


def test_the_page_shows_what_was_measured():
    page = (EXAMPLES / "panel" / "README.md").read_text()
    measured = runs.results_in(EXAMPLES / "panel" / "measured.jsonl")
    assert tables.rendered(measured, list(TASKS.values())) in page
    chosen = runs.results_in(EXAMPLES / "panel" / "chosen.jsonl")
    assert choice.choice_table(chosen, [t for t in TASKS.values() if t.chooses]) in page
