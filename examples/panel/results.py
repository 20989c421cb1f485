"""What the runs of a panel say: differences by seed on each data set, and a test over data sets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import wilcoxon

from lightning_mmix.compare import Difference, paired_difference
from panel.arms import ARMS
from panel.runs import Run, run_of
from panel.tasks import Task
from panel.training import Arguments, Scores

Results = Mapping[Run, Scores]
BASE, OURS = "no mixing", "recommended"


@dataclass(frozen=True)
class Score:
    """A column of the tables.

    Attributes:
        key: Its name in the results.
        title: Its name for a reader.
        factor: What it is multiplied by to be read: 100 for percent.
        digits: Behind the point.
        higher_is_better: Whether more is better.
    """

    key: str
    title: str
    factor: float = 1.0
    digits: int = 3
    higher_is_better: bool = False

    def verdict(self, difference: Difference) -> int:
        """1 if a difference is clearly better, -1 if clearly worse, else 0."""
        said = difference.verdict(higher_is_better=self.higher_is_better)
        return {"better": 1, "worse": -1}.get(said, 0)


ACCURACY = Score("accuracy", "accuracy %", 100, 1, higher_is_better=True)
NLL, BRIER = Score("nll", "NLL"), Score("brier", "Brier")
ECE, GAP = Score("ece", "ECE %", 100, 1), Score("gap", "gap %", 100, 1)
NOISE = Score("noise", "noise %", 100, 1, higher_is_better=True)
FGSM = Score("FGSM", "FGSM %", 100, 1, higher_is_better=True)
DEFORMED = Score("deformed", "deformed %", 100, 1, higher_is_better=True)
NLL_AT_T, BRIER_AT_T = Score("nll at T", "NLL at T"), Score("brier at T", "Brier at T")
ECE_AT_T = Score("ece at T", "ECE at T %", 100, 1)
RMSE = Score("rmse", "RMSE")
SCORES = (ACCURACY, NLL, BRIER, ECE, NOISE, FGSM, DEFORMED)
TEMPERED = (NLL_AT_T, BRIER_AT_T, ECE_AT_T)


@dataclass(frozen=True)
class Verdict:
    """What a score says over the data sets.

    Attributes:
        better: On how many of them an arm is clearly better, by its interval over seeds.
        unclear: On how many no difference is shown.
        worse: On how many it is clearly worse.
        p: Of Wilcoxon's signed-rank test of the means of all data sets, two-sided; 1 where no mean
            differs.
    """

    better: int
    unclear: int
    worse: int
    p: float


def runs_of(
    tasks: Iterable[Task], arms: Mapping[str, Arguments | None], seeds: Sequence[int], **how: bool
) -> list[Run]:
    """All runs of some arms, the seeds one after the other, so that a first look comes early."""
    tasks = list(tasks)
    return [
        run_of(task, arguments, seed, **how)
        for seed in seeds
        for task in tasks
        for arguments in arms.values()
    ]


def values(
    results: Results, task: Task, arguments: Arguments | None, key: str, **how: bool
) -> list[float]:
    """A score in each run, in the order of seeds."""
    seeds = sorted({run.seed for run in results})
    return [results[run_of(task, arguments, seed, **how)][key] for seed in seeds]


def difference(
    results: Results, task: Task, score: Score, arm: str = OURS, base: str = BASE
) -> Difference:
    """What an arm differs by from another one on one data set, seed for seed, to be read."""
    both = (values(results, task, ARMS[name], score.key) for name in (arm, base))
    ours, theirs = ([score.factor * value for value in each] for each in both)
    return paired_difference(ours, theirs)


def verdict(differences: Sequence[Difference], score: Score) -> Verdict:
    """What the differences on several data sets say together.

    Example:
        >>> found = [Difference(mean, 0.5, 5) for mean in (1.0, 2.0, 0.4, 3.0, 1.5, -0.7)]
        >>> verdict(found, ACCURACY)
        Verdict(better=4, unclear=1, worse=1, p=0.09375)
    """
    clear = [score.verdict(each) for each in differences]
    means = [each.mean for each in differences]
    p = float(wilcoxon(means).pvalue) if any(means) else 1.0
    return Verdict(clear.count(1), clear.count(0), clear.count(-1), p)


def classifications(tasks: Iterable[Task]) -> list[Task]:
    """Those whose networks are classifiers."""
    return [task for task in tasks if not task.is_regression]
