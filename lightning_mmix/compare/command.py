"""The compare command: ways to train, held against each other on a config of the user's own."""

import argparse
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import lightning
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lightning_mmix.compare.findings import Results, clean_scores, findings, table
from lightning_mmix.compare.processes import (
    RunFailedError,
    Slot,
    carry_out,
    claim,
    result_of,
    slots,
)
from lightning_mmix.compare.report import write_report
from lightning_mmix.compare.runs import Task, Way
from lightning_mmix.compare.score_tables import score_table, score_tables
from lightning_mmix.evaluation.robustness import Units
from lightning_mmix.metrics.samples import Form

_ARMS: dict[str, tuple[str, Way]] = {
    "none": ("no mixing", "none"),
    "input": ("input mixup", "input"),
    "manifold": ("manifold mixup", "manifold"),
}
_CONFIG = ("--config", "-c")
_DESCRIPTION = """\
Train no mixing, input mixup and manifold mixup on a LightningCLI config, over several seeds, and
measure accuracy, calibration, robustness, spectrum and interpolation of each. Everything that is
not listed here goes to LightningCLI: --config FILE, --trainer.max_epochs 10, ...
Stopped and started again, it goes on where it was."""


def compare(args: Sequence[str]) -> Results:
    """Run ``lightning-mmix compare``.

    Args:
        args: What stands behind the command.

    Returns:
        What every run of each way to train gave.

    Raises:
        SystemExit: With one sentence, if the arguments do not fit or a run fails.
    """
    if find_spec("scipy") is None:  # now, and not after hours of training
        raise SystemExit("scipy is needed to compare: pip install 'lightning-mmix[report]'")
    options, rest, ways = _parsed(args)
    tasks = [
        Task(arm, way, seed, [*rest, *overlays], _measuring(options))
        for seed in range(options.seeds)
        for arm, (way, overlays) in ways.items()
    ]
    try:
        _run(tasks, options.out, options.places)
    except RunFailedError as error:
        raise SystemExit(f"lightning-mmix compare: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on with what is not done") from None
    results = {
        arm: [run for task in tasks if task.arm == arm and (run := result_of(task, options.out))]
        for arm in ways
    }
    command = shlex.join(["lightning-mmix", "compare", *args])
    write_report(options.out, results, _about(command, results, options.places))
    _show(results, options.out)
    return results


def _parsed(
    args: Sequence[str],
) -> tuple[argparse.Namespace, list[str], dict[str, tuple[Way, list[str]]]]:
    """Our own arguments, those of LightningCLI, and the arms; the folder is claimed for them."""
    parser = _parser()
    options, rest = parser.parse_known_args(args)
    options.seeds = options.seeds or (2 if options.fast else 5)
    if options.seeds < 2:
        parser.error(f"expected --seeds of at least 2 to compare, but got {options.seeds}")
    if not any(arg.split("=")[0] in _CONFIG for arg in rest):
        parser.error("expected the --config of a LightningModule and its data")
    try:
        ways = dict(map(_way, options.arms))
        _refuse_twice(options.arms, ways)
        spec = {
            "config": _contents(rest),
            "arguments for LightningCLI": rest,
            "options of measuring": _measuring(options),
            **{f"lines for {arm}": _contents(more) for arm, (_, more) in ways.items()},
        }
        _refuse_units(options)
        options.places = slots(options.jobs, options.gpus_per_run)
        claim(options.out, spec)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options, rest, ways


def _run(tasks: Sequence[Task], folder: Path, places: Sequence[Slot]) -> None:
    left = [task for task in tasks if result_of(task, folder) is None]
    columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console()) as progress:
        bar = progress.add_task("", total=len(tasks), completed=len(tasks) - len(left))

        def done(task: Task) -> None:
            progress.advance(bar)
            run = result_of(task, folder) or {}
            scores = clean_scores(run) if "clean" in run else run["own"]
            name, value = next(iter(scores.items()))
            progress.print(f"seed {task.seed}  {task.arm:15} {name} {value:.2f}", highlight=False)

        carry_out(tasks, folder, places, done)


def _show(results: Results, folder: Path) -> None:
    console = Console()
    if all("clean" in run for runs in results.values() for run in runs):
        for each in score_tables(results):
            console.print(each, "")
        for line in findings(results, brief=True):
            console.print(f"· {line}", highlight=False)
    else:
        console.print(score_table(table(results, lambda run: run["own"]), "What the module logs"))
    console.print(f"{folder / 'report.md'} has all of it", highlight=False)


def _about(command: str, results: Results, places: Sequence[Slot]) -> Mapping[str, str]:
    runs = [run for each in results.values() for run in each]
    total = sum(sum(run["seconds"].values()) for run in runs)
    training = sum(run["seconds"]["training"] for run in runs)
    threads = places[0].get("OMP_NUM_THREADS")
    share = "a GPU each" if threads is None else f"threads of each: {threads}"
    what = {"test": "test set", "validate": "validation set, for want of a test set"}
    about = {
        "command": command,
        "runs": f"{len(runs) // len(results)} seeds of {len(results)} ways, in their last epoch",
        "measured on": f"the {what[runs[0]['stage']]}",
        "machine": f"{_processor()}; {len(places)} runs at once, {share}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"lightning {lightning.__version__}",
        "time": f"{training:.0f} s of training and {total - training:.0f} s of measuring",
    }
    if "conditions" in runs[0]:
        scored = [row["samples"] for row in runs[0]["conditions"]]
        about["conditions"] = f"{len(scored)}, each on {scored[0]} samples"
    return about


def _processor() -> str:
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _way(arm: str) -> tuple[str, tuple[Way, list[str]]]:
    """The name of an arm, how it mixes, and its further arguments of LightningCLI."""
    if arm in _ARMS:
        name, way = _ARMS[arm]
        return name, (way, [])
    if not Path(arm).is_file():
        raise ValueError(f"expected arms of {', '.join(_ARMS)} or a YAML file, but got {arm!r}")
    return Path(arm).stem, ("config", [f"--config={arm}"])


def _refuse_units(options: argparse.Namespace) -> None:
    low, high = options.range or (0.0, 1.0)
    Units(low, high, _number(options.mean), _number(options.std))


def _refuse_twice(arms: Sequence[str], ways: Mapping[str, object]) -> None:
    if not 1 < len(ways) == len(arms):
        raise ValueError(f"expected two or more arms of different names, but got {', '.join(arms)}")


def _contents(args: Sequence[str]) -> list[str]:
    """What stands in the config files among arguments of LightningCLI."""
    parts = [part for arg in args for part in arg.split("=", 1)]
    names = [name for flag, name in pairwise(parts) if flag in _CONFIG]
    return [Path(name).read_text() for name in names]


def _measuring(options: argparse.Namespace) -> dict[str, Any]:
    low, high = options.range or (None, None)
    names = ("form", "target", "input", "output", "samples", "fast", "ignore_index")
    chosen = {name: getattr(options, name) for name in names}
    numbers = {name: _number(getattr(options, name)) for name in ("mean", "std")}
    return {**chosen, "low": low, "high": high, **numbers}


def _number(values: list[float]) -> float | list[float]:
    return values[0] if len(values) == 1 else values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-mmix compare",
        description=_DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--arms", nargs="+", default=list(_ARMS), metavar="ARM",
        help="ways to train: none, input, manifold (as in the config, or as it comes), or YAML "
        "files to lay over the config; the first is what the others are held against")  # fmt: skip
    add("--seeds", type=int, help="runs of each way (5, or 2 with --fast)")
    add("--out", type=Path, default=Path("comparison"), help="folder of the results (comparison)")
    add("--fast", action="store_true", help="two seeds and a few conditions, for a first look")
    add("--jobs", type=int, help="runs at once (one a GPU; without GPUs one a core, at most four)")
    add("--gpus-per-run", type=int, default=1, help="GPUs that each run gets (1)")
    add("--samples", type=int, default=2000,
        help="test samples to attack, deform and corrupt (2000; 0 for all)")  # fmt: skip
    add("--form", choices=get_args(Form), default="logits", help="what the network puts out")
    for name in ("target", "input", "output"):
        add(f"--{name}", help=f"where the {name} is: a key, an index or a dotted path")
    add("--ignore-index", type=int, help="the label of samples that count nowhere")
    add("--range", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="of the data, in which attacks stay (the range of the test inputs)")  # fmt: skip
    add("--mean", nargs="+", type=float, default=[0.0], help="what the data were normalised by")
    add("--std", nargs="+", type=float, default=[1.0], help="what they were divided by then")
    return parser
