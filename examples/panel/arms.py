"""The ways to train that the panel compares, as arguments of ManifoldMixup."""

from itertools import product

from panel.tasks import Task
from panel.training import Arguments

RECOMMENDED: Arguments = {"alpha": 1.0, "prob": 1.0, "stop": 0.5}
"""Of the settings that need no validation data, the first one in the table of the choice. It is
what ``ManifoldMixup()`` does."""

SETTLED: Arguments = {"alpha": 1.0, "prob": 1.0, "settle": 0.5}
"""The same, settled."""

ARMS: dict[str, Arguments | None] = {
    "no mixing": None,
    "input mixup": {"alpha": 1.0, "layers": ["input"], "stop": 1.0},
    "input mixup, scheduled": {**RECOMMENDED, "layers": ["input"]},
    "manifold mixup, paper": {"alpha": 2.0, "prob": 1.0, "stop": 1.0},
    "recommended": RECOMMENDED,
    "settled": SETTLED,
}

_ENDS: dict[str, Arguments] = {
    "": {"stop": 1.0},
    ", stop 0.5": {"stop": 0.5},
    ", settle 0.5": {"settle": 0.5},
}

CANDIDATES: dict[str, Arguments | None] = {
    "no mixing": None,
    "input mixup": ARMS["input mixup"],
    **{
        f"alpha {alpha:g}, prob {prob:g}{end}": {"alpha": alpha, "prob": prob, **schedule}
        for (end, schedule), prob, alpha in product(_ENDS.items(), (1.0, 0.5), (2.0, 1.0, 0.5))
    },
}
"""Among which the recommended setting was chosen; those with an alpha alone, a prob alone or an end
alone show what each ingredient does."""


def arguments_for(task: Task, arguments: Arguments | None) -> Arguments | None:
    """The arguments that a task can have: a regression has no confidence to settle, and stops."""
    if arguments is None or not task.is_regression or "settle" not in arguments:
        return arguments
    return {**{k: v for k, v in arguments.items() if k != "settle"}, "stop": arguments["settle"]}
