"""Layers whose rows are not those of the batch, and networks that are rightly left alone."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lightning_mmix.core.trees import mapped
from lightning_mmix.cuts import probe
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.verification import cut_test, probe_on

ANOTHER = "has its rows in another order than the batch"
LENGTHS = torch.tensor([2, 5, 3, 7, 4, 6])


def tokens(lengths=LENGTHS, longest=7):
    torch.manual_seed(0)
    return torch.randint(1, 20, (len(lengths), longest)) * (
        torch.arange(longest) < lengths[:, None]
    )


class Sorted(nn.Module):
    """Sorts the batch by length, packs it, and puts what comes out back in order."""

    unsorts = True

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.norm = nn.Embedding(20, 6), nn.LayerNorm(6)
        self.rnn, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x, lengths):
        lengths, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(self.embed(x[order]), lengths, batch_first=True)
        out = self.head(self.rnn(packed)[1][0][-1])
        return out[order.argsort()] if self.unsorts else out


class NeverUnsorted(Sorted):
    unsorts = False


class SortedAfterwards(Sorted):
    """Embeds the batch as it comes."""

    def forward(self, x, lengths):
        h = self.embed(x)
        lengths, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(self.norm(h[order]), lengths, batch_first=True)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(out[order.argsort()].sum(1))


class SortedInABranch(Sorted):
    def forward(self, x, lengths):
        h = self.embed(x)
        order = lengths.argsort()
        branch = self.norm(h[order])[order.argsort()]
        return self.head(self.rnn(h + branch)[1][0][-1])


class PackedUnsorted(Sorted):
    def forward(self, x, lengths):
        h = self.norm(self.embed(x))
        packed = pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.rnn(packed)[1][0][-1])


def verdicts(sites):
    return {name: site.reason for name, site in sites.items() if name != "input"}


KINDS = {
    Sorted: {"embed": ANOTHER, "head": ANOTHER},
    NeverUnsorted: {"embed": ANOTHER, "head": ANOTHER},
    SortedAfterwards: {"embed": "", "norm": ANOTHER, "head": ""},
    SortedInABranch: {"embed": "", "norm": "is bypassed", "rnn": "", "head": ""},
    PackedUnsorted: {"embed": "", "norm": "", "head": ""},
}


@pytest.mark.parametrize("network", KINDS)
def test_a_layer_behind_a_sort_belongs_to_other_samples(network):
    sites = verdicts(cut_test(network(), (tokens(), LENGTHS)).sites)
    assert {name: sites[name] for name in KINDS[network]} == KINDS[network]


class TimeFirst(nn.Module):
    """Takes (T, B, ...), or turns what comes as (B, T, ...)."""

    turns = True

    def __init__(self, body=None):
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(6, 4)
        self.body = nn.LSTM(6, 6) if body is None else body

    def run(self, h):
        h = self.body(h)
        return h[0] if isinstance(h, tuple) else h

    def forward(self, x):
        h = self.embed(x.T if self.turns else x)
        return self.head(self.run(h)[-1])


class SelfAttention(TimeFirst):
    def run(self, h):
        return self.body(h, h, h)[0]


class Loaded(TimeFirst):
    turns = False


class Tagger(Loaded):
    def forward(self, x):
        return self.head(self.run(self.embed(x)))


def square(size=5):
    return tokens(torch.full((size,), size), size)


@pytest.mark.parametrize("network", [TimeFirst, Loaded])
@pytest.mark.parametrize("size", [5, 3])
def test_of_a_network_with_time_first_an_lstm_that_knows_it_can_be_mixed(network, size):
    sites = verdicts(Probe(network(), square(size), size=size).sites)
    assert sites == {
        "embed": f"is not batch-first: ({size}, {size}, 6) of {size} samples",
        "body": "",
        "head": "",
    }


def test_a_sequence_as_long_as_the_rows_that_are_probed_passes_for_no_batch():
    x = torch.randint(20, (8, 5))
    assert verdicts(cut_test(TimeFirst(), x).sites) == {
        "embed": "is not batch-first: (5, 5, 6) of 5 samples", "body": "", "head": ""
    }  # fmt: skip


def test_attention_with_time_first_is_refused():
    encoder = TimeFirst(nn.TransformerEncoderLayer(6, 2, 8))
    sites = verdicts(Probe(encoder, square(), size=5).sites)
    first = "is not batch-first: (5, 5, 6) of 5 samples"
    assert sites["embed"] == sites["body"] == sites["body.norm2"] == first
    assert sites["head"] == ""
    attention = SelfAttention(nn.MultiheadAttention(6, 2))
    sites = verdicts(Probe(attention, square(), size=5).sites)
    assert sites["embed"] == sites["body"] == first


def test_where_time_passes_for_the_batch_in_the_output_nothing_can_be_mixed():
    sites = verdicts(Probe(Tagger(), square(), size=5).sites)
    assert sites == {
        "embed": "is not batch-first: (5, 5, 6) of 5 samples",
        "body": "is not batch-first: (5, 5, 6) of 5 samples",
        "head": "is not batch-first: (5, 5, 4) of 5 samples",
    }


@pytest.mark.parametrize("network", [Tagger, lambda: Tagger(nn.GRU(6, 6))])
def test_where_time_passes_for_the_batch_it_may_be_of_any_length(network):
    sites = verdicts(Probe(network(), tokens(torch.full((5,), 8), 8), size=5).sites)
    assert sites["embed"] == "is not batch-first: (5, 8, 6) of 8 samples"
    assert sites["head"] == "is not batch-first: (5, 8, 4) of 8 samples"


class Steps(nn.Module):
    """Takes the batch first, and each step of time for itself."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.embed(x))


def test_steps_that_are_alike_are_no_samples():
    sites = verdicts(Probe(Steps(), tokens(torch.full((5,), 8), 8), size=5).sites)
    assert sites == {"embed": "", "head": ""}


@pytest.mark.parametrize("times", [8, 7])
def test_a_loader_with_time_first_is_told(times):
    class Floats(Loaded):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3, 6)

    x, y = torch.randn(times, 8, 3), torch.arange(8) % 4
    sites = probe_on(Floats(), (x, y), [y]).sites
    assert sites["input"].reason == f"is not batch-first: ({times}, 8, 3) of 8 samples"
    assert sites["embed"].reason == f"is not batch-first: ({times}, 8, 6) of 8 samples"
    assert sites["body"].is_cut
    assert sites["head"].is_cut


def test_a_bag_of_words_with_time_first_is_told():
    class Bag(Loaded):
        def forward(self, x):
            return self.head(self.embed(x).mean(0))

    sites = verdicts(Probe(Bag(), torch.randint(20, (5, 5)), size=5).sites)
    assert (sites["embed"], sites["head"]) == ("is not batch-first: (5, 5, 6) of 5 samples", "")


def test_time_first_and_sorted_is_told():
    class Both(Sorted):
        def forward(self, x, lengths):
            lengths, order = lengths.sort(descending=True)
            packed = pack_padded_sequence(self.embed(x.T[:, order]), lengths)
            return self.head(self.norm(self.rnn(packed)[1][0][-1, :, :6]))[order.argsort()]

        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(6, 8), nn.Linear(6, 4)

    sites = verdicts(cut_test(Both(), (tokens(), LENGTHS)).sites)
    assert sites["embed"] == "is not batch-first: (7, 5, 6) of 5 samples"
    assert sites["norm"] == sites["head"] == ANOTHER


def test_an_output_with_time_first_shows_the_order_too():
    class Speech(Sorted):
        def forward(self, x, lengths):
            order = lengths.argsort()
            h = self.norm(self.embed(x[order]))[order.argsort()]
            return self.head(self.rnn(h)[0]).transpose(0, 1)

    sites = verdicts(cut_test(Speech(), (tokens(), LENGTHS)).sites)
    assert sites == {"embed": ANOTHER, "norm": ANOTHER, "rnn": "", "head": ""}


def test_of_states_alone_the_batch_is_known():
    class States(Loaded):
        def forward(self, x):
            return self.body(self.embed(x))[1][0]

    sites = verdicts(Probe(States(), square(), size=5).sites)
    assert (sites["embed"], sites["body"]) == ("is not batch-first: (5, 5, 6) of 5 samples", "")


class Convolutions(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(True), nn.GroupNorm(2, 6),
            nn.Conv2d(6, 6, 1), nn.Flatten(), nn.Linear(216, 4),
        )  # fmt: skip


class Constant(nn.Module):
    """Adds what is the same for all samples."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.same = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(6, 6)

    def forward(self, x):
        h = self.one(x)
        return self.two(h + self.same(torch.ones_like(h)))


class TurnedInside(nn.Module):
    """An LSTM with time first between layers with the batch first."""

    def __init__(self):
        super().__init__()
        self.one, self.rnn, self.two = nn.Linear(3, 6), nn.LSTM(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.two(self.rnn(self.one(x).transpose(0, 1))[0].transpose(0, 1))


class Stateful(nn.Module):
    """Adds to each row what it had there before."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 4)
        self.state = torch.randn(5, 6)

    def forward(self, x):
        return self.two(self.one(x) + self.state)


class Pairs(Stateful):
    """Compares each row to the next."""

    def forward(self, x):
        h = self.one(x)
        return self.two(h - torch.cat([h[1:], h[1:2]]))


class Noise(Stateful):
    amount = 1.0

    def forward(self, x):
        h = self.one(x)
        return self.two(h + self.amount * torch.randn_like(h))


class LoudNoise(Noise):
    amount = 1e6


class NowAndThen(Noise):
    """Drops a layer, and runs another twice, at random."""

    def forward(self, x):
        h = self.one(x)
        return self.two(self.one(x) if torch.rand(()) < 0.5 else h)


class PackedAsSorted(Sorted):
    """Takes batches that are sorted already."""

    def forward(self, x, lengths):
        packed = pack_padded_sequence(self.norm(self.embed(x)), lengths, batch_first=True)
        return self.head(self.rnn(packed)[1][0][-1])


def resnet():
    return torchvision.models.resnet18(num_classes=4)


def vit():
    return torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=4)


QUIET = [
    (resnet, torch.randn(5, 3, 32, 32)),
    (vit, torch.randn(5, 3, 16, 16)),
    (Convolutions, torch.randn(5, 3, 8, 8)),
    (Constant, torch.randn(5, 4)),
    (TurnedInside, torch.randn(5, 7, 3)),
    (TurnedInside, torch.randn(5, 5, 3)),
    (Stateful, torch.randn(5, 4)),
    (Stateful, torch.randn(5, 5)[:, :4]),
    (Pairs, torch.randn(5, 4)),
    (Noise, torch.randn(5, 4)),
    (LoudNoise, torch.randn(5, 4)),
    (NowAndThen, torch.randn(5, 4)),
    (PackedUnsorted, (tokens(), LENGTHS)),
    (PackedAsSorted, (tokens(LENGTHS.sort(descending=True)[0]), LENGTHS.sort(descending=True)[0])),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("network", "inputs"), QUIET)
def test_a_network_that_keeps_its_rows_is_left_alone(monkeypatch, network, inputs, dtype):
    def taken():
        model = network()
        if hasattr(model, "state"):
            model.state = model.state.to(dtype)
        typed = mapped(inputs, lambda t: t.to(dtype) if t.is_floating_point() else t)
        return cut_test(model.to(dtype), typed).sites

    torch.manual_seed(3)
    found = taken()
    monkeypatch.setattr(probe, "reasons", lambda *_: {})
    torch.manual_seed(3)
    assert found == taken()


def test_a_language_model_with_masks_of_different_lengths_is_left_alone(monkeypatch):
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = hf.BertConfig(vocab_size=20, intermediate_size=16, **sizes)
    model = hf.BertForSequenceClassification(config)
    inputs = {"input_ids": tokens(), "attention_mask": (tokens() > 0).long()}
    sites = cut_test(model, inputs).sites
    assert sites["bert.embeddings"].is_cut
    assert sites["bert.encoder.layer.1"].is_cut
    monkeypatch.setattr(probe, "reasons", lambda *_: {})
    assert sites == cut_test(model, inputs).sites


def test_rows_are_taken_that_show_the_order():
    lengths = torch.tensor([7, 7, 7, 7, 7, 3, 7])
    sites = cut_test(Sorted(), (tokens(lengths), lengths)).sites
    assert sites["embed"].reason == ANOTHER


def test_lengths_that_are_all_equal_show_no_order():
    lengths = torch.full((6,), 7)
    assert cut_test(Sorted(), (tokens(lengths), lengths)).sites["embed"].is_cut


def test_what_is_no_tensor_moves_no_row():
    class Strings(Sorted):
        def forward(self, x, words):
            lengths = torch.tensor([len(word) for word in words])
            return self.head(self.rnn(self.embed(lengths)[:, None])[1][0][-1])

    sites = Probe(Strings(), (tokens()[:3], ["one", "three", "eleven"]), size=3).sites
    assert ANOTHER not in verdicts(sites).values()
