"""Modules of which the training step is probed, as no forward takes the batch."""

import re

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from clients import assert_naive
from fitting import batches, fit, trainer
from torch import nn

from lightning_mmix import ManifoldMixup
from lightning_mmix.engine.choice import survey
from lightning_mmix.training.host import TrainerHost


class Parts(L.LightningModule):
    """A module whose training step calls its children."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.act, self.head = nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5)
        self.seen, self.count = [], 0
        self.register_buffer("calls", torch.zeros(()))

    def step(self, x, y):
        return F.cross_entropy(self.head(self.act(self.body(x))), y)

    def training_step(self, batch, batch_idx):
        loss = self.step(*batch)
        self.log("loss", loss)
        return {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Posterior(Parts):
    """Takes the target, too, beside what is predicted without it."""

    def __init__(self):
        super().__init__()
        self.classes, self.posterior = nn.Embedding(5, 6), nn.Linear(6, 6)

    def step(self, x, y):
        h = self.act(self.body(x))
        z = self.posterior(h + self.classes(y))
        return F.cross_entropy(self.head(z), y) + (z - h).square().mean()


class OfNumbers(Parts):
    """Puts its numeric target into the network, as a diffusion model does."""

    def step(self, x, y):
        h = self.act(self.body(x))
        return (self.head(h + y[:, None]) - y[:, None]).square().mean()


class Siamese(Parts):
    """Compares the two views of a batch, which one body sees."""

    def step(self, views, y):
        one, other = (self.act(self.body(view)) for view in views)
        return F.cross_entropy(self.head((one - other).abs()), y)


class Recurrent(Parts):
    """Runs a layer on what it has put out before."""

    def __init__(self):
        super().__init__()
        self.turn = nn.Linear(6, 6)

    def step(self, x, y):
        return F.cross_entropy(self.head(self.act(self.turn(self.act(self.body(x))))), y)


class OfBytes(Parts):
    """Converts images of bytes in its training step."""

    def step(self, x, y):
        return super().step(x.double().flatten(1) / 255, y)


class OfFloats(OfBytes):
    """Has a forward, which takes no bytes."""

    def forward(self, x):
        return self.head(self.act(self.body(x)))

    def step(self, x, y):
        return F.cross_entropy(self(x.double().flatten(1) / 255), y)


class InForward(OfFloats):
    """Has a forward that converts them."""

    def forward(self, x):
        return super().forward(x.to(self.body.weight.dtype).flatten(1).div_(255))

    def step(self, x, y):
        return F.cross_entropy(self(x), y)


class Segments(Parts):
    """Converts images, and the masks of bytes that it predicts."""

    def step(self, x, mask):
        z = self.head(self.act(self.body(x.double() / 255)))
        return F.binary_cross_entropy_with_logits(z, mask.double())


class Object:
    """What a layer puts out that is no tensor, but holds its distribution."""

    def __init__(self, logits):
        self.predictive = torch.distributions.Categorical(logits=logits)

    def loss(self, y):
        return -self.predictive.log_prob(y).mean()


class Variational(Parts):
    class Last(nn.Linear):
        def forward(self, h):
            return Object(super().forward(h))

    def __init__(self):
        super().__init__()
        self.head = self.Last(6, 5)

    def step(self, x, y):
        return self.head(self.act(self.body(x))).loss(y)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:You called .self.log")
@pytest.mark.parametrize("module", [Parts, Posterior, OfNumbers, Variational])
def test_a_module_without_a_forward_is_mixed_exactly_where_auto_says(module):
    x, y = batches()[0]
    y = y.double() if module is OfNumbers else y
    assert_naive(module(), [x.double(), y], lambda batch: [batch[1]], steps=12)


def bytes_like(*shape, below=256):
    return torch.randint(below, shape, dtype=torch.uint8)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:You called .self.log")
@pytest.mark.parametrize(
    ("module", "batch"),
    [
        (Siamese, lambda: [[torch.randn(6, 4), torch.randn(6, 4)], batches()[0][1]]),
        (OfBytes, lambda: [bytes_like(6, 1, 2, 2), batches()[0][1]]),
        (OfFloats, lambda: [bytes_like(6, 1, 2, 2), batches()[0][1]]),
        (InForward, lambda: [bytes_like(6, 1, 2, 2), batches()[0][1]]),
        (Segments, lambda: [bytes_like(6, 2, 3, 4), bytes_like(6, 2, 3, 5, below=2)]),
    ],
)
def test_views_and_images_of_bytes_are_mixed_exactly_by_default(module, batch):
    assert_naive(module(), batch(), lambda batch: [batch[1]], steps=12)


@pytest.mark.parametrize(
    ("module", "layers"),
    [
        (Parts, ["input", "act"]),
        (Posterior, ["input", "act"]),
        (OfNumbers, ["input", "act"]),
        (Variational, ["input", "act"]),
    ],
)
def test_auto_takes_the_cuts_that_a_training_step_shows(module, layers):
    x, y = batches()[0]
    callback = ManifoldMixup()
    fit(module(), callback, data=[(x, y.float() if module is OfNumbers else y)])
    assert callback.layers_ == layers


REFUSED = "so it can't be mixed exactly"


@pytest.mark.parametrize(
    ("module", "layer", "message"),
    [
        (
            Posterior,
            "posterior",
            f"layer 'posterior' depends on the target, which the network takes, {REFUSED}; mix "
            "'act' before it instead",
        ),
        (
            Recurrent,
            "act",
            f"layer 'act' runs 2 times, one after the other, {REFUSED}; mix 'turn' before it "
            "instead; verify=False turns this test off",
        ),
        (
            Variational,
            "head",
            f"layer 'head' puts out an object of class Object, no tensor, {REFUSED}; mix 'act' "
            "before it instead",
        ),
    ],
)
def test_a_layer_that_is_no_cut_of_a_training_step_is_refused(module, layer, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(module(), ManifoldMixup(layers=[layer]))


def test_a_layer_whose_rows_are_sorted_in_a_training_step_is_refused():
    class Sorts(Parts):
        def step(self, x, y):
            order = x[:, 0].argsort()
            return F.cross_entropy(self.head(self.act(self.body(x[order]))), y[order])

    message = (
        f"layer 'body' has its rows in another order than the batch, {REFUSED}; if forward sorts "
        "the batch, do that in on_after_batch_transfer; mix 'input' before it instead"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Sorts(), ManifoldMixup(layers=["body"]))


def test_nothing_stays_of_a_step_that_was_only_probed(capsys):
    class Untidy(Parts):
        def step(self, x, y):
            self.seen.append(float(x.sum()))
            self.count += 1
            self.calls += 1
            print("a step")  # noqa: T201 - not heard
            return super().step(x, y) + 0 * torch.rand(())

    module, plain = Untidy(), Untidy()
    torch.manual_seed(2)
    fit(module, ManifoldMixup(layers=["input", "act"]))
    after = torch.rand(3)
    torch.manual_seed(2)
    fit(plain, ManifoldMixup(layers=["input", "act"], verify=False))
    assert (module.count, len(module.seen), float(module.calls)) == (1, 1, 1.0)
    torch.testing.assert_close(module.state_dict(), plain.state_dict(), atol=0, rtol=0)
    assert capsys.readouterr().out.count("a step") == 2
    assert torch.equal(after, torch.rand(3))


def test_a_module_that_optimises_by_hand_is_asked_for_names():
    class ByHand(Parts):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

    message = (
        "layers=\"auto\" can't choose, since ByHand has no forward, and its training step can't be "
        "run as a test, since it uses manual optimization (automatic_optimization=False); losses "
        "without labels, as a GAN's, can't be mixed; name the layers, as in layers=[\"body\"]"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(ByHand(), ManifoldMixup())


def test_the_layers_of_a_module_without_a_forward_are_listed():
    module, trained = Parts(), trainer()
    module.trainer = trained
    sites, chosen = survey(TrainerHost(trained, module), module, batches()[0], None, None)
    assert chosen == ["input", "act"]
    assert [name for name, site in sites.items() if site.is_cut] == ["input", "body", "act", "head"]
