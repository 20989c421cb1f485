"""Layers that can't be mixed exactly, as the test on the first batch shows."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from fitting import Net, fit
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from lightning_mmix import ManifoldMixup, cut_test
from lightning_mmix.engine.choice import choose_layers
from lightning_mmix.engine.settings import Settings
from lightning_mmix.training.host import TrainerHost
from refusals.table import X, Y, row

NO_CUT = "so it can't be mixed exactly"
OFF = "verify=False turns this test off"
NOTHING = "so nothing would be mixed there"
STEP = "verify=False is for one that the training step runs"


class Forward(Net):
    """A module with a forward pass and layers of one's own."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.way = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *args, **kwargs):
        return self.way(self, *args, **kwargs)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(*batch[:-1]), batch[-1])


def named(module, layer, batch=(X, Y), **kwargs):
    fit(module, ManifoldMixup(layers=[layer], **kwargs), data=[batch])


def chosen(module, batch=(X, Y), **kwargs):
    fit(module, ManifoldMixup(**kwargs), data=[batch])


@row(
    "layer 'a' is bypassed by layer 'b', so it can't be mixed exactly; mix 'input' before it "
    "instead; verify=False turns this test off",
    "names the layer that is suggested",
)
def another_layer_goes_around():
    layers = {"a": nn.Linear(4, 5), "b": nn.Linear(4, 5)}
    named(Forward(lambda net, x: net.a(x) + net.b(x), **layers), "a")


@row(
    "layer 'a' is bypassed, so it can't be mixed exactly; mix 'input' before it instead; "
    "verify=False turns this test off",
    "names the layer that is suggested",
)
def a_residual_connection_goes_around():
    head = nn.Linear(4, 5)
    named(Forward(lambda net, x: net.head(net.a(x) + x), a=nn.Linear(4, 4), head=head), "a")


@row(
    "layer 'input' is bypassed by entry '1' of the batch, so it can't be mixed exactly; "
    "floating-point entries count as signal, and a mask that is given as bool does not; mix "
    "'net.1' after it instead; verify=False turns this test off",
    "gives the mask as bool",
)
def a_mask_of_numbers_stands_beside_the_input():
    mask = torch.ones(6, 4)
    module = Forward(lambda net, x, mask: net.net(x * mask))
    named(module, "input", (X, mask, Y), target=2, input=0)


@row(
    f"layer 'a' never runs in forward, {NOTHING}; name one that does, as 'net.1' or 'net.0'; "
    f"{STEP}",
    "names a layer that runs",
)
def a_layer_does_not_run():
    named(Forward(lambda net, x: net.net(x), a=nn.Identity()), "a")


@row(
    f"layer 'net' never runs in forward, {NOTHING}; of what it holds, 'net.0' or 'net.1' can be "
    f"mixed; {STEP}",
    "names what is in it",
)
def a_container_does_not_run_itself():
    named(Forward(lambda net, x: net.net[2](net.net[1](net.net[0](x)))), "net")


@row(
    f"layer 'a' runs 2 times, one after the other, {NO_CUT}; mix 'input' before or 'net.0' after "
    f"it instead; {OFF}",
    "names a layer that runs once",
)
def a_layer_runs_twice():
    named(Forward(lambda net, x: net.net(net.a(net.a(x))), a=nn.Linear(4, 4)), "a")


@row(
    "layer 'net.0' puts out 2 rows for each sample, so it can't be mixed exactly; mix 'input' "
    "before it instead",
    "mixes the input",
)
def a_forward_repeats_the_batch():
    def training_step(batch, _):
        return F.cross_entropy(module(batch[0]), batch[1].repeat(2))

    module = Forward(lambda net, x: net.net(x.repeat(2, 1)))
    module.training_step = training_step
    named(module, "net.0")


@row(
    "layer 'a' is not batch-first: (3, 5, 5) of 5 samples, so it can't be mixed exactly; give "
    "the network the batch first (batch_first=True, or transpose in a module of its own); mix "
    "'input' before it instead",
    "transposes",
)
def a_layer_has_time_first():
    def forward(net, x):
        return net.a(x.transpose(0, 1)).transpose(0, 1).mean(1)

    named(Forward(forward, a=nn.Linear(4, 5)), "a", (torch.randn(6, 3, 4), Y))


@row(
    "layer 'a' has its rows in another order than the batch, so it can't be mixed exactly; if "
    "forward sorts the batch, do that in on_after_batch_transfer; mix 'input' before it instead",
    "sorts the batch beforehand",
)
def forward_sorts_the_batch():
    def forward(net, x):
        order = x.sum(1).argsort()
        return net.a(x[order])[order.argsort()]

    named(Forward(forward, a=nn.Linear(4, 5)), "a")


@row(
    "layer 'a' puts out an object of class Normal, no tensor, so it can't be mixed exactly; mix"
    " 'net.1' before it instead",
    "names a layer before it",
)
def a_layer_puts_out_a_distribution():
    class Normal(nn.Module):
        def forward(self, x):
            return torch.distributions.Normal(x, 1.0)

    named(Forward(lambda net, x: net.a(net.net(x)).mean, a=Normal()), "a")


@row(
    "layer 'a' depends on the target, which the network takes, so it can't be mixed exactly; "
    "mix 'net' before it instead",
    "names a layer before the labels come in",
)
def a_layer_takes_the_labels():
    def forward(net, x, target):
        return net.a(net.net(x) + F.one_hot(target, 5))

    def training_step(batch, _):
        return F.cross_entropy(module(**batch), batch["target"])

    module = Forward(forward, a=nn.Linear(5, 5))
    module.training_step = training_step
    named(module, "a", {"x": X, "target": Y})


@row(
    "layer 'a' depends on the target, which the network takes, so it can't be mixed exactly; "
    "say which entry is the target, target=<key, index or path>; if it is the network's input "
    "as well, make them two entries in on_after_batch_transfer, the target a .clone(); else use"
    " ManifoldMixupMixin or mixed_loss; there is none to mix before or after it",
    "gives the batch two entries",
)
def the_input_is_cut_from_the_target():
    def training_step(batch, *_):
        return F.l1_loss(module(batch["temporal"][:, :3]), batch["temporal"][:, 3:])

    module = Forward(lambda net, x: net.head(net.a(x)), a=nn.Linear(3, 5), head=nn.Linear(5, 1))
    module.training_step = training_step
    named(module, "a", {"temporal": X}, target="temporal")


@row(
    'layers="auto" found no layer through which all of the signal passes; `lightning-mmix '
    "layers` shows why of each; no input was recognised, so it was left out: input=<key, index "
    "or path>",
    "looks at `lightning-mmix layers`",
)
def there_is_no_cut():
    def forward(net, x, more):
        return net.head(net.a(x) + net.b(more))

    layers = {"a": nn.Linear(4, 5), "b": nn.Linear(4, 5), "head": nn.Linear(5, 5)}
    chosen(Forward(forward, **layers), (X, X + 1, Y), target=2)


@row(
    'layers="auto" found no layer to mix, since the input is not batch-first: (3, 6, 4) of 6 '
    "samples; transpose the batch in on_after_batch_transfer, targets that have time first as "
    "well, and have the network take it so (batch_first=True)",
    "transposes the batch",
)
def the_input_has_time_first():
    x = torch.randn(3, 6, 4)
    chosen(Forward(lambda net, x: net.a(x).transpose(0, 1).mean(1), a=nn.Linear(4, 5)), (x, Y))


@row(
    "layer 'net.0' can't be mixed: the input has 6 rows, and the target 5; has the target a row "
    "for each sample? Boxes, and sequences laid end to end, are to be padded to (B, ...)",
    "looks for the row that is missing",
)
def the_target_lacks_a_row():
    chosen(Net(), (X, Y[:5]), layers=["net.0"])


@row(
    'layers="auto" found no layer to mix, since the input has 6 rows, and the target 5; has the '
    "target a row for each sample? Boxes, and sequences laid end to end, are to be padded to "
    "(B, ...)",
    "looks for the row that is missing",
)
def the_target_lacks_a_row_for_any_layer():
    chosen(Net(), (X, Y[:5]))


@row(
    "it can't be told if all of the signal passes through 'a' (does forward use detach() or "
    "no_grad?); name another layer, or hide this warning by verify=False",
    "looks for detach() and no_grad in forward",
    UserWarning,
)
def forward_hides_what_it_does():
    def forward(net, x):
        return net.net(torch.rand_like(x) + net.a(x).detach().round().clamp(0, 0))

    named(Forward(forward, a=nn.Linear(4, 4)), "a")


class Fails(Net):
    """A module that can't be run beside the training."""

    begun = False

    def __init__(self):
        super().__init__()
        self.side = nn.Linear(4, 5)

    def on_train_batch_start(self, batch, batch_idx):
        self.begun = True

    def forward(self, x):
        raise RuntimeError("not now\nnor later")

    def training_step(self, batch, batch_idx):
        if not self.begun:
            raise KeyError("not yet")
        return F.cross_entropy(self.net(batch[0]), batch[1])


@row(
    "layers=\"auto\" can't choose, since the forward pass of Fails can't be tested with the batch, "
    "list(0: float32 (6, 4), 1: int64 (6,)) (RuntimeError at {line}: not now), and its training "
    "step can't be tested (KeyError at {line}: 'not yet'); name the layers, as in layers=[\"net\"]",
    "names layers",
)
def nothing_can_be_run_beside_the_training():
    chosen(Fails())


@row(
    "it can't be tested if all of the signal passes through 'net.0', since the forward pass of "
    "Fails can't be tested with the batch, list(0: float32 (6, 4), 1: int64 (6,)) "
    "(RuntimeError at {line}: not now), and its training step can't be tested (KeyError at {line}: "
    "'not yet'); they are mixed all the same, and verify=False hides this warning",
    "checks the layer by `lightning-mmix check`, or sets verify=False",
    UserWarning,
)
def a_layer_is_named_where_nothing_can_be_run():
    named(Fails(), "net.0")


@row(
    "layers=\"auto\" can't choose, since Manual has no forward, and its training step can't be "
    "run as a test, since it uses manual optimization (automatic_optimization=False); losses "
    "without labels, as a GAN's, can't be mixed; name the layers, as in layers=[\"net\"]",
    "names layers",
)
def a_module_without_forward_optimises_by_hand():
    class Manual(Fails):
        automatic_optimization = False
        forward = LightningModule.forward

    chosen(Manual())


@row(
    'layers="auto" can\'t choose, since parameters are sharded, so no forward pass can be run '
    'beside the training; name the layers, as in layers=["net.0"]',
    "names layers",
)
def parameters_are_sharded():
    module, trainer = Net(), SimpleNamespace(strategy=FSDPStrategy())
    choose_layers(TrainerHost(trainer, module), module, (X, Y), [Y], Settings())


@row(
    "expected inputs of at least two samples, but got float32 (1, 4)",
    "gives it a larger batch",
)
def a_single_sample_is_tested_for_cuts():
    cut_test(nn.Linear(4, 5), X[:1])


@row("Identity puts out no floating-point tensor", "gives it what its forward takes")
def a_network_without_numbers_is_tested_for_cuts():
    cut_test(nn.Identity(), Y)
