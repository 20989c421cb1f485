"""The report of a comparison: a page, a table of every run, and pictures."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_mmix.compare.differences import paired_difference
from lightning_mmix.compare.findings import (
    Results,
    Run,
    calibration_scores,
    clean_scores,
    family_scores,
    findings,
    spectrum_scores,
    table,
)
from lightning_mmix.compare.pictures import pictures
from lightning_mmix.compare.runs.task import write_json
from lightning_mmix.compare.score_tables import spread

_CAPTIONS = {
    "training": "What was logged while training, mean and one standard deviation over seeds.",
    "reliability": "Accuracy of the samples of all seeds by confidence; ECE and gap (mean "
    "confidence minus accuracy) are means over seeds.",
    "robustness": "Accuracy under each condition, mean and one standard deviation over seeds.",
    "spectrum": "Singular values of the centred hidden states of each class, means over seeds.",
    "interpolation": "Mean confidence on the way between samples of different classes.",
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
    runs = [run for each in results.values() for run in each]
    yield from ("# Comparison: " + ", ".join(results), "", "```sh", about["command"], "```", "")
    yield from (f"- {key}: {value}" for key, value in about.items() if key != "command")
    if reason := runs[0].get("unperturbed"):
        yield f"- inputs as they are, and not attacked or interpolated, since {reason}"
    if unmeasured := [run["unmeasured"] for run in runs if "unmeasured" in run]:
        yield from ("", f"Only what the module logs is compared, since {unmeasured[0]}.")
    else:
        yield from _measured(results)
    yield from _section("What the module logs", results, lambda run: run["own"])
    for name in names:
        caption = _CAPTIONS[name.removesuffix(".png").split("-")[0]]
        yield from ("", f"![{name.removesuffix('.png')}]({name})", "", f"*{caption}*")


def _measured(results: Results) -> Iterator[str]:
    """What was measured of classifiers."""
    yield from ("", "## Findings", *_grouped(findings(results)), "")
    yield (
        "An interval is Student's, over differences between runs of the same seed. Of twenty "
        "comparisons without any difference, one shows one by chance."
    )
    yield from _section("Scores", results, clean_scores)
    yield from _section("Calibration", results, calibration_scores)
    yield (
        "gap is confidence minus accuracy; smECE, the smooth calibration error, has no bins; T, if "
        "there is one, was fitted on validation data."
    )
    yield from _section("Accuracy under conditions", results, family_scores)
    yield "In percent, means over the strengths of a family; every one is in `results.csv`."
    yield from _section("Spectrum", results, spectrum_scores)
    yield "Of the centred states of a class, a mean over classes."


def _grouped(sentences: Sequence[str]) -> Iterator[str]:
    """Sentences as items of a list for each pair of ways to train, which they begin with."""
    for pair in dict.fromkeys(sentence.split(": ", 1)[0] for sentence in sentences):
        yield from ("", f"### {pair[0].upper()}{pair[1:]}", "")
        own = (sentence.removeprefix(f"{pair}: ") for sentence in sentences)
        yield from (f"- {rest}" for rest, s in zip(own, sentences, strict=True) if rest != s)


def _section(
    title: str, results: Results, score: Callable[[Run], Mapping[str, float]]
) -> list[str]:
    """A table in Markdown: a row a score, a column a way to train, and differences."""
    scores = table(results, score)
    (base, first), *others = scores.items()
    if not first:
        return []
    header = ["", *scores, *(f"Δ {arm}" for arm, _ in others)]
    lines = ["", f"## {title}", "", *_row(header), *_row(["---", *["--:"] * (len(header) - 1)])]
    for name, values in first.items():
        digits = 2 if max(map(abs, values)) > 1 else 4
        cells = [spread(each[name], digits) for each in scores.values()]
        for _, each in others:
            found = paired_difference(each[name], values)
            cells.append(f"{found.mean:+.{digits}f} ± {found.half_width:.{digits}f}")
        lines += _row([name, *cells])
    return [*lines, "", f"Mean ± standard deviation; Δ: minus {base}, ± half of its 95 % interval."]


def _row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


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
