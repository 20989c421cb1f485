"""The table: rows that say when, what and what then, and what they need to be run."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from fitting import Steps, batches, fit
from torch import nn

from lightning_mmix import ManifoldMixup, MixPlan, mixing


@dataclass(frozen=True)
class Row:
    """A refusal or a warning.

    Attributes:
        when: It comes.
        says: All of it; ``{line}`` stands for a line of a file, and ``{number}`` for a number.
        then: What the reader does next.
        run: Provokes it.
        kind: What is raised, or warned of.
    """

    when: str
    says: str
    then: str
    run: Callable[[], object]
    kind: type


TABLE: list[Row] = []


def row(says, then, kind=ValueError):
    """Put a function into the table, by whose name one knows when."""

    def add(run):
        TABLE.append(Row(run.__name__.strip("_").replace("_", " "), says, then, run, kind))
        return run

    return add


X, Y = batches(size=6)[0]
ONCE = "; this is said once"
ORDER = torch.arange(6).roll(1)


def train(step, batch=(X, Y), layer="net.0", **kwargs):
    """Train one step with the hidden state of a layer mixed, and not verified."""
    mixup = ManifoldMixup(layers=[layer], verify=False, **kwargs)
    fit(Steps(step), mixup, data=[copy.deepcopy(batch)])


def paired(run, target=Y):
    """Run something on a target of a step."""
    model, plan = nn.Linear(4, 5), MixPlan("input", torch.tensor(0.75), ORDER)
    with mixing(model, plan, target.clone(), input=X.clone()) as lent:
        run(model(X), lent)


def puts_out(make):
    """Mix what a layer makes of a batch of six samples."""
    layer = nn.ModuleDict({"inner": nn.Identity()})
    layer.forward = make
    with mixing(nn.ModuleDict({"a": layer}), MixPlan("a", torch.tensor(0.75), ORDER), Y) as target:
        layer(X, target)
