"""Findings: the scores of several runs of each way to train, and what can be said of them."""

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import mean
from typing import Any

import torch

from lightning_mmix.compare.differences import Difference, paired_difference
from lightning_mmix.metrics.spectrum import spectrum_statistic

Run = Mapping[str, Any]  # as measurement.measure gives it
Results = Mapping[str, Sequence[Run]]  # arm → its runs, in one order of seeds

CLEAN = {"accuracy %": 100, "NLL": 1, "ECE %": 100, "Brier": 1}
_KEYS = {"accuracy %": "accuracy", "NLL": "nll", "ECE %": "ece", "Brier": "brier"}
_MORE = {"gap %": "gap", "smECE %": "smece"}
_AT_T = ("NLL", "ECE %", "Brier")


def clean_scores(run: Run) -> dict[str, float]:
    """Accuracy, NLL, ECE and Brier score on the clean data."""
    return {label: unit * run["clean"][_KEYS[label]] for label, unit in CLEAN.items()}


def calibration_scores(run: Run) -> dict[str, float]:
    """Confidence minus accuracy, smECE, and of a run with a temperature that, and scores at it.

    What a run of an earlier version did not measure is left out.
    """
    clean, at_t = run["clean"], run["tempered"] or {}
    scores = {label: 100 * clean[key] for label, key in _MORE.items() if key in clean}
    tempered = {(n if n == "T" else f"{n} at T"): v for n, v in tempered_scores(run).items()}
    if "smece" in at_t:
        tempered["smECE % at T"] = 100 * at_t["smece"]
    return {**scores, **tempered}


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


_STATISTICS: dict[str, Any] = {"largest": "largest", "rest": "rest", "effective rank": "rank"}


def table(results: Results, score: Any) -> dict[str, dict[str, list[float]]]:
    """Arm → score → its value in each run, of the scores that all runs have."""
    scores = {arm: [score(run) for run in runs] for arm, runs in results.items()}
    every = [each for runs in scores.values() for each in runs]
    names = [name for name in every[0] if all(name in each for each in every)]
    return {arm: {n: [each[n] for each in runs] for n in names} for arm, runs in scores.items()}


def findings(results: Results, *, brief: bool = False) -> list[str]:
    """A sentence for each way to train and each score: better, worse, or no difference.

    Args:
        results: Of two or more ways to train; the first one is what the others are held against,
            and the third against the second, too.
        brief: Whether scores on the clean data, against the first way, are enough.

    Returns:
        Sentences, the differences with 95 % confidence intervals.
    """
    arms = list(results)
    pairs = [(arm, arms[0]) for arm in arms[1:]]
    kinds = [("{}", clean_scores), ("{}", calibration_scores)]
    if not brief:
        pairs += [(arms[2], arms[1])] if len(arms) > 2 else []
        kinds += [("accuracy % under {}", family_scores), ("{}", spectrum_scores)]
    tables = [(label, table(results, score)) for label, score in kinds]
    return [
        _sentence(arm, base, label.format(name), paired_difference(values[arm][name], runs))
        for arm, base in pairs
        for label, values in tables
        for name, runs in values[base].items()
        if name not in ("gap %", "T")
    ]


def _sentence(arm: str, base: str, name: str, found: Difference) -> str:
    unit, digits = (" points", 2) if "%" in name else ("", 3)
    label = name.replace(" %", "")
    number = f"{found.mean:+.{digits}f}{unit}"
    if found.pairs == 1:
        return f"{arm} against {base}: {label} {number}; one seed says nothing about others."
    if not isfinite(found.mean):
        return f"{arm} against {base}: {label} can't be compared, since a run gave NaN or infinity."
    low, high = found.mean - found.half_width, found.mean + found.half_width
    if not found.is_clear:
        says = f"no difference in {label} shown with {found.pairs} seeds"
    elif name.endswith(tuple(_STATISTICS)):  # of a spectrum, which is neither good nor bad
        says = f"{label} is {'larger' if found.mean > 0 else 'smaller'}"
    else:
        says = f"{label} is {found.verdict(higher_is_better=name.startswith('accuracy'))}"
    interval = f"95 % interval {low:+.{digits}f} to {high:+.{digits}f}"
    return f"{arm} against {base}: {says}, {number} ({interval})."
