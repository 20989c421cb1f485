"""The scores of a run: what a table or a picture shows of what was measured."""

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

import torch

from lightning_mmix.compare.runs.task import Results, Run
from lightning_mmix.metrics.spectrum import spectrum_statistic

Score = Callable[[Run], Mapping[str, float]]

GAP, RANK = "gap %", "effective rank"
_CLEAN = {"accuracy %": 100, "NLL": 1, "ECE %": 100, "Brier": 1}
_KEYS = {"accuracy %": "accuracy", "NLL": "nll", "ECE %": "ece", "Brier": "brier"}
_MORE = {"smECE %": "smece", GAP: "gap"}
_AT_T = ("NLL", "ECE %", "Brier")
_STATISTICS: dict[str, Any] = {"largest": "largest", "rest": "rest", RANK: "rank"}


def clean_scores(run: Run) -> dict[str, float]:
    """Accuracy, NLL, ECE and Brier score on the clean data.

    Example:
        >>> run = {"clean": {"accuracy": 0.9, "nll": 0.3, "ece": 0.05, "brier": 0.15}}
        >>> clean_scores(run)
        {'accuracy %': 90.0, 'NLL': 0.3, 'ECE %': 5.0, 'Brier': 0.15}
    """
    return {label: unit * run["clean"][_KEYS[label]] for label, unit in _CLEAN.items()}


def calibration_scores(run: Run) -> dict[str, float]:
    """Confidence minus accuracy, smECE, and of a run with a temperature that, and scores at it.

    What a run of an earlier version did not measure is left out.

    Example:
        >>> run = {"clean": {"gap": 0.25, "smece": 0.125}, "temperature": None, "tempered": None}
        >>> calibration_scores(run)
        {'smECE %': 12.5, 'gap %': 25.0}
    """
    smooth = {n: v for n, v in more_scores(run["tempered"] or {}).items() if n != GAP}
    scores = {**tempered_scores(run), **smooth}
    at_t = {(n if n == "T" else f"{n} at T"): v for n, v in scores.items()}
    return {**more_scores(run["clean"]), **at_t}


def tempered_scores(run: Run) -> dict[str, float]:
    """The temperature, and NLL, ECE and Brier score at it; of a run without one nothing.

    Example:
        >>> at_t = {"nll": 0.25, "ece": 0.5, "brier": 0.125}
        >>> tempered_scores({"temperature": 1.5, "tempered": at_t})
        {'T': 1.5, 'NLL': 0.25, 'ECE %': 50.0, 'Brier': 0.125}
    """
    if run["temperature"] is None:
        return {}
    at_t = {label: _CLEAN[label] * run["tempered"][_KEYS[label]] for label in _AT_T}
    return {"T": run["temperature"], **at_t}


def family_scores(run: Run) -> dict[str, float]:
    """The accuracy in percent, a mean over the strengths, of each family of conditions.

    Example:
        >>> rows = [{"family": "FGSM", "accuracy": accuracy} for accuracy in (0.75, 0.25)]
        >>> family_scores({"conditions": rows})
        {'FGSM': 50.0}
    """
    families: dict[str, list[float]] = {}
    for row in run["conditions"]:
        families.setdefault(row["family"], []).append(100 * row["accuracy"])
    return {name: fmean(values) for name, values in families.items() if name != "clean"}


def spectrum_scores(run: Run) -> dict[str, float]:
    """Of each layer the largest singular value, the sum of the rest, and the effective rank.

    Example:
        >>> spectrum_scores({"spectrum": {"net.1": [[4.0, 0.0, 0.0]]}})
        {'net.1 largest': 4.0, 'net.1 rest': 0.0, 'net.1 effective rank': 1.0}
    """
    scores = {}
    for layer, values in run["spectrum"].items():
        spectrum = torch.tensor(values)
        present = spectrum[spectrum[:, 0] > 0]
        for label, statistic in _STATISTICS.items():
            scores[f"{layer} {label}"] = float(spectrum_statistic(present, statistic).mean())
    return scores


def more_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Confidence minus accuracy, and smECE, as far as they were measured."""
    return {label: 100 * scores[key] for label, key in _MORE.items() if key in scores}


def table(results: Results, score: Score) -> dict[str, dict[str, list[float]]]:
    """Arm → score → its value in each run, of the scores that all runs have.

    Example:
        >>> runs = [{"temperature": T, "tempered": None} for T in (1.5, 1.7)]
        >>> table({"no mixing": runs}, lambda run: {"T": run["temperature"]})
        {'no mixing': {'T': [1.5, 1.7]}}
    """
    scores = {arm: [score(run) for run in runs] for arm, runs in results.items()}
    every = [each for runs in scores.values() for each in runs]
    names = [name for name in every[0] if all(name in each for each in every)]
    return {arm: {n: [each[n] for each in runs] for n in names} for arm, runs in scores.items()}
