"""Findings: the scores of several runs of each way to train, and what can be said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isclose, isfinite
from statistics import fmean

from lightning_mmix.compare.differences import Difference, paired_difference, places_for
from lightning_mmix.compare.runs.scores import (
    GAP,
    RANK,
    Score,
    clean_scores,
    family_scores,
    more_scores,
    spectrum_scores,
    table,
    tempered_scores,
)
from lightning_mmix.compare.runs.task import Results, Run

NEITHER, ONE_SEED = "no difference shown", "of one seed"
VERDICTS = ("better", "worse", "larger", "smaller", "not comparable", NEITHER, ONE_SEED)
_ROWS = ("largest", "sum of the rest", RANK)
_SAME = 1e-5  # relatively: a quantity that a module logs, and a score of the same predictions


def _all_clean_scores(run: Run) -> dict[str, float]:
    return {**clean_scores(run), **more_scores(run["clean"])}


def _all_tempered_scores(run: Run) -> dict[str, float]:
    return {**tempered_scores(run), **more_scores(run["tempered"] or {})}


def _hidden_scores(run: Run) -> dict[str, float]:
    """Those of the spectrum, as a table names them."""
    names = [f"{layer}: {row}" for layer in run["spectrum"] for row in _ROWS]
    return dict(zip(names, spectrum_scores(run).values(), strict=True))


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
HIDDEN_KIND = Kind("Hidden states", _hidden_scores, is_judged=False)
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
        means: Of the score: that of ``base``, and that of ``arm``.
        difference: The score of ``arm`` minus that of ``base``.
        places: How many digits behind the point they are shown with.
    """

    kind: Kind
    name: str
    arm: str
    base: str
    means: tuple[float, float]
    difference: Difference
    places: int

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
            return ONE_SEED if found.pairs == 1 else "not comparable"
        if not found.is_clear:
            return NEITHER
        if not self.kind.is_judged or self.name == GAP:
            return "larger" if found.mean > 0 else "smaller"
        return found.verdict(higher_is_better=self.label.startswith("accuracy"))

    @property
    def figures(self) -> str:
        """The difference with its unit, and its interval, if there are several runs."""
        return self.difference.shown(self.places, "\xa0points" * ("%" in self.label))


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
        _finding(kind, name, pair, {arm: each[name] for arm, each in values.items()})
        for kind in kinds(results)
        for values in [scores_of(kind, results)]
        for pair in pairs
        for name in values[arms[0]]
        if kind is LOGGED_KIND or name != "T"  # neither good nor bad
    ]


def _finding(
    kind: Kind, name: str, pair: tuple[str, str], values: Mapping[str, Sequence[float]]
) -> Finding:
    arm, base = pair
    found = paired_difference(values[arm], values[base])
    places = places_for(next(iter(values.values())), found)
    return Finding(kind, name, arm, base, (fmean(values[base]), fmean(values[arm])), found, places)


def scores_of(kind: Kind, results: Results) -> dict[str, dict[str, list[float]]]:
    """The table of a kind; what a module logs without what repeats a measured score."""
    again = repeated(results) if kind is LOGGED_KIND else []
    return {
        arm: {name: values for name, values in each.items() if name not in again}
        for arm, each in table(results, kind.score).items()
    }


def repeated(results: Results) -> list[str]:
    """The logged quantities that equal a measured score, the same one in every run."""
    if why_unmeasured(results):
        return []
    scores, is_same = _columns(results, _measured).values(), partial(isclose, rel_tol=_SAME)
    return [
        name
        for name, own in _columns(results, _logged).items()
        if any(all(map(is_same, own, score)) for score in scores)
    ]


def _measured(run: Run) -> dict[str, float]:
    at_t = {f"{name} at T": value for name, value in (run["tempered"] or {}).items()}
    fitted = run["temperature"]
    return dict(run["clean"]) if fitted is None else {**run["clean"], **at_t, "T": fitted}


def _columns(results: Results, score: Score) -> dict[str, list[float]]:
    """Name → its values in all runs."""
    scores = table(results, score).values()
    return {name: [v for each in scores for v in each[name]] for name in next(iter(scores))}
