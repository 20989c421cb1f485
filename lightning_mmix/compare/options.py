"""Options: what a comparison is told on the command line, read without importing anything large."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from lightning_mmix.compare.runs.task import Task, Way

ARMS: dict[str, tuple[str, Way]] = {
    "none": ("no mixing", "none"),
    "input": ("input mixup", "input"),
    "manifold": ("manifold mixup", "manifold"),
}
NAMES = ("form", "target", "input", "output", "samples", "fast", "ignore_index")

_CONFIG = ("--config", "-c")
_DESCRIPTION = """\
Train no mixing, input mixup and manifold mixup on a LightningCLI config, over
several seeds, and measure accuracy, calibration, robustness, spectrum and
interpolation of each. Everything that is not listed here goes to LightningCLI:
--config FILE, --trainer.max_epochs 10, ...

All of it is tried on one batch before anything is trained. Stopped and started
again, the same command goes on where it was."""
_EXAMPLES = """\
examples:
  lightning-mmix compare --config config.yaml --fast
  lightning-mmix compare --config config.yaml --arms none manifold mine.yaml
  lightning-mmix compare --config config.yaml --shard 3/8  # the third of eight
  lightning-mmix compare --config config.yaml --collect    # when all are done"""


@dataclass(frozen=True)
class Options:
    """What a comparison was told.

    Attributes:
        ways: The name of each way to train, how it mixes, and its own arguments for LightningCLI.
        rest: The arguments for LightningCLI of all ways.
        seeds: How many runs there are of each way.
        out: The folder of the results.
        jobs: How many runs go at once at most; None for as many as fit.
        gpus_per_run: How many GPUs each run gets.
        shard: Which share of the runs is to be done, (k, n) for the k-th of n; None for all.
        collect: Whether to do nothing but write the report.
        measuring: The arguments of :class:`~.instructions.Instructions`.
    """

    ways: Mapping[str, tuple[Way, list[str]]]
    rest: list[str]
    seeds: int
    out: Path
    jobs: int | None
    gpus_per_run: int
    shard: tuple[int, int] | None
    collect: bool
    measuring: dict[str, Any]

    @property
    def tasks(self) -> list[Task]:
        """All runs, seed by seed."""
        return [
            Task(arm, way, seed, [*self.rest, *overlays], self.measuring)
            for seed in range(self.seeds)
            for arm, (way, overlays) in self.ways.items()
        ]

    @property
    def own(self) -> list[Task]:
        """The runs of the shard."""
        k, n = self.shard or (1, 1)
        return self.tasks[k - 1 :: n]

    @property
    def rehearsal(self) -> list[Task]:
        """One run of each way."""
        return [task for task in self.tasks if task.seed == 0]

    @property
    def spec(self) -> dict[str, Any]:
        """What makes runs comparable, by names that a message can use."""
        return {
            "config": _contents(self.rest),
            "arguments for LightningCLI": self.rest,
            "options of measuring": self.measuring,
            **{f"lines for {arm}": _contents(more) for arm, (_, more) in self.ways.items()},
        }


def options_of(args: Sequence[str]) -> Options:
    """Read the arguments of ``lightning-mmix compare``.

    Args:
        args: What stands behind the command.

    Raises:
        ArgumentError: If one of them does not fit.
        SystemExit: After ``--help``.
    """
    given, rest = _parser().parse_known_args(args)
    seeds = given.seeds if given.seeds is not None else 2 if given.fast else 5
    _refuse(seeds < 2, f"expected --seeds of at least 2 to compare, but got {seeds}")
    # an option of LightningCLI has one value
    stray = [b for a, b in pairwise(["", *rest]) if not a.startswith("-") and b[:1] != "-"]
    _refuse(stray, f"unrecognized arguments: {' '.join(stray)}; --seeds and --jobs take a number")
    is_given = any(arg.split("=")[0] in _CONFIG for arg in rest)
    _refuse(not is_given, "expected the --config of a LightningModule and its data")
    _refuse(given.collect and given.shard, "expected --shard or --collect, but got both")
    _refuse(
        given.out.exists() and not given.out.is_dir(),
        f"expected a folder as --out, but {given.out} is a file",
    )
    _refuse_numbers(given)
    ways = dict(map(_way, given.arms))
    _refuse(
        not 1 < len(ways) == len(given.arms),
        f"expected two or more arms of different names, but got {given.arms}",
    )
    try:
        [_contents([*rest, *more]) for _, more in ways.values()]
    except OSError as error:
        _refuse(True, f"expected a file to read, but got {error.filename!r}: {error.strerror}")
    except UnicodeDecodeError:
        _refuse(True, "expected YAML files as --config, but one of them holds no text")
    return Options(
        ways, rest, seeds, given.out, given.jobs, given.gpus_per_run, given.shard, given.collect,
        _measuring(given),
    )  # fmt: skip


def names() -> list[str]:
    """The names of the options that are read here."""
    return [name for action in _parser()._actions for name in action.option_strings]


def _refuse_numbers(given: argparse.Namespace) -> None:
    jobs = 1 if given.jobs is None else given.jobs
    _refuse(jobs < 1, f"expected --jobs of at least 1, but got {jobs}")
    _refuse(given.gpus_per_run < 1, f"expected --gpus-per-run ≥ 1, but got {given.gpus_per_run}")
    _refuse(given.samples < 0, f"expected --samples ≥ 0, where 0 is all, but got {given.samples}")


def _refuse(is_wrong: object, message: str) -> None:
    if is_wrong:
        raise argparse.ArgumentError(None, message)


def _way(arm: str) -> tuple[str, tuple[Way, list[str]]]:
    """The name of an arm, how it mixes, and its further arguments of LightningCLI."""
    if arm in ARMS:
        name, way = ARMS[arm]
        return name, (way, [])
    expected = f"expected arms of {', '.join(ARMS)} or a YAML file, but there is no file {arm!r}"
    _refuse(not Path(arm).is_file(), expected)
    return Path(arm).stem, ("config", [f"--config={arm}"])


def configs_in(args: Sequence[str]) -> list[str]:
    """The names of the config files among arguments of LightningCLI."""
    parts = [part for arg in args for part in arg.split("=", 1)]
    return [name for flag, name in pairwise(parts) if flag in _CONFIG]


def _contents(args: Sequence[str]) -> list[str]:
    """What stands in the config files among arguments of LightningCLI."""
    return [Path(name).read_text(encoding="utf-8") for name in configs_in(args)]


def _measuring(given: argparse.Namespace) -> dict[str, Any]:
    low, high = given.range or (None, None)
    chosen = {name: getattr(given, name) for name in NAMES}
    numbers = {name: _number(getattr(given, name)) for name in ("mean", "std")}
    return {**chosen, "low": low, "high": high, **numbers}


def _number(values: list[float]) -> float | list[float]:
    return values[0] if len(values) == 1 else values


def _shard(text: str) -> tuple[int, int]:
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"expected K/N with 1 ≤ K ≤ N, but got {text!r}")
    return int(k), int(n)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "lightning-mmix compare",
        usage="lightning-mmix compare --config FILE [--config OVERLAY ...] [OPTION ...]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("what is compared").add_argument
    add("--arms", nargs="+", default=list(ARMS), metavar="ARM",
        help="ways to train: none, input, manifold (as in the config, or as it comes), or YAML "
        "files to lay over the config; the first is what the others are held against")  # fmt: skip
    add("--seeds", type=int, metavar="N", help="runs of each way (5, or 2 with --fast)")
    add("--out", type=Path, default=Path("comparison"), metavar="FOLDER",
        help="of the results (comparison)")  # fmt: skip
    add("--fast", action="store_true", help="two seeds and a few conditions, for a first look")
    add = parser.add_argument_group("where it runs").add_argument
    add("--jobs", type=int, metavar="N",
        help="runs at once (one a GPU; without GPUs one a core, at most four)")  # fmt: skip
    add("--gpus-per-run", type=int, default=1, metavar="N", help="GPUs that each run gets (1)")
    add("--shard", type=_shard, metavar="K/N",
        help="do the K-th of N shares of the runs, as one of several workers on one folder; write "
        "no report")  # fmt: skip
    add("--collect", action="store_true", help="train nothing, write the report of what is done")
    add("--traceback", action="store_true", help="show the whole traceback of an error")
    _add_measuring(parser)
    return parser


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("how it is measured").add_argument
    add("--samples", type=int, default=2000, metavar="N",
        help="test samples to attack, deform and corrupt (2000; 0 for all)")  # fmt: skip
    add("--form", choices=("logits", "probabilities"), default="logits",
        help="what the network puts out (logits)")  # fmt: skip
    for name in ("target", "input", "output"):
        add(f"--{name}", metavar="PATH",
            help=f"where the {name} is: a key, an index or a dotted path")  # fmt: skip
    add("--ignore-index", type=int, metavar="LABEL", help="of samples that count nowhere")
    add("--range", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="of the data, in which attacks stay (the range of the test inputs)")  # fmt: skip
    add("--mean", nargs="+", type=float, default=[0.0], metavar="X",
        help="what the data were normalised by: one number, or one a channel")  # fmt: skip
    add("--std", nargs="+", type=float, default=[1.0], metavar="X",
        help="what they were divided by then")  # fmt: skip
