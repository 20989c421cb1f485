import pytest
import torch
from torch import nn

from lightning_mmix.core.plan import Recipe, draw
from lightning_mmix.engine import ahead
from lightning_mmix.engine.ahead import StepsAhead

CPU = torch.device("cpu")
RECIPE = Recipe(1.0, {"a": 1.0, "b": 2.0}, 0.7)
OWN = Recipe(1.0, {"a": 1.0}, labels="own")


def same(step, plan):
    if step is None or plan is None:
        return step is plan
    ours = step.plan
    are_equal = torch.equal(ours.lam, plan.lam) and torch.equal(ours.partner, plan.partner)
    return ours.layer == plan.layer and are_equal


PLACES = [
    *((RECIPE, 6, (3, 0, 0), index) for index in range(40)),
    *((RECIPE, 6, (3, 1, 0), index) for index in range(9)),  # an epoch
    (RECIPE, 5, (3, 1, 0), 9),  # a smaller batch
    *((RECIPE, 6, (3, 2, 0), index) for index in (7, 8, 9, 30, 31, 8)),  # back and forth
    *((OWN, 6, (3, 2, 1), index) for index in range(9, 14)),
    *((OWN, 6, (4, 2, 1), index) for index in range(14, 16)),
]


def test_a_step_made_ahead_is_that_which_would_be_made_alone():
    steps = StepsAhead(nn.Identity())
    for recipe, size, (seed, epoch, rank), index in PLACES:
        step = steps.at(recipe, size, CPU, (seed, epoch, rank), index)
        plan = draw(recipe, size, seed=seed, epoch=epoch, batch_idx=index, rank=rank)
        assert same(step, plan), index


def test_another_recipe_of_the_same_place_is_drawn_anew():
    steps, of = StepsAhead(nn.Identity()), (0, 0, 0)
    for index in range(8):
        steps.at(OWN, 6, CPU, of, index)
    stronger = Recipe(5.0, {"a": 1.0}, labels="own")
    plan = draw(stronger, 6, seed=0, batch_idx=8)
    assert same(steps.at(stronger, 6, CPU, of, 8), plan)


def test_few_are_made_ahead_at_first_and_never_many(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        ahead, "draw", lambda *args, **kwargs: drawn.append(kwargs) or draw(*args, **kwargs)
    )
    steps, counts = StepsAhead(nn.Identity()), []
    for index in range(300):
        steps.at(OWN, 6, CPU, (0, 0, 0), index)
        counts.append(len(drawn))
    assert counts[:4] == [1, 3, 3, 7]
    assert max(count - index for index, count in enumerate(counts)) == 64
    assert len(drawn) < 300 + 64


def test_each_step_is_made_for_the_model():
    model = nn.Linear(2, 2)
    step = StepsAhead(model).at(OWN, 6, CPU, (0, 0, 0), 0)
    assert step.owns(model.weight)
    assert not step.fired


@pytest.mark.parametrize("recipe", [RECIPE, OWN])
def test_one_sample_is_not_mixed(recipe):
    steps = StepsAhead(nn.Identity())
    assert [steps.at(recipe, 1, CPU, (0, 0, 0), index) for index in range(3)] == [None] * 3
