import pytest
import torch

from lightning_mmix.core.plan import MixPlan
from lightning_mmix.pairing.lending import borrow
from lightning_mmix.pairing.step import Step

PARTNER = torch.tensor([2, 3, 1, 0])  # which commutes with nothing below
ROWS = torch.tensor(  # as many columns as rows
    [[1.0, 5.0, 2.0, 0.5], [2.0, 6.0, 0.0, 1.5], [0.0, 7.0, 4.0, 2.5], [3.0, 1.0, 9.0, 8.0]]
)
FLIPS = torch.tensor([True, False, False, True])
ORDER = torch.tensor([1, 3, 0, 2])


@pytest.fixture
def early():
    """A step whose layer has not run."""
    step = Step(MixPlan("0", torch.tensor(0.75), PARTNER))
    yield step
    step.close()


def second(step, change, rows=ROWS):
    target = rows.clone()
    borrow(step, [target])
    return change(target).pair.second


def write(change):
    def changed(target):
        change(target)
        return target

    return changed


def set_some(target):
    target[FLIPS] = -1.0


def set_one_by_one(target):
    for i in range(4):
        target[i] = target[i] * i


OF_THE_SAMPLES_OWN = {
    "flip": lambda t: t.flip(0),
    "roll": lambda t: t.roll(1, 0),
    "index": lambda t: t[ORDER],
    "index_select": lambda t: t.index_select(0, ORDER),
    "where": lambda t: torch.where(FLIPS[:, None], t.flip(1), t),
    "scale": lambda t: t * torch.arange(1.0, 5.0)[:, None],
    "stack": lambda t: torch.stack([t[i] * i for i in range(4)]),
    "cat": lambda t: torch.cat([t[2:], t[:2]]),
    "write": write(set_some),
    "write one by one": write(set_one_by_one),
    "overwrite": write(lambda t: t.copy_(torch.arange(16.0).view(4, 4))),
    "write into a part": write(lambda t: t[:2].add_(1.0)),
    "write into a row": write(lambda t: t[2].mul_(3.0)),
    "write into each row": write(lambda t: [row.mul_(i) for i, row in enumerate(t)]),
    "einsum": lambda t: torch.einsum("bk,b->bk", t, torch.arange(1.0, 5.0)),
    "index_fill": lambda t: t.index_fill(0, torch.tensor([2, 0]), -1.0),
    "index_copy": lambda t: t.index_copy(0, torch.tensor([2, 0]), torch.ones(2, 4)),
    "scatter": write(lambda t: t.mul_(torch.arange(1.0, 5.0)[:, None])),
}


@pytest.mark.parametrize("name", OF_THE_SAMPLES_OWN)
def test_what_was_made_of_the_partner_is_the_partners(early, name):
    change = OF_THE_SAMPLES_OWN[name]
    made = change(ROWS.clone())
    assert not torch.equal(made[PARTNER], change(ROWS[PARTNER]))  # else it would tell nothing
    torch.testing.assert_close(second(early, change), made[PARTNER], atol=0, rtol=0)


@pytest.mark.parametrize("name", OF_THE_SAMPLES_OWN)
def test_after_the_layer_it_is_what_is_made_of_the_partners_in_its_place(early, name):
    early.fired = True
    change = OF_THE_SAMPLES_OWN[name]
    made = change(ROWS[PARTNER].clone())
    torch.testing.assert_close(second(early, change), made, atol=0, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[1] * torch.arange(1.0, 5.0),  # a row, as long as there are rows
        lambda t: t.T * torch.arange(1.0, 5.0)[:, None],
        lambda t: t.mean(0) * torch.arange(1.0, 5.0),
        lambda t: torch.cdist(t, t) * (1 - torch.eye(4)),
        lambda t: (t[:, None, 0] == t[None, :, 0]) & ~torch.eye(4, dtype=torch.bool),
        lambda t: torch.bincount(t[:, 0].long(), minlength=4) * torch.arange(1, 5),
        lambda t: torch.cdist(t, t + 1).fill_diagonal_(0),
        lambda t: t[:, [1, 0, 2, 3]],
        lambda t: t.flip(1),
        lambda t: (t * torch.arange(1.0, 5.0)).flatten(),
    ],
)
def test_what_is_no_matter_of_rows_follows_from_the_partners_target(early, change):
    expected = change(ROWS[PARTNER])
    torch.testing.assert_close(second(early, change), expected)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_rows_are_told_apart_on_their_own_scale(early, scale):
    rows = ROWS * scale
    made = rows.flip(0)[PARTNER]
    assert torch.equal(second(early, lambda t: t.flip(0), rows), made)


@pytest.mark.parametrize(
    "reshape", [lambda t: t.unsqueeze_(0), lambda t: t.unsqueeze_(1), lambda t: t[:, :3].t_()]
)
def test_what_is_reshaped_in_place_stays_the_partners(early, reshape):
    assert torch.equal(second(early, reshape), reshape(ROWS[PARTNER].clone()))


def test_rows_go_on_as_such_after_a_dimension_more(early):
    def change(target):
        return target.unsqueeze_(1).flip(0)

    assert torch.equal(second(early, change), change(ROWS.clone())[PARTNER])


def test_a_write_reaches_an_expanded_view(early):
    target = ROWS.clone()
    borrow(early, [target])
    wide = target[:, None].expand(4, 2, 4)
    target.mul_(torch.arange(1.0, 5.0)[:, None])
    made = (ROWS * torch.arange(1.0, 5.0)[:, None])[PARTNER]
    assert torch.equal(target.pair.second, made)
    assert torch.equal(wide.pair.second, made[:, None].expand(4, 2, 4))


def test_missing_values_are_like_others(early):
    rows = ROWS.clone()
    rows[1, 2] = torch.nan
    made = rows.flip(0)[PARTNER]
    found = second(early, lambda t: t.flip(0), rows)
    torch.testing.assert_close(found, made, equal_nan=True)
