"""Train networks on many public data sets, with and without mixing, and say what it changed.

    PYTHONPATH=examples python -m panel             # all: half an hour on two cores
    PYTHONPATH=examples python -m panel --quick     # three data sets, three seeds: two minutes
    PYTHONPATH=examples python -m panel --choose    # how the recommended setting was chosen
    PYTHONPATH=examples python -m panel --show examples/panel/measured.jsonl

Needs the ``panel`` extra; every data set comes with a package. The folder of ``--out`` then holds
``runs.jsonl``, a line for each run, ``panel.md``, all tables, and ``panel.png``, the picture. What
is done is not done again, also after a kill: a stopped panel goes on.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from panel.arms import ARMS, CANDIDATES
from panel.choice import choice_table
from panel.picture import picture
from panel.results import runs_of
from panel.runs import results_in, results_of
from panel.tables import rendered
from panel.tasks import TASKS, Task

QUICK = ("digits", "breast cancer", "phishing")


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, and run or show."""
    parser = _parser()
    options = parser.parse_args(args)
    for name, least in {"seeds": 2, "steps": 1, "processes": 1}.items():
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"expected --{name} of {least} or more, but got {value}")
    if options.show is not None and not results_in(options.show):
        parser.error(f"{options.show} holds no runs; expected a runs.jsonl of a panel")
    tasks = [TASKS[name] for name in (QUICK if options.quick else TASKS)]
    if options.choose:
        tasks = [task for task in tasks if task.chooses]
    if options.steps is not None:
        tasks = [replace(task, steps=options.steps) for task in tasks]
    _print(_ran(options, tasks) if options.show is None else _shown(options.show))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m panel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--choose", action="store_true", help="rank settings on validation data")
    parser.add_argument("--seeds", type=int, help="how many, two or more (5, or 3 with --quick)")
    parser.add_argument("--steps", type=int, help="of each training, to see that it runs")
    parser.add_argument("--processes", type=int, help="runs at once; a processor each by default")
    parser.add_argument("--out", type=Path, default=Path("panel-results"), help="a folder")
    parser.add_argument("--show", type=Path, help="only print the tables of such a runs.jsonl")
    return parser


def _ran(options: argparse.Namespace, tasks: list[Task]) -> str:
    options.out.mkdir(parents=True, exist_ok=True)
    seeds = range(options.seeds or (3 if options.quick else 5))
    arms = CANDIDATES if options.choose else ARMS
    runs = runs_of(tasks, arms, seeds, held_out=options.choose)
    results = results_of(runs, options.out / "runs.jsonl", options.processes)
    text = choice_table(results, tasks) if options.choose else rendered(results, tasks)
    (options.out / "panel.md").write_text(text + "\n")
    if not options.choose:
        picture(results, tasks).savefig(options.out / "panel.png")
    return text


def _shown(path: Path) -> str:
    results = results_in(path)
    steps = {run.task: run.steps for run in results}
    tasks = [replace(task, steps=steps[name]) for name, task in TASKS.items() if name in steps]
    is_choice = all(run.held_out for run in results)
    return choice_table(results, tasks) if is_choice else rendered(results, tasks)


def _print(text: str) -> None:
    """Tables where they fit, and else the text that a table is made of."""
    console = Console()
    if console.is_terminal and console.width >= 140:
        console.print(Markdown(text))
    else:
        print(text)


if __name__ == "__main__":
    main()
