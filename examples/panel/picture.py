"""The picture of the panel: what mixing changes on each data set, with intervals."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_mmix.compare import Difference, paired_difference
from lightning_mmix.plots import COLOURS, looked, panels
from panel.arms import ARMS
from panel.results import ACCURACY, BASE, BRIER, ECE, NLL, OURS, Results, Score, difference, values
from panel.tasks import Task

_COLOURS = {1: COLOURS[2], 0: "0.6", -1: COLOURS[6]}
_TITLES = {
    ACCURACY: "accuracy, points\n(squares: RMSE less, %)",
    NLL: "NLL\nnats",
    BRIER: "Brier score\n",
    ECE: "ECE\npoints",
}


@looked
def picture(results: Results, tasks: Sequence[Task]) -> Figure:
    """Recommended minus no mixing: a row a data set, a panel a score, 95 % intervals over seeds.

    Blue is clearly better, orange clearly worse. Of a regression the first panel shows by how much
    the RMSE is lower, in percent. Those above the line chose the setting.

    Args:
        results: Of both ways to train.
        tasks: The rows, from the top.
    """
    figure, axes = panels(len(_TITLES), 0.5 + 0.19 * len(tasks), sharey=True)
    for ax, (score, title) in zip(axes, _TITLES.items(), strict=True):
        ax.axvline(0, color="0.3", linewidth=0.8)
        ax.axhline(sum(task.chooses for task in tasks) - 0.5, color="0.6", linewidth=0.8)
        for row, task in enumerate(tasks):
            if not task.is_regression:
                _draw(ax, difference(results, task, score), score, row, "o")
            elif score is ACCURACY:
                _draw(ax, _rmse_less(results, task), score, row, "s")
        ax.set_title(title)
        ax.set_xlabel("better →" if score.higher_is_better else "← better")
    axes[0].set_yticks(range(len(tasks)), [task.name for task in tasks])
    axes[0].set_ylim(len(tasks) - 0.5, -0.5)
    return figure


def _draw(ax: Axes, found: Difference, score: Score, row: int, marker: str) -> None:
    ax.errorbar(
        found.mean,
        row,
        xerr=found.half_width,
        fmt=marker,
        color=_COLOURS[score.verdict(found)],
        markersize=3.5,
    )


def _rmse_less(results: Results, task: Task) -> Difference:
    base, ours = (values(results, task, ARMS[arm], "rmse") for arm in (BASE, OURS))
    less = [100 * (1 - own / before) for own, before in zip(ours, base, strict=True)]
    return paired_difference(less, [0.0] * len(less))
