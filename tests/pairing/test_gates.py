import copy
import pickle
import warnings
from collections import namedtuple
from dataclasses import dataclass

import naive
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_mmix import MixPlan, mix, mixing
from lightning_mmix.pairing.gates import Gate, Gates
from lightning_mmix.pairing.step import Step

PLAN = MixPlan("layer", torch.tensor(0.7), torch.tensor([2, 0, 3, 1]))
HIDDEN = torch.arange(8.0).reshape(4, 2)
MIXED = naive.mix(HIDDEN, 0.7, PLAN.partner.tolist())

Named = namedtuple("Named", "hidden length")


@dataclass(frozen=True)
class Data:
    hidden: torch.Tensor
    length: int


class Output(dict):
    """As Hugging Face's ModelOutput: a dict whose entries are attributes, too."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


class Net(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.layer = nn.Module()
        self.layer.forward = lambda: output
        self.layer.__class__ = type("Layer", (nn.Module,), {"forward": lambda self: output})

    def forward(self):
        return self.layer()


@pytest.mark.parametrize(
    ("output", "read"),
    [
        (HIDDEN, lambda out: out),
        ((HIDDEN, "text"), lambda out: out[0]),
        ([None, HIDDEN], lambda out: out[1]),
        (Named(HIDDEN, 3), lambda out: out.hidden),
        ({"hidden": HIDDEN, "length": 3}, lambda out: out["hidden"]),
        (Output(hidden=HIDDEN), lambda out: out.hidden),
        (Data(HIDDEN, 3), lambda out: out.hidden),
        ({"deep": [(HIDDEN,)]}, lambda out: out["deep"][0][0]),
    ],
)
def test_the_hidden_state_is_mixed_wherever_the_output_holds_it(output, read):
    model = Net(output)
    with mixing(model, PLAN):
        mixed = model()
    torch.testing.assert_close(read(mixed), MIXED)
    assert type(mixed) is type(output)
    assert model() is output


def test_what_is_no_hidden_state_passes():
    model = Net((HIDDEN, torch.arange(4), torch.ones(3, 4), None))
    with mixing(model, PLAN):
        mixed = model()
    torch.testing.assert_close(mixed[0], MIXED)
    assert [a is b for a, b in zip(mixed, model(), strict=True)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("output", "came"),
    [
        (torch.ones(3, 4, 2), r"float32 \(3, 4, 2\)"),
        (torch.arange(4), r"int64 \(4,\)"),
        ((torch.ones(()), None), r"tuple\(0: float32 \(\), 1: NoneType\)"),
    ],
)
def test_an_output_without_hidden_state_is_an_error_that_names_it(output, came):
    model = Net(output)
    with pytest.raises(ValueError, match="layer 'layer' puts out " + came), mixing(model, PLAN):
        model()
    assert not model.layer._forward_hooks


def plain():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4))


def test_a_plain_loop_gets_the_naive_loss_and_gradients(float64):
    model, x, y = plain(), torch.randn(4, 3), torch.arange(4)
    plan = MixPlan("1", PLAN.lam, PLAN.partner)
    with mixing(model, plan, y) as paired:
        loss = F.cross_entropy(model(x), paired)
    ours = torch.autograd.grad(loss, list(model.parameters()))
    modules = dict(model.named_modules())
    expected = naive.two_pass(lambda y: F.cross_entropy(model(x), y), plan, modules, y)
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_the_input_holds_the_mixed_data_inside_and_its_own_afterwards():
    model, x = plain(), torch.randn(4, 3)
    plan, before, storage = MixPlan("input", PLAN.lam, PLAN.partner), x.clone(), x.data_ptr()
    with mixing(model, plan, torch.arange(4), input=x) as paired:
        assert torch.equal(x, mix(before, plan.lam, plan.partner))
        assert float(paired[0] * 1.0) == pytest.approx(0.7 * 0 + 0.3 * 2)
    assert torch.equal(x, before)
    assert x.data_ptr() == storage


def test_before_and_after_and_after_an_exception_nothing_is_attached():
    model, y = plain(), torch.arange(4)
    plan = MixPlan("0", PLAN.lam, PLAN.partner)
    with mixing(model, plan, y):
        assert len(model[0]._forward_hooks) == 1
        model(torch.randn(4, 3))
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ZeroDivisionError), mixing(model, plan, y):
        1 / 0  # noqa: B018
    assert not any(module._forward_hooks for module in model.modules())
    assert type(y) is torch.Tensor


def test_without_a_plan_nothing_happens():
    model, y = plain(), torch.arange(4)
    with mixing(model, None, y) as target:
        assert target is y
        assert type(y) is torch.Tensor
        assert not model[0]._forward_hooks


def test_gates_that_last_hang_on_a_layer_only_in_a_step():
    model, (x, y) = plain(), (torch.randn(4, 3), torch.arange(4))
    gates, expected = Gates(model, ["0", "1"]), model(x)
    assert not any(module._forward_hooks for module in model.modules())
    hung = set()
    for _ in range(2):
        with mixing(gates, MixPlan("0", PLAN.lam, PLAN.partner), y):
            assert not torch.equal(model(x), expected)
            assert not model[1]._forward_hooks
            hung |= {*model[0]._forward_hooks}
        assert torch.equal(model(x), expected)
        assert not model[0]._forward_hooks
    assert len(hung) == 1  # under one key, or compiled code would be traced anew
    message = r"the plan mixes layer '2', but gates were made for \['0', '1'\]"
    with pytest.raises(ValueError, match=message):
        gates.arm(Step(MixPlan("2", PLAN.lam, PLAN.partner)))


def test_a_gate_hangs_before_all_other_hooks():
    model, y, seen = plain(), torch.arange(4), []
    model[0].register_forward_hook(lambda _module, _args, output: seen.append(output))
    with mixing(Gates(model, ["0"]), MixPlan("0", PLAN.lam, PLAN.partner), y):
        model[0].register_forward_hook(lambda *args: seen.append(args[-1]), prepend=True)
        x = torch.randn(4, 3)
        model(x)
    early, late = seen  # that which came in the step stands before the gate
    torch.testing.assert_close(late, naive.mix(early, PLAN.lam, PLAN.partner))


def test_a_plan_whose_layer_did_not_run_warns():
    model, y = plain(), torch.arange(4)
    plan = MixPlan("0", PLAN.lam, PLAN.partner)
    message = "layer '0' did not run, so nothing was mixed"
    with pytest.warns(UserWarning, match=message), mixing(model, plan, y):
        pass


def test_a_copied_gate_is_not_armed():
    gate = Gate("layer", nn.Identity())
    gate.step = object()
    assert copy.deepcopy(gate).step is None
    assert pickle.loads(pickle.dumps(gate)).step is None


def test_a_hidden_state_that_follows_from_the_target_is_refused():
    model, y = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 2)), torch.arange(4)
    plan = MixPlan("1", PLAN.lam, PLAN.partner)
    message = "the hidden state of layer '1' follows from the target"
    with pytest.raises(ValueError, match=message), mixing(model, plan, y) as paired:
        model(paired)
    assert type(y) is torch.Tensor


@pytest.mark.parametrize(
    ("layer", "target", "value", "message"),
    [
        ("input", torch.arange(4), None, "the plan mixes the input, but none was given"),
        ("input", torch.arange(4), torch.ones(5, 3), r"shape \(4, ...\) .* but got \(5, 3\)"),
        ("0", torch.arange(3), None, r"for a plan of 4 samples, but got \(3,\)"),
        ("00", torch.arange(4), None, "there is no layer '00'; did you mean '0'"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(layer, target, value, message):
    plan, model = MixPlan(layer, PLAN.lam, PLAN.partner), plain()
    with pytest.raises(ValueError, match=message), mixing(model, plan, target, input=value):
        pass
    assert type(target) is torch.Tensor
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_next_layer_may_write_into_the_mixed_state(float64, memory_format):
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(inplace=True), nn.Flatten())
    model = model.to(memory_format=memory_format)
    x, y = torch.randn(4, 3, 2, 2).contiguous(memory_format=memory_format), torch.arange(4)
    plan, modules = MixPlan("0", PLAN.lam, PLAN.partner), dict(model.named_modules())
    with mixing(model, plan, y) as paired:
        F.cross_entropy(model(x), paired).backward()
    grads = [p.grad for p in model.parameters()]
    loss = naive.two_pass(lambda y: F.cross_entropy(model(x), y), plan, modules, y)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(grads, list(expected), atol=1e-10, rtol=0)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_has_its_last_states_mixed_too(cls, batch_first):
    layer = cls(3, 5, num_layers=2, batch_first=batch_first)
    x = torch.randn(4, 4, 3)  # as many steps as samples
    with torch.no_grad(), mixing(nn.ModuleDict({"0": layer}), MixPlan("0", *plan_rest())):
        mixed = layer(x)
    with torch.no_grad():
        plain = layer(x)

    def expected(tensor, dim):
        rows = tensor.movedim(dim, 0)
        return naive.mix(rows, PLAN.lam, PLAN.partner.tolist()).movedim(0, dim)

    torch.testing.assert_close(mixed[0], expected(plain[0], 0 if batch_first else 1))
    states = [(mixed[1], plain[1])] if cls is not nn.LSTM else zip(mixed[1], plain[1], strict=True)
    for state, before in states:
        torch.testing.assert_close(state, expected(before, 1))


def test_a_recurrent_layer_that_puts_out_a_tensor_is_any_layer():
    class Last(nn.GRU):
        def forward(self, x):
            return super().forward(x)[0][:, -1]

    layer, x = Last(3, 5, batch_first=True), torch.randn(4, 2, 3)
    with mixing(nn.ModuleDict({"0": layer}), MixPlan("0", *plan_rest())):
        mixed = layer(x)
    torch.testing.assert_close(mixed, naive.mix(layer(x), 0.7, PLAN.partner.tolist()))


def plan_rest():
    return PLAN.lam, PLAN.partner


def test_a_packed_sequence_is_refused():
    layer = nn.GRU(3, 5)
    packed = nn.utils.rnn.pack_sequence([torch.ones(2, 3)] * 4)
    message = "layer '0' puts out a PackedSequence, which has no row for each sample"
    holder = nn.ModuleDict({"0": layer})
    with pytest.raises(ValueError, match=message), mixing(holder, MixPlan("0", *plan_rest())):
        layer(packed)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_loss_within_a_checkpoint_is_mixed(float64, reentrant):
    model, x, y = plain(), torch.randn(4, 3), torch.arange(4)
    plan = MixPlan("1", PLAN.lam, PLAN.partner)
    modules = dict(model.named_modules())
    expected = naive.two_pass(lambda y: F.cross_entropy(model(x), y), plan, modules, y)
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    with mixing(model, plan, y) as paired:
        loss = torch.utils.checkpoint.checkpoint(
            F.cross_entropy, model(x), paired, use_reentrant=reentrant
        )
        loss.backward()
    ours = tuple(p.grad for p in model.parameters())
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_a_scripted_layer_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(torch.jit.script(nn.Linear(3, 5)), nn.Linear(5, 4))
    message = "layer '0', a RecursiveScriptModule, is scripted, so it takes no hooks; did you mean"
    with pytest.raises(ValueError, match=message), mixing(model, MixPlan("0", *plan_rest())):
        pass
    with mixing(model, MixPlan("1", *plan_rest())):
        mixed = model(torch.ones(4, 3))
    assert mixed.shape == (4, 4)


def test_a_graph_is_given_lam_where_the_partners_are():
    plan = MixPlan("0", torch.tensor(0.75), torch.randperm(3))
    assert Step(plan).traced is plan
    sent = plan.to(torch.device("meta"))
    assert Step(sent).plan.lam.device.type == "cpu"
    assert Step(sent).traced.lam.device.type == "meta"


def test_a_layer_that_passes_on_a_leaf_alone_is_mixed():
    model, x = nn.ModuleDict({"layer": nn.Identity()}), HIDDEN.clone().requires_grad_()
    with mixing(model, PLAN):
        mixed = model["layer"](x)
    torch.testing.assert_close(mixed, MIXED)
    mixed.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(4, 2))


OWN = MixPlan("0", torch.tensor([0.3, 1.0, 0.0, 0.8]).double(), PLAN.partner)


@pytest.mark.parametrize("needs_grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("plan", [MixPlan("0", PLAN.lam, PLAN.partner), OWN])
def test_a_gate_mixes_small_states_as_any_other(plan, dtype, needs_grad):
    layer, hidden = nn.Identity(), torch.randn(4, 3, 2).to(dtype).requires_grad_(needs_grad)
    model = nn.Sequential(layer)
    with mixing(model, plan):
        found = model(hidden)
    other = hidden.detach().clone().requires_grad_(needs_grad)
    of = naive.mix if plan.labels == "paired" else naive.mix_each
    expected = of(other.double(), plan.lam, plan.partner.tolist()).to(dtype)
    torch.testing.assert_close(found, expected)
    if needs_grad:
        slope = torch.randn(4, 3, 2).to(dtype)
        found.backward(slope)
        expected.backward(slope)
        torch.testing.assert_close(hidden.grad, other.grad)


@pytest.mark.parametrize("plan", [MixPlan("0", PLAN.lam, PLAN.partner), OWN])
def test_a_gradient_of_the_gradient_goes_through_a_gate(plan):
    model, hidden = nn.Sequential(nn.Identity()), torch.randn(4, 3, requires_grad=True)

    def mixed(hidden):
        with mixing(model, plan):
            return model(hidden)

    def penalty(of):
        (slope,) = torch.autograd.grad(of(hidden).pow(3).sum(), hidden, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), hidden)

    of = naive.mix if plan.labels == "paired" else naive.mix_each
    expected = penalty(lambda hidden: of(hidden, plan.lam.float(), plan.partner.tolist()))
    torch.testing.assert_close(penalty(mixed), expected)
