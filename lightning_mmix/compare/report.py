"""The report of a comparison: a page, a table of every run, and pictures."""

import csv
import shlex
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
    NEITHER,
    TEMPERED_KIND,
    VERDICTS,
    Finding,
    Kind,
    compared,
    kinds,
    repeated,
    scores_of,
    why_unmeasured,
)
from lightning_mmix.compare.pictures import pictures
from lightning_mmix.compare.runs.scores import table
from lightning_mmix.compare.runs.task import Results, Run, write_json
from lightning_mmix.compare.score_tables import markdown_table
from lightning_mmix.compare.summary import caveats, sentences, summary

_text = partial(escape, quote=False)  # in which <key> is no HTML
_LONG = 6  # lines; more are folded
_PAGE = 80  # characters that fit on a line
_APART = ("command", "ways")  # of what a report is told, have a place of their own
_WORDS = {
    "accuracy": "the share of samples that are classified rightly; more is better.",
    "NLL": "negative log-likelihood of the right class, in nats; less is better.",
    "confidence": "the probability of the class that is predicted.",
    "ECE": "expected calibration error: samples are sorted into 15 bins by confidence; the mean "
    "distance between confidence and accuracy in a bin; less is better.",
    "smECE": "smooth calibration error: an ECE without bins; less is better.",
    "gap": "mean confidence minus accuracy: above zero is over-confident.",
    "Brier": "squared distance between the probabilities and the right answer; less is better.",
    "T": "the temperature: logits are divided by it; fitted on validation data.",
    "points": "percentage points.",
    "FGSM": "an attack that changes each input value by at most ε, in one step.",
    "PGD": "the same in several steps.",
    "PGD L2": "an attack that moves the whole input by a distance of at most ε, in several steps.",
    "Gaussian noise": "on every input value; its strength is the standard deviation, in their "
    "units.",
    "effective rank": "how many directions a class spreads over, a mean over classes: e to the "
    "entropy of all singular values, scaled to sum 1.",
    "±": "behind a mean, one standard deviation over seeds.",
    "Δ": "minus {base}, run for run of the same seed, ± half of its 95 % interval; bold where that "
    "leaves out zero.",
}
_CAPTIONS = {
    "training": "What was logged while training: mean over seeds, ± one standard deviation. While "
    "mixing, training loss and accuracy are of mixed samples, so they are worse by design.",
    "reliability": "How far confidence can be trusted: accuracy of the samples of all seeds by "
    "their confidence. ECE and gap are means over seeds.",
    "robustness": "Accuracy by the strength of each condition (ε: how far an attack goes): mean "
    "over seeds, ± one standard deviation.",
    "spectrum": "Spectrum of {}: the singular values of the centred hidden states of a class: how "
    "far it spreads in each direction; means over seeds. A class of n samples has at most n - 1 "
    "values; below them is the floor.",
    "interpolation": "Mean confidence over seeds, on the way between two samples of different "
    "classes, whose inputs or hidden states are mixed.",
}
_INTERVALS = (
    "Behind a difference stands its 95 % interval in brackets, from Student's t of the differences "
    "between runs with equal seeds. Where it contains zero, no difference is shown, though there "
    "may be one: few seeds show large ones only."
)
_TABLED = {
    FAMILY_KIND: "In percent, a mean over the strengths of a kind of attack, noise or deformation; "
    "every strength is in `results.csv`.",
    HIDDEN_KIND: "Of the singular values of a class's hidden states; means over classes. Neither "
    "more nor less is better in itself.",
    LOGGED_KIND: "Not judged: the report does not know which way is better.",
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
    page = "\n".join(_page(results, about, names))
    (folder / "report.md").write_text(f"{page}\n", encoding="utf-8")


def _page(results: Results, about: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    first = next(iter(results.values()))
    yield from _head(results, about)
    yield from map(_item, summary(results))
    yield from ("", _INTERVALS, "", *_words(results))
    for kind in _at_the_top(results):
        scores = table(results, kind.score)
        if any(scores.values()):
            yield from ("", f"## {kind.title}", "", *markdown_table(scores))
    yield from _pictures(names)
    yield from _findings(results)
    yield from ("", "## How it was made", "", "```sh", _broken(about["command"]), "```", "")
    yield from (f"- {key}: {value}" for key, value in about.items() if key not in _APART)
    if reason := first[0].get("unperturbed", ""):
        yield f"- inputs as they are, and not attacked or interpolated, since {_text(reason)}"


def _head(results: Results, about: Mapping[str, Any]) -> Iterator[str]:
    """What was compared, and what to know before it is believed."""
    yield from ("# Comparison: " + ", ".join(results), "")
    if reason := why_unmeasured(results):
        yield from (
            f"Only what the module logs is compared; scores were not measured: {_text(reason)}.",
            "",
        )
    if ways := about.get("ways"):
        yield from (*(f"- {arm}: {way}" for arm, way in ways.items()), "")
    if warned := caveats(results):
        yield from (" ".join(warned), "")


def _item(line: str) -> str:
    """A line of the summary as an item of a list, what it is of in bold."""
    head, rest = line.split(": ", 1)
    word, bracket, more = head.partition(" (")
    return f"- **{word}**{bracket}{more}: {rest}"


def _words(results: Results) -> Iterator[str]:
    """What the words of the report mean, a line each."""
    base = next(iter(results))
    used = {"±", "Δ"}
    for kind in kinds(results):
        if kind is not LOGGED_KIND:
            names = table(results, kind.score)[base]
            used.update(name.removesuffix(" %").split(": ")[-1] for name in names)
            used.update(("confidence", "points"))
    for word, meaning in _WORDS.items():
        if word in used:
            yield f"- **{word}**: {meaning.format(base=base)}"


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
    found, again = compared(results), repeated(results)
    yield from ("", "## Every finding")
    for kind, own in groupby(found, attrgetter("kind")):
        yield from ("", f"### {kind.title}")
        yield from ["", _TABLED[kind]] if kind in _TABLED else []
        if kind not in _at_the_top(results):
            rows = markdown_table(scores_of(kind, results))
            yield from _folded(f"Table, {len(rows) - 2} rows", rows, len(rows) - 2)
        for pair, each in groupby(own, attrgetter("pair")):
            yield from _sentences(pair, list(each))
    if again:
        title = f"### {LOGGED_KIND.title}"
        yield from ["", title] if found[-1].kind is not LOGGED_KIND else []
        yield from ("", f"Left out, since they equal a score in every run: {', '.join(again)}.")


def _sentences(pair: str, own: Sequence[Finding]) -> list[str]:
    lines = [f"- {each}" for each in sentences(own)]
    if len(lines) <= _LONG:
        return ["", f"**{pair}**", "", *lines]
    labels = {verdict: [f.label for f in own if f.verdict == verdict] for verdict in VERDICTS}
    count = len(labels.pop(NEITHER))
    parts = [f"{verdict}: {', '.join(names)}" for verdict, names in labels.items() if names]
    parts += [f"{NEITHER} in {count}"] if count else []
    return _folded(f"{pair}: {'; '.join(parts)}", lines, len(lines))


def _folded(title: str, lines: Sequence[str], count: int) -> list[str]:
    """Lines that a click on their title shows if they are many.

    Without the empty lines they are no Markdown.
    """
    if count <= _LONG:
        return ["", *lines]
    head = ["", "<details>", f"<summary>{_text(title)}</summary>", ""]
    return [*head, *lines, "", "</details>"]


def _broken(command: str) -> str:
    """A command that fits on a page, an option a line if it is long."""
    if len(command) <= _PAGE:
        return command
    words = map(shlex.quote, shlex.split(command))
    return " ".join(f"\\\n  {word}" if word.startswith("--") else word for word in words)


def _write_csv(path: Path, runs: Sequence[Run]) -> None:
    """A row a run and condition, and one a number that the module logs."""
    scores = ("samples", "accuracy", "nll", "brier", "ece", "smece", "gap")
    with path.open("w", encoding="utf-8", newline="") as file:
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
