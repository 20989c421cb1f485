"""The compare command: ways to train, held against each other on a config of the user's own."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Any

from rich.console import Console

from lightning_mmix.compare.options import Options, options_of
from lightning_mmix.compare.runs.claims import holder
from lightning_mmix.compare.runs.life import Signs
from lightning_mmix.compare.runs.processes import Slot, abandoned, carry_out, rehearsed, slots
from lightning_mmix.compare.runs.task import (
    RESULT,
    Results,
    Task,
    folder_of,
    result_of,
    write_json,
)
from lightning_mmix.problems import told

SPEC = "comparison.json"

_MEASURED = {"test": "test set", "validate": "validation set, for want of a test set"}


def compare(args: Sequence[str]) -> Results:
    """Run ``lightning-mmix compare``.

    Args:
        args: What stands behind the command.

    Returns:
        What every run of each way to train gave; of a shard what there is so far.

    Raises:
        SystemExit: With one sentence, if the arguments do not fit or a run fails.

    Example:
        >>> import contextlib
        >>> with contextlib.redirect_stderr(sys.stdout), contextlib.suppress(SystemExit):
        ...     compare(["--seeds", "1"])
        lightning-mmix compare: expected --seeds of at least 2 to compare, but got 1
    """
    console = Console()
    with told("lightning-mmix compare", shows="--traceback" in args):
        options = options_of(args)
        if find_spec("scipy") is None:  # now, and not after hours of training
            raise ImportError(
                "scipy is needed to compare: pip install 'lightning-mmix[report]', or pip install "
                "'.[report]' in a clone"
            )
        refuse_other(options.out, options.spec)
        if not options.collect:
            _do(options, console)
        left = [task for task in options.tasks if result_of(task, options.out) is None]
        if options.shard is None:
            _refuse_left(left, options.out)
            _report(options, shlex.join(["lightning-mmix", "compare", *args]), console)
        else:
            console.print(_coming(options, left), highlight=False, soft_wrap=True)
        return _results(options)


def refuse_other(folder: Path, spec: Mapping[str, Any]) -> None:
    """Refuse a folder that holds another comparison.

    Args:
        folder: Of the results.
        spec: What makes runs comparable, by names that a message can use, in plain containers.

    Raises:
        ValueError: If there are results of another kind.
    """
    before = _spec_of(folder)
    differing = [key for key in spec if before.get(key, spec[key]) != spec[key]]
    if differing and any(folder.glob(f"runs/*/{RESULT}")):
        raise ValueError(
            f"{folder} holds a comparison with other {' and '.join(differing)}; "
            "take another --out, or delete the folder"
        )


def _do(options: Options, console: Console) -> None:
    """Carry out the runs that this worker has to do, once all was tried."""
    left = [task for task in options.own if result_of(task, options.out) is None]
    if not left and not abandoned(options.tasks, options.out):
        return
    console.print("each way to train is tried on one batch", highlight=False)
    facts = rehearsed(options.rehearsal)
    places = slots(options.jobs, options.gpus_per_run, facts["gpus"])
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / SPEC, {**_spec_of(options.out), **options.spec})
    for line in _head(options, left, places, facts):
        console.print(line, highlight=False, soft_wrap=not console.is_terminal)
    try:
        own: Sequence[Task] = options.own
        while own:
            with Signs(console, own, options.out, places) as signs:
                carry_out(own, options.out, places, signs)
            if own := abandoned(options.tasks, options.out):
                console.print(f"taken over from a dead worker: {len(own)}", highlight=False)
    except KeyboardInterrupt:
        sys.stderr.write(
            "lightning-mmix compare: stopped; the same command goes on with what is not done\n"
        )
        raise SystemExit(130) from None


def _head(
    options: Options, left: Sequence[Task], places: Sequence[Slot], facts: Mapping[str, Any]
) -> list[str]:
    """What is going to happen, once all was tried."""
    ways = ", ".join(options.ways)
    share = "" if options.shard is None else f", of which {len(options.own)} are this worker's"
    gpus = places[0].get("CUDA_VISIBLE_DEVICES")
    what = "thread" if gpus is None else "GPU"
    number = places[0]["OMP_NUM_THREADS"] if gpus is None else str(len(gpus.split(",")))
    done = len(options.own) - len(left)
    lines = [
        f"{len(options.tasks)} runs: {ways}, with {options.seeds} seeds each{share}",
        f"{len(places)} at once, {number} {what}{'s' * (number != '1')} each, "
        f"on {facts['machine']['processor']}",
        f"to be measured on the {_MEASURED[facts['stage']]}",
    ]
    if facts["unmeasured"]:
        lines.append(f"only what the module logs can be compared, since {facts['unmeasured']}")
    if done:
        lines.append(f"{done} are done already")
    return lines


def _refuse_left(left: Sequence[Task], folder: Path) -> None:
    if not left:
        return
    names = ", ".join(f"{task.arm} {task.seed}" for task in left[:3])
    more = ", …" if len(left) > 3 else ""
    hosts = sorted({holder(folder_of(task, folder)) for task in left} - {""})
    where = f", some on {', '.join(hosts)}" if hosts else ""
    raise ValueError(
        f"runs that are not done yet: {len(left)} ({names}{more}){where}; when they are, the same "
        "command with --collect reports"
    )


def _coming(options: Options, left: Sequence[Task]) -> str:
    if not left:
        return "all runs are done: the same command with --collect in place of --shard reports"
    return (
        f"this worker is done, and {len(left)} of {len(options.tasks)} runs are left to others; "
        "when they are done, --collect in place of --shard reports"
    )


def _results(options: Options) -> Results:
    return {
        arm: [
            run
            for task in options.tasks
            if task.arm == arm and (run := result_of(task, options.out))
        ]
        for arm in options.ways
    }


def _report(options: Options, command: str, console: Console) -> None:
    from lightning_mmix.compare.report import write_report  # noqa: PLC0415 - brings matplotlib

    results = _results(options)
    write_report(options.out, results, _about(options, command, results))
    show(results, console)
    line = f"Intervals are 95 %; {options.out / 'report.md'} explains the words and has all of it."
    console.print(line, highlight=False, soft_wrap=True)


def show(results: Results, console: Console) -> None:
    """Show what was found on a terminal.

    Args:
        results: Of two or more ways to train.
        console: Where to.
    """
    from lightning_mmix.compare.score_tables import score_tables  # noqa: PLC0415 - brings torch
    from lightning_mmix.compare.summary import caveats, summary  # noqa: PLC0415

    for each in score_tables(results):
        console.print(each, "")
    for line in [*caveats(results), *summary(results)]:
        # rich breaks lines at no-break spaces, too
        item = fill(
            line, console.width, initial_indent="· ", subsequent_indent="  ", break_on_hyphens=False
        )
        text = item.replace("\xa0", " ")
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _about(options: Options, command: str, results: Results) -> Mapping[str, Any]:
    """What was compared, on what, and how long it took."""
    words = {
        "none": "as in the config, with nothing mixed",
        "input": "inputs and labels of pairs mixed, alpha 1, in every epoch",
        "manifold": "mixed as the config says; if it says nothing, `ManifoldMixup()` as it comes",
        "config": "as in the config",
    }
    runs = [run for each in results.values() for run in each]
    total = sum(sum(run["seconds"].values()) for run in runs)
    training = sum(run["seconds"]["training"] for run in runs)
    machines = [run["machine"] for run in runs if "machine" in run]
    kinds = dict.fromkeys(f"{each['processor']}, {each['share']} a run" for each in machines)
    about: dict[str, Any] = {
        "command": command,
        "ways": {
            arm: words[way]
            + "".join(f" with `{each.split('=', 1)[1]}` laid over it" for each in more)
            for arm, (way, more) in options.ways.items()
        },
        "runs": f"{len(runs)}: {len(results)} ways with {options.seeds} seeds each; "
        "each run is measured after its last epoch",
        "measured on": f"the {_MEASURED[runs[0]['stage']]}",
        "machine": "; ".join(kinds),
        "versions": "; ".join(dict.fromkeys(each["versions"] for each in machines)),
        "report": f"lightning_mmix {version('lightning-mmix')}",
        "time": f"{total:.0f} s in all runs together, {training:.0f} s of them training",
    }
    if "conditions" in runs[0]:
        clean, *rows = runs[0]["conditions"]
        about["measured on"] += f", {runs[0]['clean']['samples']:.0f} samples"
        names = ", ".join(row["condition"] for row in rows)
        about["conditions"] = f"{names}, each on {clean['samples']} samples"
    return about


def _spec_of(folder: Path) -> dict[str, Any]:
    path = folder / SPEC
    spec: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return spec
