import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import Metric

from lightning_mmix.core.plan import MixPlan
from lightning_mmix.pairing.lending import borrow
from lightning_mmix.pairing.step import Step
from lightning_mmix.watch.notes import Notes
from lightning_mmix.watch.watched import Watched, let_go, plain, watch

PLAN = MixPlan("0", torch.tensor(0.75), torch.tensor([2, 0, 1]))


@pytest.fixture
def notes():
    notes = Notes(3)
    Step(PLAN, notes=notes)
    yield notes
    let_go(notes)


def watched(notes, values=(3.0, 1.0, 2.0), entry="2"):
    tensor = torch.tensor(values)
    watch(notes, {entry: tensor})
    return tensor


def entries(tensor):
    return sorted(tensor.entries) if isinstance(tensor, Watched) else []


def test_what_is_computed_from_an_entry_knows_it(notes):
    one, other = watched(notes), watched(notes, entry="a.b")
    assert entries((one * 2).flatten()) == ["2"]
    assert entries(one / other.sum()) == ["2", "a.b"]
    assert [entries(row) for row in torch.stack([one, other])] == [["2", "a.b"]] * 2
    assert entries(torch.zeros(3)) == []


def test_its_values_are_those_of_an_ordinary_tensor(notes):
    one = watched(notes)
    assert one.tolist() == [3.0, 1.0, 2.0]
    assert (one.sum().item(), one.shape, len(one), f"{one[0]:.1f}") == (6.0, (3,), 3, "3.0")
    one /= 2
    assert one.tolist() == [1.5, 0.5, 1.0]
    assert type(copy.deepcopy(one)) is type(pickle.loads(pickle.dumps(one))) is torch.Tensor


def test_gradients_flow_through_it(notes):
    weight = torch.ones(3, requires_grad=True)
    (weight * watched(notes)).sum().backward()
    assert weight.grad.tolist() == [3.0, 1.0, 2.0]


def test_what_a_network_makes_of_it_is_not_watched(notes):
    network = nn.Linear(3, 2)
    assert entries(network(watched(notes))) == []
    assert entries(nn.Tanh()(watched(notes))) == ["2"]  # it has no parameters


def test_an_entry_that_is_the_same_in_all_rows_is_not_watched(notes):
    assert type(watched(notes, (1.0, 1.0, 1.0))) is torch.Tensor


def test_all_is_ordinary_again_after_the_step(notes):
    one = watched(notes)
    made = one * 2
    let_go(notes)
    assert type(one) is type(made) is torch.Tensor
    assert vars(one) == vars(made) == {}
    assert type(one * made) is torch.Tensor


def test_what_the_rows_went_with_before_the_layer_ran_is_watched_too(notes):
    flips, apart = torch.tensor([True, False, True]), torch.tensor([1.0, 2.0, 3.0])
    rows = torch.arange(6.0).view(3, 2)
    watch(notes, {"0": rows})
    torch.where(flips[:, None], rows.flip(1), rows)
    assert entries(flips) == ["0"]
    notes.step.fired = True
    rows[:, 0] * apart
    assert entries(apart) == []


@pytest.mark.parametrize(
    ("move", "name"),
    [
        (lambda rows: rows[torch.tensor([1, 0, 2])], "getitem"),
        (lambda rows: rows.flip(0), "flip"),
        (lambda rows: rows.roll(1, 0), "roll"),
        (lambda rows: rows.index_select(0, torch.tensor([1, 2, 0])), "index_select"),
    ],
)
def test_rows_that_move_are_noted(notes, move, name):
    rows = torch.tensor([[1.0, 5.0], [2.0, 6.0], [0.0, 7.0]])
    watch(notes, {"x": rows})
    move(rows)
    (note,) = notes.moves
    assert (note.entry, note.operation) == ("x", name)
    assert str(note.place).startswith("test_watched.py:")


def test_rows_that_stay_are_not_noted(notes):
    rows = torch.tensor([[1.0, 5.0], [2.0, 6.0], [0.0, 7.0]])
    watch(notes, {"x": rows})
    for same in (rows.flip(1), rows[torch.arange(3)], rows[:, [1, 0]], rows[:2], rows[None]):
        assert entries(same) == ["x"]
    notes.step.fired = True
    rows.flip(0)
    assert notes.moves == set()


def paired_and_watched():
    target, weight, notes = torch.tensor([0, 1, 2]), torch.tensor([3.0, 1.0, 2.0]), Notes(3)
    step = Step(PLAN, notes=notes)
    watch(notes, {"weight": weight})
    borrow(step, [target])
    step.fired = True
    return step, target, weight


def test_a_loss_knows_the_entries_that_it_took_along_with_the_target():
    step, target, weight = paired_and_watched()
    z = torch.randn(3, 4, requires_grad=True)
    loss = (F.cross_entropy(z, target, reduction="none") * weight).mean()
    assert step.notes.meetings == set()
    (loss * 0.5).backward()
    (note,) = step.notes.meetings
    assert (note.entry, note.operation) == ("weight", "mul")
    step.close()
    assert type(weight) is type(loss) is torch.Tensor


def test_what_is_not_in_the_loss_is_not_noted():
    step, target, weight = paired_and_watched()
    z = torch.randn(3, 4, requires_grad=True)
    ((z.argmax(1) == target) * weight).mean().item()
    F.cross_entropy(z, target).backward()
    assert step.notes.meetings == set()
    step.close()


def test_what_a_metric_takes_is_not_noted():
    class Most(Metric):
        def __init__(self):
            super().__init__()
            self.add_state("most", torch.tensor(0))

        def update(self, labels):
            self.most = torch.tensor(int(labels[0]))

        def compute(self):
            return self.most

    step, target, _ = paired_and_watched()
    Most().update(target)
    assert step.notes.reads == set()
    int(target[0])
    assert [note.operation for note in step.notes.reads] == ["int"]
    step.close()


def test_a_paired_value_may_be_written_into_an_entry():
    step, target, weight = paired_and_watched()
    weight[target] = 0.0
    assert weight.tolist() == [0.0, 0.0, 0.0]
    step.close()


def test_a_tree_is_freed_of_what_is_watched(notes):
    one = watched(notes)
    tree = plain(({"a": one}, [one, 1], "text"))
    assert type(tree[0]["a"]) is type(tree[1][0]) is torch.Tensor
    assert tree[1][1:] == [1]
    assert tree[2] == "text"
