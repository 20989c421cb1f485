import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_mmix.core.plan import MixPlan
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.proof.agreement import agreement
from lightning_mmix.proof.naive import Trial
from lightning_mmix.proof.tables import agreement_table

PLAN = MixPlan("0", torch.tensor(0.75), torch.tensor([2, 0, 1]))
X, Y = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1, 2])


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
        self.count = 0


def trial(run, batch=(X, Y), plan=PLAN, **kwargs):
    model = Net()
    gates = Gates(model, ["0"], lasting=False)
    batch = tuple(each.clone() for each in batch)
    parameters = list(model.parameters())
    return Trial(lambda batch: run(model, *batch), gates, plan, batch, parameters=parameters)


def watching(_batch, _targets):
    return None


def loss(model, x, y):
    model.count += 1
    return F.cross_entropy(model(x), y)


def test_a_step_runs_each_time_from_the_same_state():
    tried = trial(loss)
    own = tried.naive(partners=False).loss
    for _ in range(2):
        paired = tried.paired()
        assert paired.sides == (own, tried.naive(partners=True).loss)
    assert (tried.gates.model.count, int(tried.gates.model[1].num_batches_tracked)) == (0, 0)
    assert [torch.equal(a, b) for a, b in zip(tried.batch, (X, Y), strict=True)] == [True, True]


def test_the_naive_form_has_the_partners_target_and_the_same_hidden_states():
    torch.manual_seed(3)
    tried = trial(lambda model, x, y: (model[0](x).sum(1) * y).sum())
    hidden = tried.gates.model[0](X)
    hidden = 0.75 * hidden + 0.25 * hidden[PLAN.partner]
    for partners, y in ((False, Y), (True, Y[PLAN.partner])):
        expected = float((hidden.sum(1) * y).sum())
        assert tried.naive(partners=partners).loss == pytest.approx(expected)


def test_in_the_naive_form_nothing_is_paired_once_the_layer_has_run():
    seen = []

    def run(model, x, y):
        z = model(x)
        seen.append((type(y).__name__, y.tolist()))
        return F.cross_entropy(z, y)

    tried = trial(run)
    for each in (
        tried.paired,
        lambda: tried.naive(partners=False),
        lambda: tried.naive(partners=True),
    ):
        each()
    assert seen == [("Paired", [0, 1, 2]), ("Tensor", [0, 1, 2]), ("Tensor", [2, 0, 1])]


def test_loss_and_gradients_of_an_exact_step_agree():
    found = agreement(trial(loss), watching)
    assert found.is_exact
    assert found.loss_digits > 6
    assert found.gradient_digits > 3
    assert found.problem == ""


def test_a_step_that_takes_values_of_its_target_does_not_agree():
    def weighs(model, x, y):
        return loss(model, x, y) * (1 + y[0].item())

    found = agreement(trial(weighs), watching)
    assert not found.is_exact
    assert found.loss_digits < 2
    assert found.partner_deviation == pytest.approx(2 / 3)  # it should have been 1 + 2


def test_gradients_alone_may_not_agree():
    def wrong(model, x, y):
        right = loss(model, x, y)
        return right + 0 * model[3].bias.sum() * y[0].item() + (1 + y[0].item()) * _nothing(model)

    found = agreement(trial(wrong), watching)
    assert found.loss_digits > 6
    assert found.gradient_digits < 2
    assert not found.is_exact


def _nothing(model):
    total = model[0].weight.sum()
    return total - total.detach()


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (lambda model, x, y: None, "TypeError: the training step returned no loss"),
        (
            lambda model, x, y: model(x).sum(),
            "the hidden state of layer '0' was mixed, but the loss",
        ),
        (lambda model, x, y: F.cross_entropy(x.repeat(1, 2).requires_grad_(), y), "did not run"),
        (lambda model, x, y: {}[0], "KeyError at test_agreement.py"),
    ],
)
def test_a_step_that_fails_is_told(run, problem):
    found = agreement(trial(run), watching)
    assert problem in found.problem
    assert not found.is_exact
    assert math.isnan(found.loss)


def test_a_table_shows_the_digits():
    (exact, *_), failed = (
        [agreement(trial(loss), watching)],
        agreement(trial(lambda *_: None), watching),
    )
    table = agreement_table([exact, failed])
    columns = [[*column.cells] for column in table.columns]
    assert [cell.name for cell in columns[0]] == ["0", "0"]
    assert columns[4] == ["yes", "no"]
    assert columns[1][1] == columns[2][1] == ""
