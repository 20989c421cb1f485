"""Run experiments of Verma et al. (2019), and hold the results against what was published.

    python -m paper                          # lists the experiments
    python -m paper cifar10-preactresnet18   # five seeds of each way to train
    python -m paper 'cifar100-*' --seeds 2 --config examples/paper/configs/short.yaml
    python -m paper little-data --arms none manifold_1
    python -m paper --show                   # the tables of what was done

with PYTHONPATH=examples in front of each.

What is not listed below goes to lightning-mmix compare, and by way of it to LightningCLI, as
--jobs, --gpus-per-run, --data.init_args.root FOLDER or --config FILE. Stopped and started again,
the same command goes on where it was. The folder of the results gets table.md and table.png.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lightning_mmix.compare import compare, write_json
from paper.experiments import EXPERIMENTS, arm_file
from paper.results import found_in, markdown, picture, summary


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, and list, run or show."""
    given = sys.argv[1:] if args is None else list(args)
    parser = _parser()
    options, rest = parser.parse_known_args(given)
    unknown = [n for n in options.experiments if not any(fnmatch(e, n) for e in EXPERIMENTS)]
    if unknown:
        parser.error(f"there is no experiment {unknown[0]!r}; without any, all are listed")
    if not options.experiments and not options.show:
        Console().print(listed())
        return
    names = [n for n in EXPERIMENTS if any(fnmatch(n, each) for each in options.experiments)]
    command = shlex.join(["python", "-m", "paper", *given])
    for name in names if not options.show else []:
        folder = options.out / name
        compare([*EXPERIMENTS[name].args(options.arms), "--out", str(folder), *rest])
        write_json(folder.with_suffix(".json"), summary(folder, f"PYTHONPATH=examples {command}"))
    show(options.out)


def show(folder: Path) -> None:
    """Print what was done as tables, and write them and their picture down."""
    found = found_in(folder)
    if not found:
        raise SystemExit(f"there are no results in {folder}")
    page = markdown(found)
    (folder / "table.md").write_text(page)
    picture(found).savefig(folder / "table.png")
    print(page)


def listed() -> Table:
    """The experiments, with what was published of them."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in ("experiment", "", "ways to train, with published accuracy %"):
        table.add_column(head, overflow="fold")
    for name, each in EXPERIMENTS.items():
        ways = ", ".join(f"{arm} {told.accuracy:.2f}" for arm, told in each.arms.items())
        table.add_row(name, each.title, ways)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("experiments", nargs="*", help="names, or patterns such as 'cifar10-*'")
    parser.add_argument("--out", type=Path, default=Path("reproduced"), help="(reproduced)")
    ways = sorted(path.stem for path in arm_file("").parent.glob("*.yaml"))
    parser.add_argument("--arms", nargs="+", metavar="ARM",
        help=f"ways to train in place of the published ones: none, input, manifold, a YAML file, "
        f"or {', '.join(ways)}")  # fmt: skip
    parser.add_argument("--show", action="store_true", help="only the tables of what was done")
    return parser


if __name__ == "__main__":
    main()
