"""The compare command, on the digits, and its parts."""

import csv
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

import pytest
import torch
from fitting import Net
from lightning.pytorch import Trainer
from rich.console import Console
from torch import nn

from lightning_mmix import ManifoldMixup, ManifoldMixupClassifier, cli
from lightning_mmix.compare import command
from lightning_mmix.compare.command import compare, refuse_other, show
from lightning_mmix.compare.options import options_of
from lightning_mmix.compare.runs import processes
from lightning_mmix.compare.runs.processes import RunFailedError, carry_out, slots
from lightning_mmix.compare.runs.run import History, RunCLI, mixup_of, set_way
from lightning_mmix.compare.runs.scores import clean_scores, table
from lightning_mmix.compare.runs.task import Task, folder_of, result_of
from lightning_mmix.training.callback import mixups_of
from lightning_mmix.training.visits import stage_of

EXAMPLES = Path(__file__).parents[2] / "examples"
ARMS = ["none", "manifold", str(EXAMPLES / "input_mixup.yaml")]
GOLDEN = (
    "                  Test scores, mean ± std over 2 seeds\n"
    "                    accuracy %            NLL        ECE %          Brier\n"
    "─────────────────────────────────────────────────────────────────────────\n"
    "no mixing         90.50 ± 0.71  0.300 ± 0.000  5.00 ± 0.00  0.150 ± 0.000\n"
    "manifold mixup    93.00 ± 1.41  0.300 ± 0.000  5.00 ± 0.00  0.150 ± 0.000\n"
    "\n"
    "Δ manifold mixup  +2.50 ± 6.35  0.000 ± 0.000  0.00 ± 0.00  0.000 ± 0.000\n"
    "             Δ: minus no mixing, ± half of its 95 % interval\n"
    "\n"
    "        The same at the temperature T, fitted on validation data\n"
    "                             T            NLL        ECE %          Brier\n"
    "─────────────────────────────────────────────────────────────────────────\n"
    "no mixing          1.60 ± 0.14  0.200 ± 0.000  2.00 ± 0.00  0.100 ± 0.000\n"
    "manifold mixup     0.75 ± 0.07  0.200 ± 0.000  2.00 ± 0.00  0.100 ± 0.000\n"
    "\n"
    "Δ manifold mixup  -0.85 ± 1.91  0.000 ± 0.000  0.00 ± 0.00  0.000 ± 0.000\n"
    "\n"
    "        Accuracy %, the weakest noise and attacks\n"
    "                    noise 0.05      FGSM 0.1      FGSM 0.3\n"
    "──────────────────────────────────────────────────────────\n"
    "no mixing         71.00 ± 1.41  50.00 ± 0.00  51.00 ± 1.41\n"
    "manifold mixup    80.50 ± 0.71  50.00 ± 0.00  60.50 ± 0.71\n"
    "\n"
    "Δ manifold mixup  +9.50 ± 6.35   0.00 ± 0.00  +9.50 ± 6.35\n"
    ""
)
GOLDEN_CLEAN = (
    "                  Test scores, mean ± std over 2 seeds\n"
    "                    accuracy %            NLL        ECE %          Brier\n"
    "─────────────────────────────────────────────────────────────────────────\n"
    "no mixing         90.50 ± 0.71  0.300 ± 0.000  5.00 ± 0.00  0.150 ± 0.000\n"
    "manifold mixup    90.50 ± 0.71  0.300 ± 0.000  5.00 ± 0.00  0.150 ± 0.000\n"
    "\n"
    "Δ manifold mixup   0.00 ± 0.00  0.000 ± 0.000  0.00 ± 0.00  0.000 ± 0.000\n"
    "             Δ: minus no mixing, ± half of its 95 % interval\n"
    ""
)


class Deaf:
    """Is told how runs go, and says nothing."""

    def goes(self, share, seconds):
        pass

    def done(self, task):
        pass


QUICK = ["--fast", "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1"]


@pytest.fixture(scope="module")
def examples():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield ["--config", str(EXAMPLES / "digits.yaml"), *QUICK]


@pytest.fixture(scope="module")
def compared(examples, tmp_path_factory):
    """A comparison with an overlay beside two of the ways."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return folder, compare([*examples, "--arms", *ARMS, "--out", str(folder)])


@pytest.mark.slow
def test_every_way_is_trained_with_every_seed(compared):
    _, results = compared
    assert list(results) == ["no mixing", "manifold mixup", "input_mixup"]
    for runs in results.values():
        assert [run["seed"] for run in runs] == [0, 1]
    accuracies = {run["clean"]["nll"] for runs in results.values() for run in runs}
    assert len(accuracies) == 6


@pytest.mark.slow
def test_what_is_measured_on_clean_data_is_what_the_module_logs(compared):
    for runs in compared[1].values():
        for run in runs:
            for name in ("accuracy", "nll", "ece", "gap", "brier"):
                assert run["clean"][name] == pytest.approx(run["own"][f"test/{name}"], abs=1e-6)
            assert run["conditions"][0]["accuracy"] == run["clean"]["accuracy"]


@pytest.mark.slow
def test_the_folder_holds_every_number_of_every_run(compared):
    folder, results = compared
    kept = json.loads((folder / "results.json").read_text())
    assert kept["runs"] == [run for runs in results.values() for run in runs]
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    for run in kept["runs"]:
        own = [row for row in rows if (row["arm"], row["seed"]) == (run["arm"], str(run["seed"]))]
        found = {row["condition"]: row["accuracy"] for row in own if row["accuracy"]}
        expected = {row["condition"]: str(row["accuracy"]) for row in run["conditions"]}
        assert found == {**expected, "clean at T": str(run["tempered"]["accuracy"])}


@pytest.mark.slow
def test_the_report_shows_the_means_and_all_pictures(compared):
    folder, results = compared
    report = (folder / "report.md").read_text()
    scores = table(results, clean_scores)
    for row in ("accuracy %", "ECE %"):
        cells = re.search(rf"^\| {row} \| (.*) \|$", report, re.MULTILINE)[1].split(" | ")
        for cell, arm in zip(cells, scores, strict=False):
            assert cell.split()[0] == f"{mean(scores[arm][row]):.2f}"
    pictures = set(re.findall(r"\]\((.*\.png)\)", report))
    assert pictures == {path.name for path in folder.glob("*.png")}
    assert {"training.png", "reliability.png", "robustness.png", "interpolation.png"} < pictures


@pytest.mark.slow
def test_a_finished_comparison_is_not_trained_again(compared, examples, monkeypatch):
    folder, results = compared
    monkeypatch.setattr(processes, "_start", None)
    assert compare([*examples, "--arms", *ARMS, "--out", str(folder)]) == results


@pytest.mark.slow
def test_another_comparison_is_not_mixed_into_the_folder(compared, examples, capsys):
    folder, _ = compared
    with pytest.raises(SystemExit):
        compare([*examples, "--trainer.max_epochs=3", "--out", str(folder)])
    assert (
        "holds a comparison with other arguments for LightningCLI; take" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        compare([*examples, "--samples", "7", "--out", str(folder)])
    assert "holds a comparison with other options of measuring; take" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "3"], "expected the --config of a LightningModule and its data"),
        (["--config", "a.yaml", "--seeds", "1"], "expected --seeds of at least 2 to compare"),
        (["--config", "a.yaml", "--seeds", "3", "4"], "unrecognized arguments: 4; --seeds and"),
        (["--config", "a.yaml"], "expected a file to read, but got 'a.yaml': No such file or"),
        (["--config", "a.yaml", "--arms", "nothing"], "expected arms of none, input, manifold or"),
        (["--config", __file__, "--samples", "-1"], "expected --samples ≥ 0, where 0 is all, but"),
        (["--config", "a.yaml", "--arms", "none"], "expected two or more arms of different names"),
        (["--config", __file__, "--jobs", "-1"], "expected --jobs of at least 1, but got -1"),
        (["--config", __file__, "--jobs", "x"], "argument --jobs: invalid int value: 'x'"),
        (["--config", __file__, "--shard", "3/2"], "argument --shard: expected K/N with 1 ≤ K ≤ N"),
        (["--config", __file__, "--shard", "1/2", "--collect"], "expected --shard or --collect"),
        (["--config", __file__, "--out", __file__], "expected a folder as --out, but /"),
        (["--config", __file__, "--collect"], "runs that are not done yet: 15 (no mixing 0, inp"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(tmp_path, capsys, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        compare(args)
    assert capsys.readouterr().err.startswith(f"lightning-mmix compare: {message}")
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_is_told_with_the_sentence_its_log_ends_with(tmp_path):
    bad = Task("bad", "none", 0, ["--trainer.nothing=1"])
    with pytest.raises(RunFailedError, match=r"the run of bad, seed 0, failed: unrecognized.*log"):
        carry_out([bad], tmp_path, slots(1, 1, []), Deaf())
    assert "Traceback" in (folder_of(bad, tmp_path) / "log.txt").read_text()


def test_when_a_run_fails_the_others_are_ended(tmp_path):
    bad = Task("bad", "none", 0, ["--nothing"])
    slow = Task("slow", "none", 0, [])
    folder_of(slow, tmp_path).mkdir(parents=True)
    started = time.monotonic()
    with pytest.raises(RunFailedError):
        carry_out([bad, slow], tmp_path, slots(2, 1, []), Deaf())
    assert time.monotonic() - started < 120
    assert result_of(slow, tmp_path) is None


def ways_of(module, *callbacks):
    """The callback that each way trains with."""
    found = {}
    for way in ("none", "input", "manifold", "config"):
        trainer = Trainer(callbacks=[*callbacks], logger=False)
        set_way(trainer, mixup_of(trainer, module, Task("", way, 0, [])), way)
        settings = [mixup.settings for mixup in mixups_of(trainer)]
        found[way] = [(each.alpha, each.layers, each.target) for each in settings]
    return found


@pytest.mark.filterwarnings("ignore:.*GPU available")
def test_the_ways_take_from_the_config_what_it_says():
    assert ways_of(Net()) == {
        "none": [(0, "auto", None)],
        "input": [(1.0, ["input"], None)],
        "manifold": [(1.0, "auto", None)],
        "config": [],
    }
    own = ManifoldMixup(0.4, ["net.0"], target="label", stop=1.0)
    assert ways_of(Net(), own) == {
        "none": [(0, "auto", "label")],
        "input": [(1.0, ["input"], "label")],
        "manifold": [(0.4, ["net.0"], "label")],
        "config": [(0.4, ["net.0"], "label")],
    }


@pytest.mark.filterwarnings("ignore:.*GPU available")
def test_a_module_that_brings_its_mixing_is_trained_with_it():
    module = ManifoldMixupClassifier(nn.Linear(4, 5), 5, alpha=0.3, layers=["net"], stop=1.0)
    assert ways_of(module)["manifold"] == [(0.3, ["net"], None)]
    plain = ManifoldMixupClassifier(nn.Linear(4, 5), 5, alpha=0)
    assert ways_of(plain)["manifold"] == [(1.0, "auto", None)]
    assert ways_of(plain)["none"] == [(0, "auto", None)]


@pytest.mark.filterwarnings("ignore:.*GPU available")
def test_a_config_that_fit_prints_can_be_compared(examples, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lightning-mmix"])
    with pytest.raises(SystemExit):
        cli.main(["fit", *examples[:2], "--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    args = [f"--config={tmp_path / 'printed.yaml'}", "--trainer.fast_dev_run=true"]
    task = Task("a", "manifold", 0, args)
    found = RunCLI.of(task).trained_and_measured(task)
    assert found["clean"]["samples"] > 0


@pytest.mark.filterwarnings("ignore:.*GPU available")
def test_a_module_without_anything_to_measure_on_is_not_trained():
    module = Net()
    with pytest.raises(ValueError, match="expected a module with a test_step and test data, or"):
        stage_of(module, None)


def test_the_history_holds_the_mean_of_each_epoch():
    history = History()
    history.log_metrics({"loss": 1.0, "epoch": 0})
    history.log_metrics({"loss": torch.tensor(3.0), "epoch": 0})
    history.log_metrics({"loss": 5.0, "lr": 0.1, "epoch": 2})
    assert history.curves() == {
        "loss": {"epoch": [0, 2], "value": [2.0, 5.0]},
        "lr": {"epoch": [2], "value": [0.1]},
    }


def test_a_folder_with_a_result_may_get_more_but_nothing_else(tmp_path):
    (tmp_path / command.SPEC).write_text(json.dumps({"config": ["y"]}))
    refuse_other(tmp_path, {"config": ["x"]})  # nothing was done yet
    own = folder_of(Task("a", "none", 0, []), tmp_path)
    own.mkdir(parents=True)
    (own / "result.json").write_text("{}")
    refuse_other(tmp_path, {"config": ["y"], "lines for b": ["z"]})
    with pytest.raises(ValueError, match="holds a comparison with other config; take another"):
        refuse_other(tmp_path, {"config": ["x"]})


def scored(accuracy, temperature=None, conditions=()):
    scores = {"accuracy": accuracy, "nll": 0.3, "ece": 0.05, "brier": 0.15, "gap": 0.04}
    at_t = None if temperature is None else {**scores, "nll": 0.2, "ece": 0.02, "brier": 0.1}
    rows = [{"family": f, "strength": s, "accuracy": value} for f, s, value in conditions]
    clean = {"clean": scores, "temperature": temperature, "tempered": at_t, "conditions": rows}
    return {**clean, "spectrum": {}, "own": {}}


def shown(capsys, results):
    show(results, Console(width=80))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rest = next(i for i, line in enumerate(lines) if line.startswith("·"))
    return "\n".join(line.rstrip() for line in lines[:rest])


def test_the_terminal_shows_scores_as_trained_at_the_temperature_and_under_conditions(capsys):
    def rows(value):
        fgsm = [("FGSM", 0.1, 0.5), ("FGSM", 0.3, value - 0.2)]
        return [("clean", 0, 0.9), *fgsm, ("Gaussian noise", 0.05, value)]

    results = {
        "no mixing": [scored(0.9, 1.5, rows(0.7)), scored(0.91, 1.7, rows(0.72))],
        "manifold mixup": [scored(0.92, 0.8, rows(0.8)), scored(0.94, 0.7, rows(0.81))],
    }
    assert shown(capsys, results) == GOLDEN


def test_the_terminal_shows_what_there_is(capsys):
    results = {arm: [scored(0.9), scored(0.91)] for arm in ("no mixing", "manifold mixup")}
    assert shown(capsys, results) == GOLDEN_CLEAN


def test_lines_of_the_terminal_hang_and_break_no_interval(capsys):
    one, other = [scored(0.9), scored(0.91)], [scored(0.62), scored(0.64)]
    show({"a way with a long name": one, "another": other}, Console(width=60))
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("· Accuracy"))
    assert lines[start : start + 2] == [
        "· Accuracy: a way with a long name 90.50 %; another 63.00 %:",
        "  worse, -27.50 points (-33.85 to -21.15).",
    ]


def test_a_report_says_what_each_way_is():
    overlay = str(EXAMPLES / "input_mixup.yaml")
    options = options_of(["--config", overlay, "--arms", "none", overlay])
    runs = {arm: [{"stage": "test", "seconds": {"training": 2.0}}] for arm in options.ways}
    about = command._about(options, "compare", runs)
    assert about["ways"] == {
        "no mixing": "as in the config, with nothing mixed",
        "input_mixup": f"as in the config with `{overlay}` laid over it",
    }


def test_every_arm_has_a_folder_of_its_own(tmp_path):
    arms = ["manifold mixup", "manifold_mixup", "manifold-mixup", "ä", "ö", "a/b"]
    assert len({folder_of(Task(arm, "none", 0, []), tmp_path) for arm in arms}) == len(arms)


def test_runs_share_gpus_or_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert slots(1, 1, []) == [{"OMP_NUM_THREADS": str(cores)}]
    assert slots(2 * cores, 1, []) == [{"OMP_NUM_THREADS": "1"}] * 2 * cores
    five = ["3", "7", "GPU-x", "4", "5"]
    assert slots(None, 1, five) == [{"CUDA_VISIBLE_DEVICES": name} for name in five]
    assert slots(1, 3, five) == [{"CUDA_VISIBLE_DEVICES": "3,7,GPU-x"}]
    with pytest.raises(ValueError, match="expected 6 GPUs for a run, but there are 5"):
        slots(None, 6, five)


def test_a_module_is_asked_as_the_command_is(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare", "--seeds", "3"])
    with pytest.raises(SystemExit):
        runpy.run_module("lightning_mmix.compare", run_name="__main__")
    assert "expected the --config of a LightningModule" in capsys.readouterr().err


def two_ways(examples, folder, jobs=1):
    return [*examples, "--arms", *ARMS[:2], "--out", str(folder), "--jobs", str(jobs)]


def started(examples, folder, jobs=1, *more):
    # a shell's background job, as these tests may be, starts what it starts deaf to Ctrl-C
    code = (
        "import signal, sys; from lightning_mmix.compare.command import compare; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); compare(sys.argv[1:])"
    )
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(
        [sys.executable, "-c", code, *two_ways(examples, folder, jobs), *more],
        env=environment,
        **quiet,
    )


def stopped(process, folder, how):
    """Stop a comparison after its next run, and see that none goes on."""
    before = len(list(folder.glob("runs/*/result.json")))
    while len(list(folder.glob("runs/*/result.json"))) <= before:
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(how)
    assert process.wait() != 0
    for _ in range(60):  # a run looks now and then if its comparison is still there
        time.sleep(1)
        running = subprocess.run(["ps", "ax"], capture_output=True, text=True, check=True).stdout
        if str(folder) not in running:
            break
    assert str(folder) not in running
    return {path: path.stat().st_mtime for path in folder.glob("runs/*/result.json")}


def scores_in(folder):
    runs = json.loads((folder / "results.json").read_text())["runs"]
    return [
        {key: value for key, value in run.items() if key not in ("seconds", "machine")}
        for run in runs
    ]


@pytest.mark.slow
def test_a_comparison_that_was_stopped_ends_with_the_same_results(
    examples, compared, tmp_path, monkeypatch
):
    done = stopped(started(examples, tmp_path, 2), tmp_path, signal.SIGINT)
    done |= stopped(started(examples, tmp_path), tmp_path, signal.SIGKILL)
    assert len(done) < 4
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    compare(two_ways(examples, tmp_path))
    uninterrupted = [run for run in scores_in(compared[0]) if run["arm"] != "input_mixup"]
    assert scores_in(tmp_path) == uninterrupted
    assert {path: path.stat().st_mtime for path in done} == done


def as_a_worker(command, folder, k):
    """A worker of two, started as the guide has it."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_ID": str(k), "SLURM_ARRAY_TASK_COUNT": "2",
    }  # fmt: skip
    return subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE
    )


@pytest.mark.slow
def test_workers_of_a_job_array_share_a_folder(examples, compared, tmp_path):
    guide = (EXAMPLES / "guides" / "comparing.md").read_text()
    script = re.search(r"^```bash\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "config.yaml").write_text((EXAMPLES / "digits.yaml").read_text())
    more = f" {' '.join(QUICK)} --arms {' '.join(ARMS[:2])}"
    workers = [as_a_worker(script.rstrip() + more, tmp_path, k) for k in (1, 2)]
    told = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert all("of which 2 are this worker's" in each for each in told)
    assert any("all runs are done: the same command with --collect" in each for each in told)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        compare(["--config", "config.yaml", *QUICK, "--arms", *ARMS[:2], "--collect"])
    uninterrupted = [run for run in scores_in(compared[0]) if run["arm"] != "input_mixup"]
    assert scores_in(tmp_path / "comparison") == uninterrupted


@pytest.mark.slow
def test_a_worker_takes_over_the_run_of_one_that_was_killed(examples, tmp_path):
    args = [*two_ways(examples, tmp_path), "--shard"]
    first = started(examples, tmp_path, 1, "--shard", "1/2")
    while not list(tmp_path.glob("runs/*/claim-1")):
        time.sleep(0.1)
    first.kill()
    first.wait()
    compare([*args, "2/2"])
    done = {path.parent.name for path in tmp_path.glob("runs/*/result.json")}
    # its own two, and the one that had begun; none of those that nobody has claimed
    assert done == {"no%20mixing-0", "manifold%20mixup-0", "manifold%20mixup-1"}
    assert not list(tmp_path.glob("runs/*/claim-*"))


@pytest.mark.slow
def test_a_run_of_two_processes_is_measured_as_a_whole(examples, tmp_path):
    options = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    own = [arg for arg in examples if arg != "--fast"]
    task = Task("one", "manifold", 0, [*own, *options], {"fast": True})
    carry_out([task], tmp_path, slots(1, 1, []), Deaf())
    run = result_of(task, tmp_path)
    assert run["clean"]["samples"] == 797
    assert run["clean"]["nll"] == pytest.approx(run["own"]["test/nll"], abs=1e-5)
    assert {row["samples"] for row in run["conditions"]} == {797}
