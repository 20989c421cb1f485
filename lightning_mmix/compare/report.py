"""The report of a comparison: a page, a table of every run, and pictures."""

import csv
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from lightning_mmix.compare.findings import (
    CLEAN_KIND,
    FAMILY_KIND,
    HIDDEN_KIND,
    LOGGED_KIND,
    TEMPERED_KIND,
    VERDICTS,
    Finding,
    Kind,
    Results,
    Run,
    compared,
    kinds,
    table,
    why_unmeasured,
)
from lightning_mmix.compare.pictures import pictures
from lightning_mmix.compare.runs.task import write_json
from lightning_mmix.compare.score_tables import markdown_table
from lightning_mmix.compare.summary import summary

_text = partial(escape, quote=False)  # in which <key> is no HTML
_LONG = 6  # lines; more are folded
_PAGE = 80  # characters that fit on a line
_WORDS = {
    "NLL": "negative log-likelihood of the right class, in nats; less is better.",
    "ECE": "expected calibration error: the distance between confidence and accuracy, a mean over "
    "15 bins; less is better.",
    "Brier": "squared distance between the probabilities and the right answer; less is better.",
    "smECE": "smooth calibration error: an ECE without bins; less is better.",
    "gap": "mean confidence minus accuracy: above zero is over-confident.",
    "T": "the temperature: logits are divided by it; fitted on validation data.",
}
_CAPTIONS = {
    "training": "What was logged while training: mean over seeds, ± one standard deviation.",
    "reliability": "How far confidence can be trusted: accuracy of the samples of all seeds by "
    "their confidence. ECE and gap are means over seeds.",
    "robustness": "Accuracy by the strength of each condition (ε: how far an attack goes): mean "
    "over seeds, ± one standard deviation.",
    "spectrum": "Spectrum of {}: the singular values of the hidden states of a class, their mean "
    "taken off, which say how far it spreads in each direction; means over seeds.",
    "interpolation": "Mean confidence on the way between two samples of different classes, whose "
    "inputs or hidden states are mixed.",
}
_INTERVALS = (
    "In brackets is the 95 % interval of a difference. Where it contains zero, no difference is "
    "shown, though there may be one: few seeds show large ones only."
)
_CHANCE = (
    "Intervals are Student's, over differences between runs of the same seed. Of twenty "
    "comparisons without any difference, one shows one by chance."
)
_TABLED = {
    FAMILY_KIND: "In percent, a mean over the strengths of a family of conditions; every strength "
    "is in `results.csv`.",
    HIDDEN_KIND: "*largest* is the largest singular value of a class, *rest* the sum of the "
    "others, and *effective rank* the exponential of their entropy: how many directions the class "
    "spreads over. All are means over classes.",
    LOGGED_KIND: "Whether more of a quantity is better or worse is not known.",
}


def write_report(folder: Path, results: Results, about: Mapping[str, Any]) -> None:
    """Write ``report.md``, ``results.json``, ``results.csv`` and the pictures.

    Args:
        folder: Where to.
        results: The runs of each way to train, in one order of seeds.
        about: What was compared and on what machine: its ``command`` and lines to list.
    """
    runs = [run for each in results.values() for run in each]
    write_json(folder / "results.json", {"about": dict(about), "runs": runs})
    _write_csv(folder / "results.csv", runs)
    names = []
    for name, figure in pictures(results):
        figure.savefig(folder / name)
        names.append(name)
    (folder / "report.md").write_text("\n".join(_page(results, about, names)) + "\n")


def _page(results: Results, about: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    first = next(iter(results.values()))
    yield from ("# Comparison: " + ", ".join(results), "")
    if reason := why_unmeasured(results):
        reason = escape(reason, quote=False)
        yield from (
            f"Only what the module logs is compared; scores were not measured: {reason}.",
            "",
        )
    yield from map(_item, summary(results))
    yield from ("", _INTERVALS)
    yield from _scores(results)
    yield from _pictures(names)
    yield from _findings(results)
    yield from ("", "## How it was made", "", "```sh", _broken(about["command"]), "```", "")
    yield from (f"- {key}: {value}" for key, value in about.items() if key != "command")
    if reason := first[0].get("unperturbed", ""):
        yield f"- inputs as they are, and not attacked or interpolated, since {_text(reason)}"


def _item(line: str) -> str:
    """A line of the summary as an item of a list, what it is of in bold."""
    head, rest = line.split(" against ", 1)
    word, bracket, more = head.partition(" (")
    return f"- **{word}**{bracket}{more} against {rest}"


def _scores(results: Results) -> Iterator[str]:
    """The tables of scores, or of what there is instead, and what their words mean."""
    (base, runs), *_ = results.items()
    words = set[str]()
    for kind in _at_the_top(results):
        scores = table(results, kind.score)
        if any(scores.values()):
            yield from ("", f"## {kind.title}", "", *markdown_table(scores))
            words.update(name.removesuffix(" %") for name in scores[base])
    yield ""
    yield from (f"- **{word}**: {meaning}" for word, meaning in _WORDS.items() if word in words)
    yield f"- **±**: behind a mean, one standard deviation over {len(runs)} seeds."
    yield f"- **Δ**: minus {base}, run for run of the same seed, ± half of its 95 % interval."


def _at_the_top(results: Results) -> list[Kind]:
    return [each for each in kinds(results) if each in (CLEAN_KIND, TEMPERED_KIND)] or [LOGGED_KIND]


def _pictures(names: Sequence[str]) -> Iterator[str]:
    explained = set[str]()
    yield from ["", "## Pictures"] if names else []
    for name in names:
        kind, _, layer = name.removesuffix(".png").partition("-")
        caption = "The same of {}." if kind in explained else _CAPTIONS[kind]
        explained.add(kind)
        yield from ("", f"![{kind}]({name})", "", f"*{caption.format(layer)}*")


def _findings(results: Results) -> Iterator[str]:
    """Every finding, kind by kind and pair by pair, with tables of what is not at the top."""
    yield from ("", "## Every finding", "", _CHANCE)
    for kind, own in groupby(compared(results), attrgetter("kind")):
        yield from ("", f"### {kind.title}")
        if kind in _TABLED:
            yield from ("", _TABLED[kind])
        if kind not in _at_the_top(results):
            rows = markdown_table(table(results, kind.score))
            is_long = len(rows) - 2 > _LONG
            yield from _folded("Table", rows) if is_long else ["", *rows]
        for pair, each in groupby(own, attrgetter("pair")):
            yield from _sentences(pair, list(each))


def _sentences(pair: str, own: Sequence[Finding]) -> list[str]:
    counts = Counter(each.verdict for each in own)
    verdicts = (f"{verdict} in {counts[verdict]}" for verdict in VERDICTS if counts[verdict])
    title, lines = f"{pair}: {', '.join(verdicts)}", [f"- {each}" for each in own]
    return _folded(title, lines) if len(lines) > _LONG else ["", f"**{title}**", "", *lines]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    """Lines that a click on their title shows; without the empty lines they are no Markdown."""
    return [
        "",
        "<details>",
        f"<summary>{_text(title)}</summary>",
        "",
        *lines,
        "",
        "</details>",
    ]


def _broken(command: str) -> str:
    """A command that fits on a page, an option a line if it is long."""
    if len(command) <= _PAGE:
        return command
    words = map(shlex.quote, shlex.split(command))
    return " ".join(f"\\\n  {word}" if word.startswith("--") else word for word in words)


def _write_csv(path: Path, runs: Sequence[Run]) -> None:
    """A row a run and condition, and one a number that the module logs."""
    scores = ("samples", "accuracy", "nll", "brier", "ece", "smece", "gap")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "seed", "condition", "family", "strength", *scores, "value"])
        for run in runs:
            head = [run["arm"], run["seed"]]
            for row in run.get("conditions", []):
                about = [row[key] for key in ("condition", "family", "strength")]
                writer.writerow([*head, *about, *(row.get(name, "") for name in scores), ""])
            if run.get("tempered"):
                values = [run["tempered"].get(name, "") for name in scores]
                writer.writerow(
                    [*head, "clean at T", "temperature", run["temperature"], *values, ""]
                )
            for name, value in run["own"].items():
                writer.writerow([*head, name, "logged", "", *[""] * len(scores), value])
