import functools
import inspect

import torch
from torch import nn
from torchmetrics import Metric

from lightning_mmix.pairing.lending import borrow
from lightning_mmix.watch.notes import Notes
from lightning_mmix.watch.places import Place, is_in_metric, is_in_network


class Sees(torch.Tensor):
    """Notes from where a function of torch's is called."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen = is_in_metric(), is_in_network()
        return super().__torch_function__(func, types, args, kwargs or {})


def seen(run):
    run(torch.ones(2).as_subclass(Sees))
    return Sees.seen


def line():
    return inspect.currentframe().f_back.f_lineno


def test_a_place_is_the_line_that_calls_torch(step):
    step.notes = Notes(3)
    target = torch.tensor([0, 1, 2])
    borrow(step, [target])
    lines = [line() + 1]
    target[0].item()
    lines.append(line() + 1)
    torch.equal(target, torch.zeros(3, dtype=torch.int64).fill_(2))
    lines.append(line() + 1)
    target.numpy(), nn.functional.one_hot(target, 3).tolist()
    places = {note.place for note in step.notes.reads}
    assert places == {Place(__file__, each) for each in (lines[0], lines[2])}
    assert {str(each) for each in places} == {f"test_places.py:{n}" for n in (lines[0], lines[2])}


def training_step(run, tensor):
    return run(tensor)


def test_a_forward_pass_of_a_network_within_a_training_step_is_told():
    class Runs(nn.Module):
        def __init__(self, inner, *, trains):
            super().__init__()
            self.inner = inner
            self.weight = nn.Parameter(torch.ones(())) if trains else None

        def forward(self, tensor):
            return self.inner(tensor)

    loss, network = (Runs(torch.sum, trains=trains) for trains in (False, True))
    assert seen(network)[1]
    assert not seen(loss)[1]
    # as DDP does it, from within a forward pass
    around = Runs(functools.partial(training_step, loss), trains=True)
    assert not seen(around)[1]
    assert seen(Runs(functools.partial(training_step, network), trains=True))[1]


def test_a_metric_that_is_updated_is_told():
    class Total(Metric):
        def __init__(self):
            super().__init__()
            self.add_state("total", torch.zeros(()))

        def update(self, values):
            values.sum()

        def compute(self):
            return self.total

    assert seen(Total().update)[0]
    assert not seen(torch.sum)[0]
