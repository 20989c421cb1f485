"""The benchmarks measure what they say; how fast anything is, is no matter of tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_mmix import MixPlan, mixing

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))
pytest.importorskip("greenlet")
pytest.importorskip("torchbearer")

from benchmarks import counts, host, lanes, loops, parts, tables, workloads  # noqa: E402 - after the path

TINY = workloads.TINY[0]
FOLDER = ROOT / "examples" / "benchmarks"
KEPT, EPYC, H100, H200 = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in ("xeon", "epyc", "h100", "h200")
)


@pytest.fixture(autouse=True)
def _closed():
    """End the fits of all lanes, which would hold on to what they attached."""
    yield
    lanes.close_all()


class Counter(Callback):
    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1


def test_a_lane_of_lightning_takes_one_step_each_time():
    counter = Counter()
    lane = loops.lightning(TINY, "cpu", [counter])
    lane()  # what comes before the first step
    for number in range(1, 4):
        lane()
        assert counter.steps == number


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_lane_that_is_closed_leaves_no_gate_behind(monkeypatch):
    made, network = [], workloads.Workload.network
    monkeypatch.setattr(
        workloads.Workload, "network", lambda *a: made.append(network(*a)) or made[-1]
    )
    lane = loops.lightning(TINY, "cpu", loops.ours(TINY.layer))
    layer, seen = made[0].get_submodule(TINY.layer), []
    layer.register_forward_hook(lambda module, *_: seen.append(len(module._forward_hooks)))
    for _ in range(2):
        lane()
    lane.close()
    assert max(seen) == 2
    assert sum(len(module._forward_hooks) for module in made[0].modules()) == 1


def test_a_lane_whose_fit_ends_is_refused():
    lane = lanes.FrameworkLane(lambda loader: None, batch=None)
    with pytest.raises(RuntimeError, match="expected a fit that goes on"):
        lane()


def test_a_lane_is_compared_with_its_neighbours(monkeypatch):
    clock = iter([1.0, 10.0, 3.0, 20.0, 5.0, 7.0, 30.0, 9.0, 40.0, 1.0])
    monkeypatch.setattr(lanes, "timed", lambda lane, steps: next(clock))
    courses = lanes.race(int, {"one": int, "two": int}, lanes.Effort(2), warm=0)
    seconds = {
        time: base for c in courses.values() for time, base in zip(c.lane, c.base, strict=True)
    }
    assert seconds == {10.0: 2.0, 20.0: 4.0, 30.0: 8.0, 40.0: 5.0}


@pytest.mark.parametrize(("seconds", "rounds"), [(100.0, 9), (2.5, 8), (0.5, lanes.FEW)])
def test_a_race_goes_on_for_a_few_rounds_and_as_long_as_there_is_time(seconds, rounds, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(lanes, "perf_counter", lambda: next(clock))
    assert len(list(lanes.Effort(9, seconds).rounds_in_time())) == rounds


def test_a_turn_has_as_many_steps_as_fill_it(monkeypatch):
    monkeypatch.setattr(lanes, "timed", lambda lane: 0.2)
    assert lanes.Effort(9, turn=0.5).steps(int, 1) == 3
    assert lanes.Effort(9, turn=0.5).steps(int, 20) == 20
    assert lanes.Effort(9).steps(int, 1) == 1


def test_a_course_gives_the_median_of_its_ratios():
    course = lanes.Course(lane=[2.0, 6.0, 20.0], base=[1.0, 2.0, 4.0])
    assert course.ratio == lanes.Spread(3.0, 2.5, 4.0)
    assert course.added.median == 4.0


WAYS = {
    "loop": lambda: loops.raw(TINY, "cpu"),
    "mixing": lambda: loops.with_mixing(TINY, "cpu", TINY.layer),
    "usual": lambda: loops.usual(TINY, "cpu", TINY.layer),
    "torchvision": lambda: loops.torchvision_mixup(TINY, "cpu"),
    "timm": lambda: loops.timm_mixup(TINY, "cpu"),
    "torchbearer": lambda: loops.bearer(TINY, "cpu"),
    "torchbearer mixed": lambda: loops.bearer(TINY, "cpu", TINY.layer),
    "lightning": lambda: loops.lightning(TINY, "cpu", loops.ours(TINY.layer)),
    "mixin": lambda: loops.lightning(TINY, "cpu", loops.ours("input"), module=loops.MixinNet),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_trains_the_network(way, monkeypatch):
    made = []
    network = workloads.Workload.network
    monkeypatch.setattr(
        workloads.Workload, "network", lambda *a: made.append(network(*a)) or made[-1]
    )
    lane = WAYS[way]()
    before = [p.clone() for p in made[0].parameters()]
    for _ in range(3):
        lane()
    after = list(made[0].parameters())
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_every_layer_of_the_workloads_is_there():
    for work in [*workloads.ON_CPU, *workloads.ON_GPU, TINY]:
        with torch.device("meta"):
            net = work.make()
        assert work.layer in work.layers
        for name in work.layers[1:]:
            net.get_submodule(name)


@pytest.mark.parametrize("work", workloads.ON_CPU[::2], ids=lambda work: work.name)
def test_a_mixed_step_needs_at_most_one_hidden_state_more(work):
    for row in counts.memory(work, "cpu"):
        assert row["added_peak_bytes"] <= row["hidden_bytes"] + 2**14


class Reads(TorchDispatchMode):
    """Notes the tensors of which a value is read, for which the host would wait on a GPU."""

    READS = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().split("::")[1].split(".")[0] in self.READS:
            self.seen.append((args[0].dtype, tuple(args[0].shape)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layer", TINY.layers)
def test_no_value_but_that_of_lam_which_lies_on_the_cpu_is_read(layer):
    seen = {}
    for name, callbacks in {"without": [], "with": loops.ours(layer)}.items():
        lane = loops.lightning(TINY, "cpu", callbacks)
        for _ in range(3):
            lane()
        with Reads() as reads:
            lane()
        seen[name] = [read for read in reads.seen if read != (torch.float64, ())]
    assert seen["with"] == seen["without"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["step"], "there is no part 'step'"),
        (["--rounds", "5"], "expected --rounds of at least 6, but got 5"),
        (["--out", "nowhere/a.json"], "there is no folder"),
        (["--show", "nowhere.json"], "nowhere.json holds no results of this command"),
        (["--out", "bad.json"], "bad.json holds no results of this command"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_is_measured(
    args, says, monkeypatch, capsys, tmp_path
):
    main = pytest.importorskip("benchmarks.__main__")
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("[]")
    monkeypatch.setattr(sys, "argv", ["benchmarks", *args])
    with pytest.raises(SystemExit):
        main.main()
    assert says in capsys.readouterr().err


def test_results_of_another_machine_are_left_alone(monkeypatch, tmp_path):
    main = pytest.importorskip("benchmarks.__main__")
    kept = json.dumps({**KEPT, "machine": {**KEPT["machine"], "threads": 64}})
    file = tmp_path / "a.json"
    file.write_text(kept)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "waits", "--fast", "--out", str(file)])
    with pytest.raises(SystemExit, match="holds results of another machine"):
        main.main()
    assert file.read_text() == kept


def test_the_page_of_costs_shows_the_results_that_are_kept():
    page = (ROOT / "examples" / "guides" / "costs.md").read_text()
    for steps in (KEPT["steps"], H200["steps"]):
        assert tables.step_table(steps) in page
    for operation in (KEPT["operation"], H100["operation"]):
        assert tables.operation_table(operation) in page
    for framework in ("loop", "Lightning"):
        assert tables.host_table(EPYC["host"]["added"], framework) in page
    assert f"{KEPT['machine']['cores']} cores of {KEPT['machine']['processor']}" in page
    for results in (H100, H200):
        assert f"{results['machine']['gpu']}, torch {results['machine']['torch']}" in page


def test_all_kept_results_can_be_shown():
    shown = tables.rendered(KEPT)
    for work in workloads.ON_CPU:
        assert work.name in shown
        assert work.name in tables.rendered(EPYC)
    assert "not measured" in shown
    for work in workloads.ON_GPU:
        assert work.name in tables.rendered(H200)


def test_in_a_loop_mixing_took_no_more_host_time_than_by_hand():
    """Of a cross-entropy, up to the error of measurement; of other losses half as much again."""
    for row in EPYC["host"]["added"]:
        if row["way"] == "loop + Mixer":
            is_plain = row["loss"].startswith("cross-entropy")
            assert row["over_by_hand"]["median"] <= (1.05 if is_plain else 1.5), row


def test_no_step_on_a_gpu_waited_for_it_or_needed_more_than_a_hidden_state():
    assert [row["with"] for row in H200["waits"]] == [0] * len(workloads.ON_GPU)
    for row in H200["memory"]:  # the allocator hands out memory in blocks of 2 MB
        assert row["added_peak_bytes"] <= row["hidden_bytes"] + 2**21


@pytest.mark.parametrize("case", [*host.CASES[1:2], *host.CASES[3:]], ids=lambda case: case.name)
def test_by_hand_and_by_the_mixer_a_case_has_one_loss(case, monkeypatch):
    """But for a term of the squared error that has no gradient."""
    lam, net, (x, y) = 0.75, case.network("cpu"), case.batch("cpu")
    partner = torch.randperm(len(y))
    plan = MixPlan(host.FIRST, torch.tensor(lam), partner)
    monkeypatch.setattr(host.np.random, "beta", lambda *_: lam)
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: partner)
    monkeypatch.setattr(host.random, "choice", lambda _: host.FIRST)
    host.mixed_by_hand(case, net, x, y)[0].backward()
    by_hand = [parameter.grad.clone() for parameter in net.parameters()]
    net.zero_grad()
    with mixing(net, plan, y):
        case.loss(net(x), y).backward()
    for parameter, expected in zip(net.parameters(), by_hand, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_every_part_of_a_step_is_timed_and_left_as_it_was():
    before = host.Net.loss
    rows = parts.parts("cpu", lanes.Effort(lanes.FEW))
    assert host.Net.loss is before
    assert [row["part"] for row in rows] == [*parts.PARTS, parts.WHOLE]
    assert all(row["with"] > 0 for row in rows)
    ours = {"find the target", "draw", "arm", "gate", "close"}
    assert {row["part"] for row in rows if row["without"] == 0} == ours


@pytest.mark.slow
def test_the_command_measures_all_of_its_parts(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--fast", "--out", str(tmp_path / "all.json")]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT / "examples")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads((tmp_path / "all.json").read_text())
    assert results.keys() == EPYC.keys()
    assert {row["loss"] for row in results["host"]["added"]} == {
        "cross-entropy",
        "focal loss by hand",
    }
    assert results["ranks"]["collectives_with"] == results["ranks"]["collectives_without"] > 0
    assert [row["recompiled"] for row in results["compiled"]] == [0]
    assert [row["graphs"] for row in results["compiled"]] == [len(TINY.layers)]
    assert tables.step_table(results["steps"]) in done.stdout
