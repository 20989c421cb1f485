"""The summary of a comparison: what was found, in at most five lines of plain words."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from math import isfinite, nan
from operator import itemgetter
from statistics import fmean

from lightning_mmix.compare.findings import (
    FAMILY_KIND,
    HIDDEN_KIND,
    LOGGED_KIND,
    Finding,
    Results,
    Run,
    compared,
)

_MOST = 5
_NEITHER = "no difference shown"
_RANK = " effective rank"
_VERBS = {
    "better": "is better",
    "worse": "is worse",
    "larger": "makes it larger",
    "smaller": "makes it smaller",
    _NEITHER: "shows no difference",
    "of one seed": "differs",
    "not comparable": "can't be compared",
}
_SPREAD = {
    **_VERBS,
    "larger": "spreads each class over more directions",
    "smaller": "spreads each class over fewer directions",
}


def summary(results: Results) -> list[str]:
    """What was found, a line a kind of score: every way to train against the first one.

    Of a classifier that is accuracy, likelihood, calibration, robustness and hidden states, or what
    else there is where one of these is missing; of another module what it logs, the clearest
    differences first.

    Args:
        results: Of two or more ways to train.

    Returns:
        At most five sentences in plain text, the differences with 95 % confidence intervals.
    """
    base = next(iter(results))
    own = [each for each in compared(results) if each.base == base]
    measured = [each for each in own if each.kind is not LOGGED_KIND]
    logged = [each for each in own if each.kind is LOGGED_KIND]
    lines = filter(None, [*_measured(measured, base, results), *_logged(logged, base)])
    once = "; one seed says nothing about others." if len(results[base]) == 1 else "."
    return [line.removesuffix(".") + once for line in lines][:_MOST]


def _measured(own: Sequence[Finding], base: str, results: Results) -> Iterator[str]:
    """A line a kind of score, empty where that was not measured."""
    against, called = f"against {base}", {arm: arm + _trust(results[arm]) for arm in results}
    likelihoods = {"NLL": " in NLL", "Brier": " in Brier score"}
    errors = {"ECE %": " in ECE", "ECE % at T": " in ECE at the temperature"}
    layers = {
        each.label: f" at {each.label.removesuffix(_RANK)}"
        for each in own
        if each.kind is HIDDEN_KIND and each.label.endswith(_RANK)
    }
    yield _line(f"Accuracy {against}", own, {"accuracy %": ""})
    yield _line(f"Likelihood {against}", own, likelihoods)
    yield _line(f"Calibration against {called[base]}", own, errors, called.__getitem__)
    yield _robustness([each for each in own if each.kind is FAMILY_KIND], against)
    yield _line(f"Hidden states (effective rank) {against}", own, layers, verbs=_SPREAD)
    at_t = {f"{label} at T": where for label, where in likelihoods.items()}
    yield _line(f"Likelihood at the temperature {against}", own, at_t)


def _logged(own: Sequence[Finding], base: str) -> list[str]:
    """A line a quantity that the module logs, the clearest difference first."""
    clearest = dict.fromkeys((each.name for each in own), 0.0)
    for each in own:
        clearest[each.name] = max(clearest[each.name], _clarity(each))
    names = sorted(clearest, key=clearest.__getitem__, reverse=True)
    return [_line(f"{name} against {base}", own, {name: ""}) for name in names]


def _robustness(own: Sequence[Finding], against: str) -> str:
    """In how many families of conditions accuracy is better or worse, and where most clearly."""
    families = list(dict.fromkeys(each.name for each in own))
    if len(families) == 1:
        head = f"Robustness (accuracy under {families[0]}) {against}"
        return _line(head, own, {own[0].label: ""})
    several = [each for each in own if each.difference.pairs > 1]
    predicates = {arm: _counted(each) for arm, each in _by_arm(several)}
    head = f"Robustness (accuracy in {len(families)} families of conditions) {against}"
    return _sentence(head, predicates)


def _counted(own: Sequence[Finding]) -> str:
    counts, best = Counter(each.verdict for each in own), max(own, key=_clarity)
    parts = []
    for verdict in filter(counts.__contains__, _VERBS):
        everywhere = "any" if verdict == _NEITHER else "all"
        part = f"{_VERBS[verdict]} in {everywhere if len(counts) == 1 else counts[verdict]}"
        is_clearest = best.difference.is_clear and best.verdict == verdict
        parts.append(part + f", most clearly under {best.name}, {best.figures}" * is_clearest)
    return ", and ".join(parts)


def _line(
    head: str,
    own: Sequence[Finding],
    scores: Mapping[str, str],
    called: Callable[[str], str] = str,
    verbs: Mapping[str, str] = _VERBS,
) -> str:
    """A line of some scores, which are given as label → what stands behind the verb."""
    predicates = {}
    for arm, each in _by_arm([one for one in own if one.label in scores]):
        said = [(verbs[one.verdict], scores[one.label] + _number(one)) for one in each]
        parts = [
            verb + (" and" if verb == verbs[_NEITHER] else ", and").join(rest for _, rest in same)
            for verb, same in groupby(said, itemgetter(0))
        ]
        predicates[called(arm)] = ", and ".join(parts)
    return _sentence(head, predicates)


def _number(each: Finding) -> str:
    if not isfinite(each.difference.mean):
        return ", since a run gave NaN or infinity"
    return "" if each.verdict == _NEITHER else f", {each.figures}"


def _sentence(head: str, predicates: Mapping[str, str]) -> str:
    """What is said of each way to train, of several at once if it is the same; empty of none."""
    clauses = []
    for said in dict.fromkeys(predicates.values()):
        arms = [arm for arm, each in predicates.items() if each == said]
        verb = said if len(arms) == 1 else said.replace("shows", "show", 1)
        clauses.append(f"{' and '.join(arms)} {verb}")
    # that all intervals are of 95 % stands beside the tables
    sentence = f"{head}: {'; '.join(clauses)}.".replace("(95 % interval", "(interval", 1)
    return sentence.replace("(95 % interval ", "(") if clauses else ""


def _by_arm(own: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    arms = dict.fromkeys(each.arm for each in own)
    return [(arm, [each for each in own if each.arm == arm]) for arm in arms]


def _clarity(each: Finding) -> float:
    """How many half widths of its interval a difference is away from zero."""
    found = each.difference
    return abs(found.mean) / found.half_width if isfinite(found.mean) and found.half_width else 0.0


def _trust(runs: Sequence[Run]) -> str:
    """In brackets, by how much confidence differs from accuracy."""
    gaps = [run["clean"]["gap"] for run in runs if "gap" in run.get("clean", {})]
    gap = 100 * fmean(gaps) if gaps else nan
    word = "over" if gap > 0 else "under"
    return f" ({word}-confident by {abs(gap):.1f} points)" if isfinite(gap) else ""
