"""The tables of the panel, in Markdown."""

from collections.abc import Iterable, Sequence
from statistics import mean

from benchmarks.tables import table

from panel.arms import ARMS
from panel.results import (
    BASE,
    GAP,
    OURS,
    RMSE,
    SCORES,
    TEMPERED,
    Results,
    Score,
    classifications,
    difference,
    values,
    verdict,
)
from panel.tasks import Task


def rendered(results: Results, tasks: Sequence[Task]) -> str:
    """All tables of some results, one after the other.

    Args:
        results: Of all arms on these data sets.
        tasks: Those that the setting was chosen on stand for themselves, and are not summed up.
    """
    confirming = [task for task in tasks if not task.chooses]
    count = len(classifications(confirming))
    parts = [
        "Recommended minus no mixing, ± half of the 95 % interval over seeds: **better**, *worse*.",
        difference_table(results, tasks),
        f"On the {count} data sets with classes that nothing was chosen on: on how many of them an "
        "arm is clearly better / not clearly different / clearly worse, and p of Wilcoxon's test.",
        summary_table(results, confirming),
        "Recommended against the other arms, in the same way.",
        against_table(results, confirming),
        "At a temperature that is fitted on the validation data of each run.",
        summary_table(results, confirming, TEMPERED),
        "Means over seeds and these data sets.",
        level_table(results, confirming),
    ]
    return "\n\n".join(parts)


def difference_table(results: Results, tasks: Iterable[Task]) -> str:
    """The recommended setting against no mixing: a row a data set, a column a score.

    What is beyond its 95 % interval over seeds is bold where better, and in italics where worse.
    """
    lines = []
    for task in tasks:
        shown = (RMSE,) if task.is_regression else SCORES
        level = _mean(results, task, shown[0])
        cells = [_cell(results, task, score) for score in shown]
        lines.append([task.name, level, *cells, *[""] * (len(SCORES) - len(shown))])
    titles = [f"Δ {score.title}" for score in SCORES]
    return table(["", f"{BASE}: accuracy % or RMSE", *titles], lines)


def summary_table(results: Results, tasks: Iterable[Task], scores: Sequence[Score] = SCORES) -> str:
    """Each arm against no mixing over the data sets with classes, a row an arm."""
    tasks = classifications(tasks)
    lines = [
        [arm, *(_verdict(results, tasks, score, arm, BASE) for score in scores)]
        for arm in ARMS
        if arm != BASE
    ]
    return table([f"against {BASE}", *(score.title for score in scores)], lines)


def against_table(results: Results, tasks: Iterable[Task]) -> str:
    """The recommended setting against each other arm over the data sets with classes."""
    tasks = classifications(tasks)
    lines = [
        [f"against {arm}", *(_verdict(results, tasks, score, OURS, arm) for score in SCORES)]
        for arm in ARMS
        if arm not in {BASE, OURS}
    ]
    return table([OURS, *(score.title for score in SCORES)], lines)


def level_table(results: Results, tasks: Iterable[Task]) -> str:
    """Each arm's scores, mean over seeds and data sets."""
    tasks = classifications(tasks)
    scores = (*SCORES, GAP, *TEMPERED)
    lines = []
    for arm in ARMS:
        means = [
            mean(mean(values(results, task, ARMS[arm], score.key)) for task in tasks)
            for score in scores
        ]
        cells = [f"{s.factor * m:.{s.digits}f}" for s, m in zip(scores, means, strict=True)]
        lines.append([arm, *cells])
    return table(["", *(score.title for score in scores)], lines)


def _mean(results: Results, task: Task, score: Score) -> str:
    level = score.factor * mean(values(results, task, ARMS[BASE], score.key))
    return f"{level:.1f}"


def _cell(results: Results, task: Task, score: Score) -> str:
    found = difference(results, task, score)
    cell = f"{found.mean:+.{score.digits}f} ± {found.half_width:.{score.digits}f}"
    mark = {1: "**", -1: "*", 0: ""}[score.verdict(found)]
    return f"{mark}{cell}{mark}"


def _verdict(results: Results, tasks: Sequence[Task], score: Score, arm: str, base: str) -> str:
    found = verdict([difference(results, task, score, arm, base) for task in tasks], score)
    return f"{found.better} / {found.unclear} / {found.worse}, p {_p(found.p)}"


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
