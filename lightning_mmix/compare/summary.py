"""The summary of a comparison: what was found, in at most five lines of plain words."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, floor, isfinite

from lightning_mmix.compare.differences import number, reach
from lightning_mmix.compare.findings import (
    FAMILY_KIND,
    HIDDEN_KIND,
    LOGGED_KIND,
    NEITHER,
    ONE_SEED,
    VERDICTS,
    Finding,
    compared,
)
from lightning_mmix.compare.runs.scores import GAP, RANK
from lightning_mmix.compare.runs.task import Results

_MOST = 5
_MOST_NAMED = 4  # families of conditions, or layers; of more only the greatest difference
_FEW, _ENOUGH = 3, 5  # seeds
_INCOMPARABLE = "not comparable, since a run gave NaN or infinity"
_VERBS = {"better": "is better", "worse": "is worse", ONE_SEED: "differs"}
_MORE = {"larger": "has more", "smaller": "has fewer", ONE_SEED: "differs"}


def summary(results: Results) -> list[str]:
    """What was found, a line a kind of score: every way to train against the first one.

    Of a classifier that is accuracy, likelihood, calibration, robustness and hidden states, or what
    else there is where one of these is missing; of another module what it logs, the clearest
    differences first.

    Args:
        results: Of two or more ways to train.

    Returns:
        At most five sentences in plain text, the differences with 95 % confidence intervals, which
        no-break spaces hold together.
    """
    base = next(iter(results))
    own = [each for each in compared(results) if each.base == base]
    measured = [each for each in own if each.kind is not LOGGED_KIND]
    logged = [each for each in own if each.kind is LOGGED_KIND]
    lines = filter(None, [*_measured(measured), *_logged(logged)])
    once = "; one seed says nothing about others." if len(results[base]) == 1 else "."
    return [line + once for line in lines][:_MOST]


def caveats(results: Results) -> list[str]:
    """What to know before a summary is believed: that seeds are few, and comparisons many."""
    seeds, said = len(next(iter(results.values()))), []
    if 1 < seeds <= _FEW:
        said.append(
            f"Only {seeds} seeds: a first look. An interval reaches {reach(seeds):.2g} standard "
            "deviations of the differences to each side; with --seeds "
            f"{_ENOUGH} it would be {reach(_ENOUGH):.2g}."
        )
    found = [each for each in compared(results) if each.verdict not in (ONE_SEED, "not comparable")]
    chance = len(found) / 20  # of 95 % intervals
    if chance >= 1:
        count = " or ".join(map(str, sorted({floor(chance), ceil(chance)})))
        said.append(
            f"Of the {len(found)} comparisons, {count} would look clear by chance even if nothing "
            "differed."
        )
    return said


def sentences(found: Sequence[Finding]) -> list[str]:
    """A sentence for each difference that is clear, and one for all that are not."""
    said, others = [], []
    for each in found:
        label = each.label.replace(" %", "")
        if each.verdict in (NEITHER, ONE_SEED):
            others.append(f"{label} {each.figures}")
        elif isfinite(each.difference.mean):
            said.append(f"{label} is {each.verdict}, {each.figures}.")
        else:
            said.append(f"{label} is {_INCOMPARABLE}.")
    one = "One seed says nothing about others"
    head = one if found[0].difference.pairs == 1 else NEITHER.capitalize()
    return [*said, *([f"{head}: {'; '.join(others)}."] if others else [])]


def _measured(own: Sequence[Finding]) -> Iterator[str]:
    """A line a kind of score, empty where that was not measured."""
    likelihoods = {"NLL": "", "NLL at T": "at a fitted temperature", "Brier": "in Brier score"}
    errors = {
        GAP: "",
        "ECE %": "in ECE",
        "smECE %": "in smECE",
        "ECE % at T": "in ECE at the temperature",
    }
    families = [each for each in own if each.kind is FAMILY_KIND]
    ranks = [each for each in own if each.kind is HIDDEN_KIND and each.name.endswith(RANK)]
    spread = "Hidden states (directions that a class spreads over on average; neither good nor bad)"
    yield _line("Accuracy", own, {"accuracy %": ""})
    yield _line("Likelihood (NLL)", own, likelihoods)
    yield _line("Calibration", own, errors)
    yield _places("Robustness (accuracy on disturbed inputs)", families, "under", _VERBS)
    yield _places(spread, ranks, "at", _MORE)


def _logged(own: Sequence[Finding]) -> list[str]:
    """A line a quantity that the module logs, the clearest difference first."""
    clearest = dict.fromkeys((each.name for each in own), 0.0)
    for each in own:
        clearest[each.name] = max(clearest[each.name], _clarity(each))
    names = sorted(clearest, key=clearest.__getitem__, reverse=True)
    return [_line(name, own, {name: ""}) for name in names]


def _line(head: str, own: Sequence[Finding], where: Mapping[str, str]) -> str:
    """A line of the first of some scores, and of what others say that it does not.

    Args:
        head: Stands before it.
        own: Findings, those of other scores among them.
        where: Label of a score → what stands behind a verdict on it.
    """
    lead, *others = where
    predicates, start = {}, head
    for each in (each for each in own if each.label == lead):
        by_label = {one.label: one for one in own if one.arm == each.arm}
        rest = [by_label[label] for label in others if label in by_label]
        predicates[each.arm + _value(each, 1)] = f": {_verdict(each)}{_rest(each, rest, where)}"
        start = f"{head}: {each.base}{_value(each, 0)}; "
    return _sentence(start, predicates)


def _rest(lead: Finding, others: Sequence[Finding], where: Mapping[str, str]) -> str:
    """What others say, those whose verdict was not said before."""
    verdicts, said = {lead.verdict}, []
    for each in others:
        if each.verdict not in verdicts:
            said.append(f"{each.verdict} {where[each.label]}, {each.figures}")
            verdicts.add(each.verdict)
    # better or worse is no contrast to a change of confidence
    is_contrast = lead.name != GAP or NEITHER in (lead.verdict, others[0].verdict)
    link = ", but " if is_contrast else ", and "
    return link * bool(said) + ", and ".join(said)


def _verdict(each: Finding) -> str:
    if not isfinite(each.difference.mean):
        return _INCOMPARABLE
    if each.name == GAP and each.difference.is_clear:
        return f"a change of {each.figures}"
    short = {NEITHER: NEITHER, ONE_SEED: each.figures}
    return short.get(each.verdict, f"{each.verdict}, {each.figures}")


def _value(each: Finding, which: int) -> str:
    """The mean score of the base, 0, or of the way to train, 1."""
    mean = each.means[which]
    if not isfinite(mean):
        return ""
    if each.name != GAP:
        return " " + number(mean, each.places) + "\xa0%" * ("%" in each.label)
    word = "over" if mean > 0 else "under"
    return f" {word}-confident by {number(abs(mean), each.places)}\xa0points"


def _places(head: str, own: Sequence[Finding], at: str, verbs: Mapping[str, str]) -> str:
    """A line of the same score in several places."""
    arms = dict.fromkeys(each.arm for each in own)
    by_arm = {arm: [each for each in own if each.arm == arm] for arm in arms}
    return _sentence(f"{head}: ", {arm: _where(each, at, verbs) for arm, each in by_arm.items()})


def _where(own: Sequence[Finding], at: str, verbs: Mapping[str, str]) -> str:
    """What is said of a way to train: in which places there are differences."""
    verdicts = [verdict for verdict in VERDICTS if any(each.verdict == verdict for each in own)]
    if verdicts == [NEITHER]:
        return f": {NEITHER}"
    parts = []
    for verdict in verdicts:
        same = [each for each in own if each.verdict == verdict]
        if len(own) > _MOST_NAMED:
            most = max(same, key=lambda each: abs(each.difference.mean))
            where = f"{len(same)} of {len(own)}" + f", most {at} {_moved(most)}" * (
                verdict in verbs
            )
        elif verdict in verbs:
            where = f", and {at} ".join(map(_moved, same))
        else:
            where = _together([_place(each) for each in same])
        parts.append(f"{verbs.get(verdict, verdict)} {at} {where}")
    return " " + ", and ".join(parts)


def _place(each: Finding) -> str:
    return each.name.removesuffix(f": {RANK}")


def _moved(each: Finding) -> str:
    """From where to where a score went, and by how much."""
    before, after = (number(mean, each.places) for mean in each.means)
    unit = "\xa0%" * ("%" in each.label)
    return f"{_place(each)}, {before}\xa0→\xa0{after}{unit}, {each.figures}"


def _sentence(start: str, predicates: Mapping[str, str]) -> str:
    """What is said of each way to train, of several at once if it is the same; empty of none."""
    clauses = []
    for said in dict.fromkeys(predicates.values()):
        arms = [arm for arm, each in predicates.items() if each == said]
        of_all = {1: "", 2: " for either"}.get(len(arms), " for any")
        clauses.append(_together(arms) + said + of_all * said.endswith(f": {NEITHER}"))
    return start + "; ".join(clauses) if clauses else ""


def _together(names: Sequence[str]) -> str:
    """Names in a sentence.

    Example:
        >>> _together(["FGSM", "PGD", "noise"])
        'FGSM, PGD and noise'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _clarity(each: Finding) -> float:
    """How many half widths of its interval a difference is away from zero."""
    found = each.difference
    return abs(found.mean) / found.half_width if isfinite(found.mean) and found.half_width else 0.0
