"""How the recommended setting was chosen: by ranks on held-out validation data."""

from collections.abc import Sequence
from statistics import mean

from benchmarks.tables import table
from scipy.stats import rankdata

from panel.arms import CANDIDATES
from panel.results import ACCURACY, BRIER, ECE, GAP, NLL, NOISE, Results, Score, values
from panel.tasks import Task

RANKED = (ACCURACY, NLL, BRIER, ECE)


def mean_ranks(results: Results, tasks: Sequence[Task]) -> dict[str, float]:
    """The mean rank of each candidate, over data sets and four scores, the best one first.

    Args:
        results: Of all candidates, on held-out validation data.
        tasks: The data sets.
    """
    ranks = [
        rankdata([_mean(results, score, name, [task]) for name in CANDIDATES])
        for task in tasks
        for score in RANKED
    ]
    means = dict(zip(CANDIDATES, map(mean, zip(*ranks, strict=True)), strict=True))
    return dict(sorted(means.items(), key=lambda pair: pair[1]))


def choice_table(results: Results, tasks: Sequence[Task]) -> str:
    """The candidates, the best one first, and their scores, mean over data sets and seeds."""
    scores = (*RANKED, GAP, NOISE)
    lines = []
    for candidate, rank in mean_ranks(results, tasks).items():
        means = [_mean(results, score, candidate, tasks) for score in scores]
        means[0] *= -1
        cells = [f"{s.factor * m:.{s.digits}f}" for s, m in zip(scores, means, strict=True)]
        lines.append([candidate, f"{rank:.1f}", *cells])
    return table(["", "mean rank", *(score.title for score in scores)], lines)


def _mean(results: Results, score: Score, candidate: str, tasks: Sequence[Task]) -> float:
    """A score, the lower the better, mean over data sets and seeds."""
    found = [
        mean(values(results, task, CANDIDATES[candidate], score.key, held_out=True))
        for task in tasks
    ]
    return mean(found) * (-1 if score is ACCURACY else 1)
