"""Results: what was measured of experiments beside what was published, as tables and a picture."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_mmix.compare import (
    calibration_scores,
    clean_scores,
    family_scores,
    mean_and_deviation,
    paired_difference,
    spectrum_scores,
    spread,
    table,
)
from lightning_mmix.plots import COLOURS, Style, legend, looked, panels
from paper.experiments import ARMS, EXPERIMENTS, Published

Summary = Mapping[str, Any]

_TITLES = (
    "", "published: accuracy %", "NLL", "measured: accuracy %", "NLL", "ECE %", "Brier",
    "Δ accuracy", "Δ NLL", "epochs", "seeds", "hardware",
)  # fmt: skip
_MEASURED = ("accuracy %", "NLL", "ECE %", "Brier")
_NONE = "-"
_MARKS: Mapping[str, Style] = {
    "published": {"marker": "D", "linestyle": "", "mfc": "white", "mec": COLOURS[0]},
    "measured": {"marker": "o", "linestyle": "", "color": COLOURS[2]},
}


def summary(folder: Path, command: str) -> Summary:
    """What the folder of a comparison holds, in short.

    Args:
        folder: As ``lightning-mmix compare`` leaves it.
        command: What was called.

    Returns:
        In plain containers: ``about``, ``epochs``, and ``scores``, arm → score → value of each
        run.
    """
    held = json.loads((folder / "results.json").read_text())
    results: dict[str, list[Any]] = {}
    for run in held["runs"]:
        results.setdefault(run["arm"], []).append(run)
    kinds = (clean_scores, calibration_scores, family_scores, spectrum_scores)
    tables = [table(results, kind) for kind in kinds]
    epochs = [max(curve["epoch"]) for curve in held["runs"][0]["history"].values()]
    return {
        "about": {**held["about"], "command": command},
        "epochs": 1 + int(max(epochs)),
        "scores": {arm: {k: v for t in tables for k, v in t[arm].items()} for arm in results},
    }


def found_in(folder: Path) -> dict[str, Summary]:
    """The summaries in a folder, by the names of their experiments."""
    files = {name: folder / f"{name}.json" for name in EXPERIMENTS}
    return {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}


def markdown(found: Mapping[str, Summary]) -> str:
    """A section for each experiment: a row a way to train, and further scores below."""
    return "\n".join(line for name, each in found.items() for line in _section(name, each))


def further(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Everything else that was measured, a row a score and a column a way to train."""
    (_, first), *others = scores.items()
    names = [name for name in first if name not in _MEASURED]
    heads = ["", *scores, *(f"Δ {arm}" for arm, _ in others)]
    rows = [
        [
            name,
            *(spread(each[name], _digits(name)) for each in scores.values()),
            *(_difference(each[name], first[name], _digits(name)) for _, each in others),
        ]
        for name in names
    ]
    return "\n".join(_lines(heads, rows))


@looked
def picture(found: Mapping[str, Summary]) -> Figure:
    """Accuracies, published and measured, a panel an experiment: means ± standard deviation."""
    figure, axes = panels(len(found), 2.2)
    for ax, (name, each) in zip(axes, found.items(), strict=True):
        arms = _arms(name, each)
        published = {arm: EXPERIMENTS[name].arms.get(arm) for arm in arms}
        ax.set(title=name, xlabel="accuracy (%)", yticks=range(len(arms)), yticklabels=arms)
        for row, arm in enumerate(arms):
            told, scores = published[arm], each["scores"].get(ARMS.get(arm, arm))
            if told is not None:
                ax.plot(told.accuracy, row, **_MARKS["published"])
            if scores is not None:
                mean, std = mean_and_deviation(scores["accuracy %"])
                ax.errorbar(mean, row, xerr=std, **_MARKS["measured"])
        ax.invert_yaxis()
    legend(figure, [Line2D([], [], label=label, **mark) for label, mark in _MARKS.items()])
    return figure


def _section(name: str, each: Summary) -> Iterator[str]:
    yield from (f"### {EXPERIMENTS[name].title}", "", "```sh", each["about"]["command"], "```", "")
    yield from _lines(_TITLES, [_row(name, arm, each) for arm in _arms(name, each)])
    yield ""


def _arms(name: str, each: Summary) -> list[str]:
    """The published ways to train, and those that were measured beyond them."""
    names = {label: arm for arm, label in ARMS.items()}
    measured = (names.get(label, label) for label in each["scores"])
    return list(dict.fromkeys([*EXPERIMENTS[name].arms, *measured]))


def _row(name: str, arm: str, each: Summary) -> list[str]:
    told = EXPERIMENTS[name].arms.get(arm)
    scores = each["scores"].get(ARMS.get(arm, arm))
    if scores is None:
        return [arm, *_published(told), *[_NONE] * (len(_TITLES) - 3)]
    base = next(iter(each["scores"].values()))
    differences = [
        _NONE if scores is base else _difference(scores[key], base[key], _digits(key))
        for key in ("accuracy %", "NLL")
    ]
    measured = [spread(scores[key], _digits(key)) for key in _MEASURED]
    seeds = len(scores["NLL"])
    about = [str(each["epochs"]), str(seeds), each["about"]["machine"]]
    return [arm, *_published(told), *measured, *differences, *about]


def _published(told: Published | None) -> list[str]:
    if told is None:
        return [_NONE, _NONE]
    return [f"{told.accuracy:.2f}", _NONE if told.nll is None else f"{told.nll:.3f}"]


def _difference(values: Sequence[float], base: Sequence[float], digits: int) -> str:
    found = paired_difference(values, base)
    return f"{found.mean:+.{digits}f} ± {found.half_width:.{digits}f}"


def _digits(score: str) -> int:
    return 3 if score in ("NLL", "Brier", "NLL at T", "T") else 2


def _lines(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["--:"] * (len(titles) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows)]
