"""How a module's forward takes a batch."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lightning_mmix.cuts.calls import NoForwardError
from lightning_mmix.cuts.verification import probe_on

X, Z, Y = torch.randn(8, 4), torch.randn(8, 4), torch.arange(8) % 3


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 3)


class OfX(Body):
    def forward(self, x):
        return self.two(self.one(x))


class OfBoth(Body):
    def forward(self, x, z, scale=1.0):
        return self.two(self.one(x) + scale * z)


class Named(Body):
    def forward(self, input_ids=None, mask=None, labels=None):
        assert labels is None
        return {"logits": self.two(self.one(input_ids) * mask[:, None])}


class NeedsLabels(Body):
    def forward(self, x, labels):
        return {"loss": (self.two(self.one(x)) - labels[:, None]).square().mean(1)}


class OptionalLabels(NeedsLabels):
    def forward(self, x, labels=None):
        return super().forward(x, labels)


class Anything(Body):
    def forward(self, **batch):
        return self.two(self.one(batch["image"]))


class Whole(Body):
    def forward(self, batch):
        return self.two(self.one(batch["image"]))


class Nested(Body):
    def forward(self, pair):
        return self.two(self.one(pair[0]) + pair[1])


class Starred(Body):
    def forward(self, *tensors):
        return self.two(self.one(tensors[0]) + tensors[1])


class Tuple(Body):
    def forward(self, batch):
        return self.two(self.one(batch[0]))


class Tupled(Body):
    def forward(self, samples):
        return self.two(self.one(samples[0]))


class Masked(Body):
    def forward(self, x, mask=None):
        assert mask is None
        return self.two(self.one(x))


class Inside(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.loss = OfX(), nn.CrossEntropyLoss()


@dataclass
class Batch:
    image: torch.Tensor
    y: torch.Tensor


@pytest.mark.parametrize(
    ("module", "batch"),
    [
        (OfX, (X, Y)),
        (OfX, [X, Y]),
        (OfX, {"image": X, "label": Y}),
        (OfX, {"x": X, "y": Y}),
        (OfX, Batch(X, Y)),
        (OfX, (X, "meta", Y)),
        (OfX, (X, Y, list("abcdefgh"))),
        (OfBoth, (X, Z, Y)),
        (OfBoth, {"z": Z, "x": X, "y": Y, "id": Y}),
        (Named, {"input_ids": X, "mask": torch.ones(8), "labels": Y}),
        (NeedsLabels, {"x": X, "labels": Y}),
        (OptionalLabels, {"x": X, "labels": Y}),
        (NeedsLabels, (X, Y)),
        (Anything, {"image": X, "label": Y}),
        (Whole, {"image": X, "label": Y}),
        (Nested, ((X, Z), Y)),
        (Starred, (X, Z, Y)),
        (Tuple, (X, Y)),
        (Tupled, (X, Y)),
        (Masked, (X, Y, torch.rand(8))),
        (Inside, (X, Y)),
    ],
)
def test_a_forward_is_given_what_it_asks_for(module, batch):
    probe = probe_on(module(), batch, [Y])
    name = "net.one" if module is Inside else "one"
    assert probe.sites[name].depth == pytest.approx(16 / 28)
    assert probe.sites[name].shape == (4,)


def test_the_input_is_taken_from_where_it_is_said_to_be():
    probe = probe_on(OfX(), (torch.zeros(8, 4), {"a": X[:, :3], "b": X}, Y), [Y], "1.b")
    assert probe.deviation("one") == pytest.approx(0, abs=1e-5)


def test_what_cannot_be_cut_down_is_taken_as_a_whole():
    class Columns(Body):
        def forward(self, x):
            assert x.shape == (4, 8)
            return self.two(self.one(x.T))

    assert probe_on(Columns(), (X.T, Y), [Y]).sites["one"].is_cut


class Mode(OfX):
    def forward(self, x, mode):
        return super().forward(x)


HELD = "can't be tested with the batch, tuple(0: float32 (8, 4), 1: int64 (8,))"
MISSING = "(TypeError: Mode.forward() missing 1 required positional argument: 'mode')"


def told(module, batch=(X, Y)):
    with pytest.raises(NoForwardError) as caught:
        probe_on(module, batch, [Y])
    return str(caught.value)


def test_a_module_without_a_forward_is_told():
    assert told(Body()) == "Body has no forward"


def test_of_a_module_without_a_forward_its_child_is_told():
    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Mode()

    assert told(Outside()) == f"Outside has no forward, and that of its child {HELD} {MISSING}"


def test_a_target_is_not_passed_off_as_something_else():
    assert told(Mode()) == f"the forward pass of Mode {HELD} {MISSING}"


def test_of_a_foreign_error_the_first_line_is_told_and_not_all_of_it():
    class Long(OfX):
        def forward(self, x):
            raise RuntimeError(f"{'x' * 101}\nand more")

    place = f" at test_calls.py:{Long.forward.__code__.co_firstlineno + 1}"
    assert told(Long()).endswith(f"(RuntimeError{place}: {'x' * (97 - len(place))}...)")


class Repeated(nn.Module):
    """Runs each sample twice, in a network that is its one child."""

    def __init__(self):
        super().__init__()
        self.net = OfX()

    def forward(self, x):
        return self.net(x.repeat(2, 1))


def test_a_forward_that_can_be_run_is_not_passed_over_for_its_child():
    sites = probe_on(Repeated(), (X, Y), [Y]).sites
    assert sites["input"].is_cut
    assert sites["net.one"].reason == "puts out 2 rows for each sample"


def test_a_forward_that_puts_out_no_signal_is_not_usable():
    class Classes(OfX):
        def forward(self, x):
            return super().forward(x).argmax(1)

    with pytest.raises(NoForwardError, match="puts out no floating-point tensor"):
        probe_on(Classes(), (X, Y), [Y])
