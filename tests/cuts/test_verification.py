"""The cut test, against networks of which the answer is known."""

import copy
import random
from collections import Counter, defaultdict, deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.rows import TOLERANCE
from lightning_mmix.cuts.signal import carried
from lightning_mmix.cuts.verification import cut_test


class Chain(nn.Module):
    """Three layers in a row: every one of them is a cut."""

    def __init__(self):
        super().__init__()
        self.first, self.body, self.last = nn.Linear(4, 4), self.make(), nn.Linear(4, 3)

    def make(self):
        return nn.Linear(4, 4)

    def run(self, h):
        return self.body(h)

    def forward(self, x):
        return self.last(self.run(self.first(x)).tanh())


class Residual(Chain):
    def run(self, h):
        return h + self.body(h)


class SqueezeExcite(Chain):
    def run(self, h):
        return h * self.body(h).sigmoid()


class TwoArms(Chain):
    def forward(self, x):
        return self.last(self.first(x) + self.body(x))


class Shared(Chain):
    def run(self, h):
        return self.body(self.body(h).relu())


class StochasticDepth(Chain):
    def run(self, h):
        return h if self.training and torch.rand(()) < 0.5 else h + self.body(h)


class Passed(Chain):
    def make(self):
        return nn.Dropout(0.5)


class PassedBranch(Chain):
    """A shortcut that passes on what it gets, beside a branch without effect at first."""

    def make(self):
        return nn.Identity()

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def run(self, h):
        return self.body(h) + self.scale * h.relu()


class Dead(Chain):
    def run(self, h):
        self.body(h)
        return h


class UsedTwice(Chain):
    def run(self, h):
        h = self.body(h)
        return h.relu() * h.sigmoid()


class Attention(Chain):
    def make(self):
        return nn.MultiheadAttention(4, 2, batch_first=True)

    def run(self, h):
        h = h[:, None].expand(-1, 3, -1)
        return self.body(h, h, h)[0][:, 0]


class FusedEncoder(Attention):
    def make(self):
        return nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def run(self, h):
        return self.body(h[:, None].expand(-1, 3, -1))[:, 0]


class ZeroHead(Chain):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)


class InPlace(Chain):
    def run(self, h):
        h = self.body(h)
        h += 1
        return h.relu_()


class HalfOfASplit(Chain):
    class Half(nn.Module):
        def forward(self, parts):
            return parts[0]

    def make(self):
        return self.Half()

    def run(self, h):
        parts = h.chunk(2, 1)
        return torch.cat([self.body(parts), parts[1]], 1)


class BothOfASplit(HalfOfASplit):
    class Half(nn.Module):
        def forward(self, parts):
            return {"left": parts[0], "right": (parts[1], None)}

    def run(self, h):
        parts = self.body(h.chunk(2, 1))
        return torch.cat([parts["left"], parts["right"][0]], 1)


class SequenceFirst(Chain):
    class Turn(nn.Module):
        def forward(self, h):
            return h[:, None].expand(-1, 7, -1).transpose(0, 1)

    def make(self):
        return self.Turn()

    def run(self, h):
        return self.body(h)[0]


class Integers(Chain):
    class Signs(nn.Module):
        def forward(self, h):
            return h > 0

    def make(self):
        return self.Signs()

    def run(self, h):
        return h * self.body(h)


BODIES = {
    Chain: "",
    Residual: "is bypassed",
    SqueezeExcite: "is bypassed",
    TwoArms: "is bypassed by layer 'first'",
    Shared: "runs 2 times, one after the other",
    StochasticDepth: "is bypassed",
    Passed: "",
    PassedBranch: "is bypassed",
    Dead: "is not used",
    UsedTwice: "",
    Attention: "",
    FusedEncoder: "",
    ZeroHead: "",
    InPlace: "",
    HalfOfASplit: "is bypassed",
    BothOfASplit: "",
    SequenceFirst: "is not batch-first: (7, 5, 4) of 5 samples",
    Integers: "puts out no floating-point tensor",
}


@pytest.mark.parametrize("network", BODIES)
def test_a_layer_of_a_known_network_gets_the_right_verdict(network):
    sites = cut_test(network(), torch.randn(6, 4)).sites
    assert (sites["body"].is_cut, sites["body"].reason) == (not BODIES[network], BODIES[network])
    assert sites["last"].is_cut
    assert sites["first"].is_cut is (network is not TwoArms)
    assert sites["input"].is_cut


@pytest.mark.parametrize("network", BODIES)
def test_values_agree_with_the_graph(float64, network):
    torch.manual_seed(1)
    probe = Probe(network(), torch.randn(5, 4), size=5)
    deviation = probe.deviation("body")
    assert (deviation is not None and deviation < TOLERANCE) == (not BODIES[network])
    assert probe.deviation("first", "last") < TOLERANCE or network is TwoArms


def test_a_frozen_head_of_zeros_leaves_the_verdict_to_the_graph():
    probe = Probe(ZeroHead().requires_grad_(False), torch.randn(5, 4), size=5)
    assert probe.deviation("body") is None
    assert probe.confirm(["first", "body"])


def test_a_side_path_that_neither_graph_nor_values_show_at_first_is_found():
    class Control(Chain):
        def __init__(self):
            super().__init__()
            self.frozen, self.zero = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 4)
            nn.init.zeros_(self.zero.weight)
            nn.init.zeros_(self.zero.bias)

        def forward(self, x):
            with torch.no_grad():
                side = self.frozen(x)
            return self.last(self.body(self.first(x)) + self.zero(side))

    model = Control()
    probe = Probe(model, torch.randn(5, 4), size=5)
    assert not probe.confirm(["first", "body"])
    assert not model.zero.weight.any()


def test_a_projection_that_never_calls_its_hooks_is_told():
    site = cut_test(Attention(), torch.randn(5, 4)).sites["body.out_proj"]
    assert (site.is_cut, site.reason, site.depth) == (False, "never runs in forward", None)


def test_values_are_taken_past_no_fused_kernel():
    probe = Probe(FusedEncoder(), torch.randn(5, 4), size=5)
    assert probe.confirm(["body.norm1"])
    assert probe.deviation("body.norm1") < TOLERANCE


def test_a_layer_that_gives_all_samples_the_same_is_told():
    class Queries(Chain):
        class Query(nn.Module):
            def __init__(self):
                super().__init__()
                self.query = nn.Parameter(torch.ones(4))

            def forward(self, h):
                return self.query.expand(len(h), -1)

        def make(self):
            return self.Query()

        def run(self, h):
            return h * self.body(h)

    assert cut_test(Queries(), torch.randn(5, 4)).sites["body"].reason == (
        "is the same for all samples"
    )


def test_a_scripted_part_keeps_its_mode():
    net = Chain()
    net.body = torch.jit.script(nn.Dropout(0.5))
    sites = cut_test(net, torch.randn(5, 4)).sites
    assert net.body.training
    assert (sites["first"].is_cut, sites["body"].reason) == (True, "never runs in forward")


class UnderNoGrad(Chain):
    def run(self, h):
        with torch.no_grad():
            return self.body(h)


class Reentrant(Chain):
    def run(self, h):
        return checkpoint(self.body, h, use_reentrant=True)


class Kept(Chain):
    def run(self, h):
        return checkpoint(self.body, h, use_reentrant=False)


@pytest.mark.parametrize("network", [UnderNoGrad, Reentrant, Kept])
def test_values_decide_where_the_graph_is_blind(network):
    sites = cut_test(network(), torch.randn(5, 4)).sites
    assert all(site.is_cut for site in sites.values())


def test_a_bypass_that_the_graph_does_not_show_is_found_by_value():
    class Hidden(Chain):
        def run(self, h):
            return self.body(h) + h.detach()

    probe = Probe(Hidden(), torch.randn(5, 4), size=5)
    assert probe.sites["body"].is_cut
    assert not probe.confirm(["body"])
    assert probe.sites["body"].reason == "is bypassed, by a way that the graph does not show"


class Text(nn.Module):
    """A classifier of token ids, padded with zeros."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(9, 4), nn.Embedding(3, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, ids, mask=None):
        mask = ids > 0 if mask is None else mask
        h = self.norm(self.words(ids) + self.places(torch.arange(3).expand_as(ids)))
        return self.head((h * mask[..., None]).sum(1))


IDS = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6], [7, 8, 0], [8, 1, 3]])


@pytest.mark.parametrize("inputs", [IDS, {"ids": IDS, "mask": IDS > 0}, (IDS, IDS > 1)])
def test_what_is_looked_up_is_the_signal_and_masks_are_not(inputs):
    probe = Probe(Text(), inputs, size=5)
    assert probe.confirm(["words", "norm", "head"])
    verdicts = {name: site.is_cut for name, site in probe.sites.items()}
    assert verdicts == {
        "input": False, "words": True, "places": False, "norm": True, "head": True
    }  # fmt: skip


def test_an_indexed_parameter_is_a_look_up():
    class Table(Chain):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(9, 4))

        def forward(self, x, categories):
            return self.last(self.body(self.first(x)) + self.table[categories])

    sites = cut_test(Table(), (torch.randn(5, 4), torch.arange(5))).sites
    assert [name for name, site in sites.items() if site.is_cut] == ["last"]


@pytest.mark.parametrize("kind", ["frozen", "image"])
def test_an_input_is_no_cut_beside_another_that_the_graph_does_not_show(kind):
    class Beside(Chain):
        def forward(self, x, other):
            with torch.no_grad():
                side = self.body(other.float().flatten(1)[:, :4] / 255)
            return self.last(self.first(x) + side)

    image = torch.randint(256, (5, 1, 2, 2), dtype=torch.uint8)
    other = torch.randn(5, 4) * 255 if kind == "frozen" else image
    probe = Probe(Beside(), (torch.randn(5, 4), other), size=5)
    assert not probe.confirm(["input"])


def test_integer_images_are_judged_by_value():
    class Scaled(Residual):
        def forward(self, x):
            return super().forward(x / 255)

    sites = cut_test(Scaled(), torch.randint(256, (5, 4), dtype=torch.uint8)).sites
    assert [name for name, site in sites.items() if site.is_cut] == ["first", "last"]
    assert sites["body"].reason == "is bypassed"


class OfBytes(Residual):
    """Takes images of bytes, and writes into what they become."""

    def forward(self, image):
        return super().forward(self.floats(image).div_(255).flatten(1))

    def floats(self, image):
        return image.float()


class ToDtype(OfBytes):
    def floats(self, image):
        return image.to(self.first.weight.dtype)


class Divided(OfBytes):
    def floats(self, image):
        return image / 2


BYTES = torch.randint(256, (5, 1, 2, 2), dtype=torch.uint8)


@pytest.mark.parametrize("network", [OfBytes, ToDtype, Divided])
def test_images_of_bytes_become_signal_where_they_are_converted(network):
    probe = Probe(network(), BYTES, size=5)
    assert probe.sites["body"].reason == "is bypassed"  # as the graph shows
    assert probe.sites["input"].reason == "is not floating point"
    assert probe.confirm(["first", "last"])
    assert probe.deviation("first") < TOLERANCE < probe.deviation("body")
    assert probe.deviation("first") < TOLERANCE  # once more, though it was changed in place


def test_noise_in_the_shape_of_images_of_bytes_is_no_signal():
    class Noisy(OfBytes):
        def forward(self, image):
            noise = torch.rand_like(image, dtype=torch.float32)
            return super().forward(image) + noise.flatten(1)[:, :3]

    assert Probe(Noisy(), BYTES, size=5).sites["first"].is_cut


def test_images_that_are_converted_side_by_side_go_past_each_other():
    class Twins(SideBySide):
        def forward(self, x, y):
            return super().forward(x.float().flatten(1) / 255, y.float().flatten(1) / 255)

    probe = Probe(Twins(), (BYTES, BYTES.flip(0)), size=5)
    assert probe.confirm(["first", "body"])


def test_noise_in_a_forward_pass_leaves_the_verdict_to_the_graph():
    class Noisy(Chain):
        def run(self, h):
            return self.body(h) + torch.randn_like(h)

    probe = Probe(Noisy(), torch.randn(5, 4), size=5)
    assert probe.confirm(["first", "body"])
    assert probe.sites["first"].is_cut


def test_of_two_inputs_each_goes_past_the_other():
    class Two(Chain):
        def forward(self, image, table):
            return self.last(self.first(image) + self.body(table))

    sites = cut_test(Two(), (torch.randn(5, 4), torch.randn(5, 4))).sites
    assert [name for name, site in sites.items() if site.is_cut] == ["last"]


class SideBySide(Chain):
    """Compares two inputs, each of which the same body has seen."""

    def run(self, h):
        return self.body(h).relu()

    def join(self, one, other, _x):
        return self.last(one * other)

    def forward(self, x, y):
        return self.join(self.run(self.first(x)), self.run(self.first(y)), x)


class OnItsOwnOutput(SideBySide):
    """A body that sees its other run's output, with another layer between."""

    def forward(self, x, y):
        h = self.run(self.first(x))
        return self.join(h, self.run(h + y), x)


class PastBoth(SideBySide):
    def join(self, one, other, x):
        return self.last(one * other + x)


class OnFewerRows(SideBySide):
    def join(self, one, other, _x):
        return self.last(one * other * self.body(one[:1].detach() * 0))


BY_Y = "is bypassed by entry '1' of the batch"
TWINS = (torch.randn(5, 4), torch.randn(5, 4))


@pytest.mark.parametrize(
    ("network", "reasons"),
    [
        (SideBySide, ["", ""]),
        (OnItsOwnOutput, [BY_Y, "runs 2 times, one after the other"]),
        (PastBoth, ["is bypassed", "is bypassed"]),
        (OnFewerRows, ["", "is not batch-first: (1, 4) of 5 samples"]),
    ],
)  # fmt: skip
def test_runs_side_by_side_are_judged_together(network, reasons):
    sites = cut_test(network(), TWINS).sites
    assert [sites[name].reason for name in ("first", "body")] == reasons
    assert [sites[name].is_cut for name in ("first", "body")] == [not why for why in reasons]


def test_values_tell_of_runs_side_by_side_what_the_graph_does(float64):
    for network in (SideBySide, OnItsOwnOutput, PastBoth):
        probe = Probe(network(), tuple(x.double() for x in TWINS), size=5)
        assert (probe.deviation("body") < TOLERANCE) == (network is SideBySide)
    probe = Probe(SideBySide(), tuple(x.double() for x in TWINS), size=5)
    assert probe.deviation("first", "body", "last") < TOLERANCE


def test_runs_side_by_side_that_the_graph_does_not_show_are_judged_by_value():
    class Frozen(SideBySide):
        def forward(self, x, y):
            with torch.no_grad():
                other = self.run(self.first(y))
            return self.join(self.run(self.first(x)), other, x)

    sites = cut_test(Frozen(), TWINS).sites
    assert [name for name, site in sites.items() if site.is_cut] == ["first", "body", "last"]


def test_the_last_of_a_layers_runs_tells_its_depth_and_its_place():
    class Late(SideBySide):
        def forward(self, x, y):
            return self.join(self.body(x), self.body(self.first(y)), x)

    sites = cut_test(Late(), TWINS).sites
    assert [*sites] == ["input", "first", "body", "last"]
    assert [site.depth for site in sites.values()] == [0, 32 / 60, 48 / 60, 1]


def test_layers_are_confirmed_together_and_one_by_one_if_that_fails():
    class Deep(nn.Sequential):
        def __init__(self):
            super().__init__(*(nn.Linear(4, 4) for _ in range(6)))

        def forward(self, x):
            h = super().forward(x)
            return h + self.extra * x.detach()

    model = Deep()
    model.extra = 0.0
    probe = Probe(model, torch.randn(5, 4), size=5)
    assert probe.confirm("012345")
    assert probe.forwards == 1 + 1 + 2
    model.extra = 1.0
    probe = Probe(model, torch.randn(5, 4), size=5)
    assert not probe.confirm("01")
    assert not any(probe.sites[name].is_cut for name in "01")


def test_it_tells_shape_and_depth_and_what_it_took():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2), nn.LSTM(2, 2))
    model = nn.Sequential(*model[:3])
    cuts = cut_test(model, torch.randn(20, 3, 4))
    assert [(s.name, s.kind, s.shape) for s in cuts.sites.values()] == [
        ("input", "", (3, 4)), ("0", "Linear", (3, 8)), ("1", "ReLU", (3, 8)),
        ("2", "Linear", (3, 2)),
    ]  # fmt: skip
    assert [site.depth for site in cuts.sites.values()] == [0, 32 / 48, 32 / 48, 1]
    assert cuts.forwards == 2
    assert cuts.seconds > 0


@pytest.mark.parametrize("rnn", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_count_their_work_and_put_out_the_batch_second(rnn):
    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = rnn(4, 6, num_layers=2), nn.Linear(6, 6)

        def forward(self, x):
            h, states = self.rnn(x.transpose(0, 1))
            return self.head(h[-1]) + (states[0] if rnn is nn.LSTM else states)[-1]

    sites = cut_test(Sequences(), torch.randn(5, 7, 4)).sites
    assert sites["rnn"].is_cut
    assert sites["rnn"].shape == (7, 6)
    assert sites["rnn"].depth > 0.9
    assert sites["head"].reason == "is bypassed by layer 'rnn'"  # by its states


def test_without_work_to_count_depth_is_the_place():
    sites = cut_test(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.randn(5, 4)).sites
    assert [site.depth for site in sites.values()] == [0, 1 / 3, 2 / 3]


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match=r"at least two samples, but got float32 \(1, 4\)"):
        cut_test(Chain(), torch.randn(1, 4))


class Untidy(nn.Module):
    """A network that leaves traces of every forward pass."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("calls", torch.zeros(()))
        self.count, self.seen, self.total = 0, [], torch.zeros(4)
        self.fixed = nn.BatchNorm1d(4).eval()

    def forward(self, x):
        self.count += 1
        self.last = x
        self.calls += 1
        self.calls = self.calls + 0
        self.seen.append(x)
        self.total += x.detach().sum(0)
        self.net[0].weight.data = F.normalize(self.net[0].weight.data)
        self.net[0].bias.data.mul_(0.9)
        random.random()
        np.random.rand()
        return self.fixed(self.frozen(self.net(x))) + torch.rand(())


def described(model):
    """Numbers that tell two states of a model from each other."""
    found = []
    for module in model.modules():
        for name, value in vars(module).items():
            content = value if isinstance(value, list | dict) else []
            found += [hash(name), id(value), len(content), *map(id, content), module.training]
            found += [value.clone()] if isinstance(value, torch.Tensor) else []
    for tensor in [*model.parameters(), *model.buffers()]:
        found += [id(tensor), tensor.data_ptr(), tensor.requires_grad, id(tensor.grad)]
        found += [tensor.detach().clone()]
    return found


class Hoarder(Chain):
    """A network that keeps state in many kinds of things."""

    def __init__(self):
        super().__init__()
        self.torchs = torch.Generator().manual_seed(3)
        self.numpys, self.pythons = np.random.default_rng(3), random.Random(3)
        self.array, self.fixed = np.zeros(2), np.zeros(2)
        self.fixed.flags.writeable = False
        self.nested = {"a": [deque(), defaultdict(int), Counter(), set()]}
        self.teacher = (nn.BatchNorm1d(4),)

    def state(self):
        draws = copy.deepcopy([self.torchs.get_state(), self.numpys, self.pythons])
        return [
            draws[0].tolist(), draws[1].random(), draws[2].random(), self.array.tolist(),
            repr(self.nested), self.teacher[0].running_mean.tolist(), self.teacher[0].training,
        ]  # fmt: skip

    def run(self, h):
        noise = torch.rand((), generator=self.torchs) + self.numpys.random()
        self.array += self.pythons.random()
        for each, add in zip(self.nested["a"], ("append", "update", "update", "add"), strict=True):
            getattr(each, add)({1: 2} if add == "update" else 1)
        return self.body(h) + noise + self.teacher[0](h).detach() * 0


def test_a_probe_changes_nothing_that_lies_deeper():
    model = Hoarder()
    before = model.state()
    assert Probe(model, torch.randn(5, 4), size=5).confirm(["first", "body"])
    assert model.state() == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_probe_changes_nothing(fails):
    model = Untidy().train()
    model.fixed.eval()
    model.net[0].weight.grad = torch.ones(4, 4)
    x = torch.randn(5, 3 if fails else 4)
    before, generators = described(model), (np.random.get_state()[1].copy(), random.getstate())
    torchs = torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError, match="must match the size"):
            cut_test(model, x)
    else:
        assert Probe(model, x, size=5).confirm(["net", "frozen"])
    torch.testing.assert_close(described(model), before, atol=0, rtol=0)
    assert torch.equal(torchs, torch.get_rng_state())
    assert (generators[0] == np.random.get_state()[1]).all()
    assert generators[1] == random.getstate()
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile looks at every input
def test_a_probe_leaves_compile_caches_as_they_are():
    torch._dynamo.reset()
    net = Chain()
    net.body = torch.compile(net.body, backend="aot_eager")
    x = torch.randn(5, 4)
    net(x).sum().backward()
    counters = torch._dynamo.utils.counters
    compiled = counters["stats"]["unique_graphs"]
    assert Probe(net, x, size=5).confirm(["first", "body"])
    net(x).sum().backward()
    assert counters["stats"]["unique_graphs"] == compiled


class Held:
    """Keeps a tensor, a number, a module, and itself."""

    def __init__(self, tensor, module):
        self.tensor, self.number, self.module, self.itself = tensor, 1, module, self


def test_what_an_object_holds_is_found_and_of_a_module_nothing():
    one, other = torch.randn(5), torch.randn(3)
    made = torch.distributions.Independent(torch.distributions.Normal(other, other.exp()), 1)
    held = Held(one, nn.Linear(2, 2))
    found = carried({"held": (held, "text", None), "made": made})
    assert found[0] is one
    assert found[1] is other
    assert all(torch.equal(tensor, other.exp()) for tensor in found[2:])
    assert carried(Held(torch.ones(2, dtype=torch.long), nn.Linear(2, 2))) == []
    assert carried({"logits": other, "cache": held}) == [other]


def test_a_network_that_puts_out_an_object_is_judged_by_what_that_holds():
    class Predicts(Residual):
        def forward(self, x):
            return Held(super().forward(x), self)

    sites = cut_test(Predicts(), torch.randn(5, 4)).sites
    assert [name for name, site in sites.items() if site.is_cut] == ["input", "first", "last"]


def test_of_a_hidden_bypass_in_a_network_that_repeats_its_rows_values_tell():
    class Hidden(Chain):
        def forward(self, x):
            h = self.first(x)
            return self.last(self.body(h) + h.detach()).repeat_interleave(3, 0)

    probe = Probe(Hidden(), torch.randn(5, 4), size=5)
    assert probe.confirm(["first"])
    assert not probe.confirm(["body"])


def test_a_layer_behind_a_sort_is_told_in_a_network_that_repeats_its_rows():
    class Sorts(Chain):
        def forward(self, x):
            order = x[:, 0].argsort()
            return self.last(self.body(self.first(x)[order])[order.argsort()]).repeat(3, 1)

    sites = cut_test(Sorts(), torch.randn(5, 4)).sites
    assert sites["first"].is_cut
    assert sites["body"].reason == "has its rows in another order than the batch"


def test_what_goes_around_is_named_by_the_outermost_layer_beside():
    class Skips(Chain):
        def __init__(self):
            super().__init__()
            self.skip = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def run(self, h):
            return self.body(h) + self.skip(h)

    sites = cut_test(Skips(), torch.randn(5, 4)).sites
    assert sites["body"].reason == "is bypassed by layer 'skip'"
    assert sites["skip.0"].reason == sites["skip"].reason == "is bypassed by layer 'body'"


def test_an_argument_that_goes_around_is_named():
    class Adds(Chain):
        def forward(self, x, context):
            return self.last(self.body(self.first(x)) + context)

    given = {"x": torch.randn(5, 4), "context": torch.randn(5, 4)}
    sites = cut_test(Adds(), given).sites
    reason = "is bypassed by entry 'context' of the batch"
    assert [sites[name].reason for name in ("input", "first", "body", "last")] == [reason] * 3 + [
        ""
    ]
    assert cut_test(Adds(), tuple(given.values())).sites["body"].reason == (
        "is bypassed by entry '1' of the batch"
    )


def test_a_graphs_nodes_are_no_rows_that_could_be_out_of_order():
    class Pools(Chain):
        def forward(self, x, graph):
            return self.last(torch.zeros(5, 4).index_add(0, graph, self.first(x)).tanh())

    x, graph = torch.randn(17, 4), torch.arange(17) % 5
    probe = Probe(Pools(), (x, graph), size=5)
    assert probe.sites["first"].reason == "is not batch-first: (17, 4) of 5 samples"
    assert probe.sites["last"].is_cut


def test_a_row_of_bytes_that_is_converted_is_no_image():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x, keep):
            return self.last(self.first(x) * keep.float())

    keep = (torch.arange(30).view(5, 6) % 4 > 0).byte()
    sites = cut_test(Keeps(), (torch.randn(5, 4), keep)).sites
    assert sites["first"].is_cut


def test_a_loss_that_stays_as_nothing_has_moved_judges_no_rows():
    nodes, label = (
        torch.randn(13, 4),
        torch.zeros(5, dtype=torch.long),
    )  # the nodes of five graphs of one class
    model = nn.ModuleDict({"pool": nn.Linear(4, 3)})

    def loss(nodes, label):
        return (model["pool"](nodes[:5]).mean(1) - label).square().mean()

    site = Probe(model, (nodes, label), size=5, network=loss).sites["pool"]
    assert "another order" not in site.reason
