"""Findings: the scores of several runs of each way to train, and what can be said of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import mean
from typing import Any

import torch

from lightning_mmix.compare.differences import Difference, digits_for, paired_difference
from lightning_mmix.metrics.spectrum import spectrum_statistic

Run = Mapping[str, Any]  # as measurement.measure gives it
Results = Mapping[str, Sequence[Run]]  # arm → its runs, in one order of seeds
Score = Callable[[Run], Mapping[str, float]]

CLEAN = {"accuracy %": 100, "NLL": 1, "ECE %": 100, "Brier": 1}
_KEYS = {"accuracy %": "accuracy", "NLL": "nll", "ECE %": "ece", "Brier": "brier"}
_MORE = {"smECE %": "smece", "gap %": "gap"}
_AT_T = ("NLL", "ECE %", "Brier")
VERDICTS = (
    *("better", "worse", "larger", "smaller"),
    *("no difference shown", "of one seed", "not comparable"),
)
_STATISTICS: dict[str, Any] = {"largest": "largest", "rest": "rest", "effective rank": "rank"}


def clean_scores(run: Run) -> dict[str, float]:
    """Accuracy, NLL, ECE and Brier score on the clean data."""
    return {label: unit * run["clean"][_KEYS[label]] for label, unit in CLEAN.items()}


def calibration_scores(run: Run) -> dict[str, float]:
    """Confidence minus accuracy, smECE, and of a run with a temperature that, and scores at it.

    What a run of an earlier version did not measure is left out.
    """
    at_t = {(n if n == "T" else f"{n} at T"): v for n, v in _all_tempered_scores(run).items()}
    return {**_more(run["clean"]), **at_t}


def tempered_scores(run: Run) -> dict[str, float]:
    """The temperature, and NLL, ECE and Brier score at it; of a run without one nothing."""
    if run["temperature"] is None:
        return {}
    at_t = {label: CLEAN[label] * run["tempered"][_KEYS[label]] for label in _AT_T}
    return {"T": run["temperature"], **at_t}


def family_scores(run: Run) -> dict[str, float]:
    """The accuracy in percent, a mean over the strengths, of each family of conditions."""
    families: dict[str, list[float]] = {}
    for row in run["conditions"]:
        families.setdefault(row["family"], []).append(100 * row["accuracy"])
    return {name: mean(values) for name, values in families.items() if name != "clean"}


def noise_scores(run: Run) -> dict[str, float]:
    """Accuracy in percent under noise and under FGSM, of the two weakest strengths each."""
    found = {}
    for family, name in (("Gaussian noise", "noise"), ("FGSM", "FGSM")):
        rows = [row for row in run["conditions"] if row["family"] == family]
        for row in sorted(rows, key=lambda row: float(row["strength"]))[:2]:
            found[f"{name} {row['strength']:.2g}"] = 100 * float(row["accuracy"])
    return found


def spectrum_scores(run: Run) -> dict[str, float]:
    """Of each layer the largest singular value, the sum of the rest, and the effective rank."""
    scores = {}
    for layer, values in run["spectrum"].items():
        spectrum = torch.tensor(values)
        present = spectrum[spectrum[:, 0] > 0]
        for label, statistic in _STATISTICS.items():
            scores[f"{layer} {label}"] = float(spectrum_statistic(present, statistic).mean())
    return scores


def _more(scores: Mapping[str, float]) -> dict[str, float]:
    return {label: 100 * scores[key] for label, key in _MORE.items() if key in scores}


def _all_clean_scores(run: Run) -> dict[str, float]:
    return {**clean_scores(run), **_more(run["clean"])}


def _all_tempered_scores(run: Run) -> dict[str, float]:
    smooth = {n: v for n, v in _more(run["tempered"] or {}).items() if n != "gap %"}
    return {**tempered_scores(run), **smooth}


def _logged(run: Run) -> dict[str, float]:
    return dict(run["own"])


@dataclass(frozen=True)
class Kind:
    """A kind of scores.

    Attributes:
        title: Stands above its tables and sentences.
        score: Gives those of a run.
        label: How a sentence names one of them.
        is_judged: Whether it is known if more or less of them is better.
    """

    title: str
    score: Score
    label: str = "{}"
    is_judged: bool = True


CLEAN_KIND = Kind("Scores as trained", _all_clean_scores)
TEMPERED_KIND = Kind("Scores at the temperature", _all_tempered_scores, "{} at T")
FAMILY_KIND = Kind("Accuracy under conditions", family_scores, "accuracy % under {}")
HIDDEN_KIND = Kind("Hidden states", spectrum_scores, is_judged=False)
LOGGED_KIND = Kind("What the module logs", _logged, is_judged=False)


def kinds(results: Results) -> list[Kind]:
    """What there is to compare; of modules that are no classifiers only what they log."""
    every = [CLEAN_KIND, TEMPERED_KIND, FAMILY_KIND, HIDDEN_KIND, LOGGED_KIND]
    return every[-1:] if why_unmeasured(results) else every


def why_unmeasured(results: Results) -> str:
    """Why only what the module logs is compared; empty if more is."""
    reasons = (run.get("unmeasured", "") for runs in results.values() for run in runs)
    return next(filter(None, reasons), "")


@dataclass(frozen=True)
class Finding:
    """What can be said of a score of one way to train against another one.

    Attributes:
        kind: Of the score.
        name: Of the score.
        arm: The way that is held against ``base``.
        base: The other way.
        difference: The score of ``arm`` minus that of ``base``.
    """

    kind: Kind
    name: str
    arm: str
    base: str
    difference: Difference

    @property
    def label(self) -> str:
        """What a sentence calls the score."""
        return self.kind.label.format(self.name)

    @property
    def pair(self) -> str:
        """What is held against what."""
        return f"{self.arm} against {self.base}"

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``."""
        found = self.difference
        if found.pairs == 1 or not isfinite(found.mean):
            return "of one seed" if found.pairs == 1 else "not comparable"
        if not found.is_clear:
            return "no difference shown"
        if not self.kind.is_judged:
            return "larger" if found.mean > 0 else "smaller"
        return found.verdict(higher_is_better=self.label.startswith("accuracy"))

    @property
    def figures(self) -> str:
        """The difference with its unit, and its interval, if there are several runs."""
        found, is_percent = self.difference, "%" in self.label
        places = 2 if is_percent else 3
        if not self.kind.is_judged:
            places = digits_for([found.mean, found.half_width])
        number = f"{found.mean:+.{places}f}" + " points" * is_percent
        if found.pairs == 1:
            return number
        if not found.half_width:
            return f"{number} (the same with every seed)"
        low, high = found.mean - found.half_width, found.mean + found.half_width
        return f"{number} (95 % interval {low:+.{places}f} to {high:+.{places}f})"

    def __str__(self) -> str:
        found, label = self.difference, self.label.replace(" %", "")
        if found.pairs == 1:
            return f"{label} {self.figures}; one seed says nothing about others."
        if not isfinite(found.mean):
            return f"{label} can't be compared, since a run gave NaN or infinity."
        if not found.is_clear:
            return f"no difference in {label} shown with {found.pairs} seeds, {self.figures}."
        return f"{label} is {self.verdict}, {self.figures}."


def compared(results: Results) -> list[Finding]:
    """What there is to find, kind by kind, and in each pair by pair.

    Args:
        results: Of two or more ways to train; the first one is what the others are held against,
            and the third against the second, too.
    """
    arms = list(results)
    pairs = [(arm, arms[0]) for arm in arms[1:]]
    pairs += [(arms[2], arms[1])] if len(arms) > 2 else []
    return [
        Finding(kind, name, arm, base, paired_difference(values[arm][name], runs))
        for kind in kinds(results)
        for values in [table(results, kind.score)]
        for arm, base in pairs
        for name, runs in values[base].items()
        if kind is LOGGED_KIND or name not in ("gap %", "T")  # neither good nor bad
    ]


def findings(results: Results) -> list[str]:
    """A sentence for each way to train and each score: better, worse, or no difference.

    Args:
        results: As :func:`compared` takes them.

    Returns:
        Sentences, the differences with 95 % confidence intervals.
    """
    return [f"{each.pair}: {each}" for each in compared(results)]


def table(results: Results, score: Score) -> dict[str, dict[str, list[float]]]:
    """Arm → score → its value in each run, of the scores that all runs have."""
    scores = {arm: [score(run) for run in runs] for arm, runs in results.items()}
    every = [each for runs in scores.values() for each in runs]
    names = [name for name in every[0] if all(name in each for each in every)]
    return {arm: {n: [each[n] for each in runs] for n in names} for arm, runs in scores.items()}
