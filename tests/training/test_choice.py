"""Which layers a fit mixes: by themselves or by name, and verified on its first batch."""

import re
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from clients import Wrapped, assert_naive
from fitting import Net, batches, fit, loader, trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from lightning_mmix import ManifoldMixup
from lightning_mmix.engine.choice import Choice, choose_layers
from lightning_mmix.engine.settings import Settings
from lightning_mmix.training.host import TrainerHost


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Linear(8, 8)

    def forward(self, h):
        return h + self.conv(h).relu()


class Stages(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(Block(), Block()) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.layer3(self.layer2(self.layer1(self.stem(x)))))


class Residual(Net):
    """Counts its forward passes."""

    def __init__(self):
        super().__init__()
        self.net = Stages()

    def forward(self, x):
        type(self).count += 1
        return self.net(x)

    def on_after_backward(self):
        pass

    count = 0


def forwards(module, *callbacks, **kwargs):
    type(module).count = 0
    fit(module, *callbacks, **kwargs)
    return type(module).count


def test_auto_mixes_the_input_and_two_stages_of_an_unedited_module():
    callback = ManifoldMixup(stop=1.0)
    fit(Residual(), callback, data=batches(20))
    assert callback.layers_ == ["input", "net.layer1", "net.layer2"]
    assert callback.plan.layer in callback.layers_


def test_the_test_costs_three_forward_passes_in_a_fit():
    data = batches(3)
    assert forwards(Residual(), data=data) == 3
    assert forwards(Residual(), ManifoldMixup(), data=data) == 6
    named = ManifoldMixup(layers=["net.layer*", "net.stem"])
    assert forwards(Residual(), named, data=data) == 6
    assert forwards(Residual(), ManifoldMixup(layers=["net.stem"], verify=False), data=data) == 3


def test_named_layers_stand_in_the_order_of_the_forward_pass_with_their_weights():
    callback = ManifoldMixup(layers={"net.layer3": 1.0, "net.layer[12]": 2.0, "input": 3.0})
    fit(Residual(), callback)
    assert callback.layers_ == ["input", "net.layer1", "net.layer2", "net.layer3"]
    assert callback.state_dict()["choice"]["weights"] == {
        "input": 3.0, "net.layer1": 2.0, "net.layer2": 2.0, "net.layer3": 1.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            ["net.layr2"],
            "there is no layer 'net.layr2'; did you mean 'net.layer2' or 'net.layer3' or "
            "'net.layer1'?",
        ),
        (
            ["net.stage*"],
            "no layer matches 'net.stage*'; did you mean 'net.stem' or 'net.layer*'?",
        ),
        (
            ["input", "net.layer2.1.conv"],
            "layer 'net.layer2.1.conv' is bypassed, so it can't be mixed exactly; mix "
            "'net.layer2.0' before or 'net.layer2.1' after it instead; verify=False turns this "
            "test off",
        ),
        (
            ["net.layer1.*.conv"],
            "layer 'net.layer1.0.conv' is bypassed, so it can't be mixed exactly; mix 'net.stem' "
            "before or 'net.layer1.0' after it instead; "
            "verify=False turns this test off",
        ),
        (
            ["unused"],
            "layer 'unused' never runs in forward, so nothing would be mixed there; name one that "
            "does, as 'net.stem' or 'net.layer3'; verify=False is for one that the training step "
            "runs",
        ),
    ],
)
def test_what_can_not_be_mixed_is_refused_and_nothing_is_left(layers, message):
    module, data = Residual(), batches(2)
    module.unused = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(module, ManifoldMixup(layers=layers), data=data)
    torch.testing.assert_close(module.state_dict(), before, atol=0, rtol=0)
    assert not any(m._forward_hooks for m in module.modules())
    assert all(module.training for module in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert {"log", "log_dict"}.isdisjoint(vars(module))
    fit(module, ManifoldMixup(), data=data)


def test_verifying_changes_no_weight():
    def weights(verify):
        L.seed_everything(1, verbose=False)
        module = Residual()
        module.net.layer2.append(nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)))
        fit(module, ManifoldMixup(layers=["input", "net.layer*"], verify=verify), data=batches(5))
        return module.state_dict()

    torch.testing.assert_close(weights(verify=True), weights(verify=False), atol=0, rtol=0)


def test_verify_false_mixes_a_branch_all_the_same():
    callback = ManifoldMixup(layers=["net.layer1.0.conv"], verify=False)
    fit(Residual(), callback)
    assert callback.layers_ == ["net.layer1.0.conv"]


class WithoutForward(L.LightningModule):
    """Its training step asks for what no probe has."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 5)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.head(self.body(x)), y)
        return loss if self.training else {}["of evaluation\n, and more of it"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


LINE = WithoutForward.training_step.__code__.co_firstlineno + 3
NO_FORWARD = (
    "WithoutForward has no forward, and its training step can't be tested "
    f"(KeyError at test_choice.py:{LINE}: 'of evaluation\\n, and more of it')"
)


def test_what_can_not_be_run_at_all_is_asked_for_names():
    message = (
        f'layers="auto" can\'t choose, since {NO_FORWARD}; name the layers, as in layers=["body"]'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(WithoutForward(), ManifoldMixup())


def test_what_can_not_be_run_at_all_is_mixed_at_named_layers_with_a_warning():
    callback = ManifoldMixup(layers=["body"])
    message = (
        f"it can't be tested if all of the signal passes through 'body', since {NO_FORWARD}; they "
        "are mixed all the same, and verify=False hides this warning"
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        fit(WithoutForward(), callback)
    assert callback.layers_ == ["body"]
    assert callback.plan.layer == "body"


def test_a_module_that_only_wraps_a_network_is_probed_there():
    class Wraps(Net):
        forward = L.LightningModule.forward

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]), batch[1])

    callback, module = ManifoldMixup(), Wraps()
    module.net = Stages()
    module.on_after_backward = lambda: None
    fit(module, callback)
    assert callback.layers_ == ["input", "net.layer1", "net.layer2"]


def test_sharded_parameters_are_not_probed():
    module = Net()
    host = TrainerHost(SimpleNamespace(strategy=FSDPStrategy(), global_rank=0), module)
    batch = batches()[0]
    with pytest.raises(ValueError, match="can't choose, since parameters are sharded"):
        choose_layers(host, module, batch, [batch[1]], Settings())
    with pytest.warns(UserWarning, match="passes through 'net.0', since parameters are sharded"):
        choice = choose_layers(host, module, batch, [batch[1]], Settings(layers=["net.0"]))
    assert choice.weights == {"net.0": 1.0}


class Tokens(Net):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(9, 4)

    def forward(self, ids):
        return self.net((self.emb(ids) * (ids > 0)[..., None]).mean(1))


def test_the_embedding_stands_in_for_an_integer_input():
    ids = torch.randint(9, (6, 3), generator=torch.Generator().manual_seed(1))
    callback = ManifoldMixup()
    fit(Tokens(), callback, data=[(ids, batches()[0][1])])
    assert callback.layers_ == ["emb", "net.1"]


def test_an_input_of_which_the_place_is_not_known_is_not_mixed_by_auto():
    x, y = batches()[0]
    callback = ManifoldMixup()
    fit(Dictionary(), callback, data=[{"grid": x, "label": y}])
    assert callback.layers_ == ["net.1"]


class Sorts(Net):
    """Sorts its batch by length, packs it, and puts the outputs back in order."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(9, 4), nn.LSTM(4, 3, batch_first=True)
        self.head = nn.Linear(3, 5)

    def forward(self, x, lengths):
        lengths, order = lengths.sort(descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(x[order]), lengths, batch_first=True)
        return self.head(self.rnn(packed)[1][0][-1])[order.argsort()]

    def training_step(self, batch, batch_idx):
        x, lengths, y = batch
        return F.cross_entropy(self(x, lengths), y)

    def on_after_backward(self):
        pass


def test_layers_behind_a_sort_by_length_are_refused():
    lengths = torch.tensor([2, 5, 3, 7, 4, 6])
    ids = torch.randint(1, 9, (6, 7)) * (torch.arange(7) < lengths[:, None])
    data = [[ids, lengths, batches()[0][1]]]
    with pytest.raises(ValueError, match='layers="auto" found no layer through which all'):
        fit(Sorts(), ManifoldMixup(target=2), data=data)
    message = (
        "layer 'embed' has its rows in another order than the batch, so it can't be mixed exactly; "
        "if forward sorts the batch, do that in on_after_batch_transfer; there is none to mix "
        "before or after it"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Sorts(), ManifoldMixup(layers=["embed"], target=2), data=data)


class Dictionary(Net):
    def forward(self, grid):
        return self.net(grid)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["grid"]), batch["label"])

    def on_after_backward(self):
        pass


def test_a_network_without_a_cut_is_told():
    class Skips(Dictionary):
        def forward(self, grid):
            h = self.net[0](grid)
            return h[:, :5] + self.net[2](self.net[1](h))

    class Nothing(Dictionary):
        def forward(self, grid):
            return self.net(grid)[:, :4] + grid

    x, y = batches()[0]
    data = [{"grid": x, "label": y % 4}]
    callback = ManifoldMixup()
    fit(Skips(), callback, data=data)
    assert callback.layers_ == ["net.0"]
    with pytest.raises(ValueError, match='layers="auto" found no layer through which all'):
        fit(Nothing(), ManifoldMixup(), data=data)


def test_a_batch_of_one_is_not_probed():
    callback = ManifoldMixup()
    data = [batches(size=1)[0], *batches(2)]
    with pytest.warns(UserWarning, match="no batch had two samples, so nothing was mixed"):
        fit(Residual(), callback, data=data[:1])
    assert callback.layers_ is None
    fit(Residual(), callback, data=data)
    assert callback.layers_ == ["input", "net.layer1", "net.layer2"]


def test_nothing_is_logged_by_the_probe():
    logged = []

    class Logs(Residual):
        def log(self, name, value, **kwargs):
            logged.append((name, value))
            super().log(name, value, **kwargs)

        def forward(self, x):
            self.log("rows", float(len(x)))
            self.log_dict({"more": 1.0})
            return super().forward(x)

    fit(Logs(), ManifoldMixup(), data=batches(2, size=9))
    assert logged == [("rows", 9.0), ("more", 1.0)] * 2


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_it_verifies_in_the_precision_of_the_trainer(precision):
    class Turned(Residual):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return super().forward(self.scale * x @ torch.eye(4))

    callback = ManifoldMixup(layers=["input", "net.layer*"])
    fit(Turned(), callback, precision=precision)
    assert callback.layers_ == ["input", "net.layer1", "net.layer2", "net.layer3"]


def checkpointed(path, callback):
    trained = trainer(callback)
    trained.fit(Residual(), loader(batches(2)))
    trained.save_checkpoint(path)
    return torch.load(path, weights_only=True)["callbacks"]["ManifoldMixup"]["choice"]


def test_a_resumed_fit_does_not_probe_again(tmp_path, capsys):
    path = tmp_path / "last.ckpt"
    assert checkpointed(path, ManifoldMixup())["asked"] == "auto"
    resumed, Residual.count = ManifoldMixup(), 0
    again = trainer(resumed, max_epochs=2, enable_model_summary=True)
    again.fit(Residual(), loader(batches(2)), ckpt_path=path)
    assert Residual.count == 2
    assert resumed.layers_ == ["input", "net.layer1", "net.layer2"]
    assert re.search(r"net.layer2 .*\(B, 8\) .* 6\d%", capsys.readouterr().out)


def test_the_fit_after_a_resumed_one_probes_again(tmp_path):
    path = tmp_path / "last.ckpt"
    checkpointed(path, ManifoldMixup())
    resumed = ManifoldMixup()
    trainer(resumed, max_epochs=2).fit(Residual(), loader(batches(2)), ckpt_path=path)
    assert forwards(Residual(), resumed) == forwards(Residual(), ManifoldMixup())


def test_a_resumed_fit_that_asks_for_other_layers_probes_again(tmp_path):
    path = tmp_path / "last.ckpt"
    checkpointed(path, ManifoldMixup())
    resumed = ManifoldMixup(layers=["net.layer3"])
    trainer(resumed, max_epochs=2).fit(Residual(), loader(batches(2)), ckpt_path=path)
    assert resumed.layers_ == ["net.layer3"]


def test_what_was_not_verified_does_not_count_as_tested(tmp_path):
    path = tmp_path / "last.ckpt"
    checkpointed(path, ManifoldMixup(layers=["net.layer1.0.conv"], verify=False))
    resumed = ManifoldMixup(layers=["net.layer1.0.conv"])
    with pytest.raises(ValueError, match=r"'net.layer1.0.conv' is bypassed"):
        trainer(resumed, max_epochs=2).fit(Residual(), loader(batches(2)), ckpt_path=path)


def test_what_is_suggested_holds_by_value_too():
    class Hidden(Residual):
        def forward(self, x):
            h = self.net.layer1(self.net.stem(x))
            return self.net.head(self.net.layer3(self.net.layer2(h)) + h.detach())

    message = "conv' is bypassed, .*; mix 'net.layer1' before it instead; verify=False"
    with pytest.raises(ValueError, match=message):
        fit(Hidden(), ManifoldMixup(layers=["net.layer2.0.conv"]))


def test_a_choice_fits_the_same_question_about_a_model_with_its_layers(tmp_path):
    choice = Choice.of_state(checkpointed(tmp_path / "last.ckpt", ManifoldMixup()))
    assert choice.fits(Settings(), Residual())
    assert not choice.fits(Settings(layers=["input", "net.layer1", "net.layer2"]), Residual())
    assert not choice.fits(Settings(), Net())
    assert not choice.fits(Settings(kind="cutmix"), Residual())  # whose layers have no space


def test_a_second_fit_with_another_model_chooses_anew():
    callback = ManifoldMixup()
    assert forwards(Residual(), callback) == forwards(Residual(), callback) == 4
    fit(Net(), callback)
    assert callback.layers_ == ["input", "net.1"]


class Repeats(Net):
    """Runs each sample four times, as an ensemble in one network does."""

    def forward(self, x):
        return self.net(x.repeat(4, 1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1].repeat(4))

    def on_after_backward(self):
        pass


def test_a_forward_that_repeats_the_batch_is_mixed_at_its_input(float64):
    x, y = batches()[0]
    assert_naive(Repeats(), [x.double(), y], lambda batch: [batch[1]], steps=2)
    callback = ManifoldMixup()
    fit(Repeats(), callback)
    assert callback.layers_ == ["input"]


@pytest.mark.parametrize("repeats", [True, False])
def test_a_layer_that_repeats_the_batch_is_refused(repeats):
    class Interleaves(Repeats):
        def forward(self, x):
            return self.net(x.repeat_interleave(4, 0))

    message = (
        "layer 'net.0' puts out 4 rows for each sample, so it can't be mixed exactly; mix 'input' "
        "before it instead"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Repeats() if repeats else Interleaves(), ManifoldMixup(layers=["net.0"]))


class Gaussian(Net):
    def __init__(self, make=torch.distributions.Normal):
        super().__init__()
        self.make = make

    def forward(self, x):
        h = self.net(x)
        return self.make(h[:, :1], h[:, 1:2].exp())

    def training_step(self, batch, batch_idx):
        return -self(batch[0]).log_prob(batch[1][:, None]).mean()

    def on_after_backward(self):
        pass


class Latent:
    """A distribution that keeps itself, and its parts under names of its own."""

    def __init__(self, mean, scale):
        self._base, self.itself = {"kept": [torch.distributions.Normal(mean, scale)]}, self

    def log_prob(self, y):
        return self._base["kept"][0].log_prob(y)


def mixture(mean, scale):
    both = torch.distributions.Normal(mean.expand(-1, 2), torch.cat([scale, 2 * scale], 1))
    weights = torch.distributions.Categorical(logits=torch.cat([mean, scale], 1))
    return torch.distributions.MixtureSameFamily(weights, both)


def several(mean, scale):
    independent = torch.distributions.Independent(torch.distributions.Normal(mean, scale), 1)
    assert independent.event_shape == (1,)
    return torch.distributions.MultivariateNormal(mean, scale_tril=scale[..., None])


@pytest.mark.parametrize("make", [torch.distributions.Normal, Latent, mixture, several])
def test_a_forward_may_return_a_distribution(float64, make):
    y = torch.linspace(-1, 1, 6)[:, None]
    if make is mixture:
        y = y[:, 0]
    module = Gaussian(make)
    module.training_step = lambda batch, batch_idx: -module(batch[0]).log_prob(batch[1]).mean()
    callback = ManifoldMixup()
    fit(module, callback, data=[[batches()[0][0].double(), y]])
    assert callback.layers_ == ["input", "net.1"]


def test_a_layer_that_puts_out_a_distribution_is_none_to_mix():
    class Last(nn.Module):
        def forward(self, h):
            return torch.distributions.Categorical(logits=h)

    class Classifies(Net):
        def __init__(self):
            super().__init__()
            self.last = Last()

        def forward(self, x):
            return self.last(self.net(x))

    message = (
        "layer 'last' puts out an object of class Categorical, no tensor, so it can't be mixed "
        "exactly; mix 'net.1' before it instead"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Classifies(), ManifoldMixup(layers=["last"]))


class Beside(Net):
    """Takes a second entry of its batch, and more layers."""

    def __init__(self):
        super().__init__()
        self.first, self.skip, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x, observed):
        x = x * observed
        return self.last(self.first(x) + self.skip(x))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["x"], batch["observed"]), batch["label"])

    def on_after_backward(self):
        pass


def observed(values):
    x, y = batches()[0]
    return [{"x": x, "observed": values, "label": y}]


BYPASSED = "so it can't be mixed exactly"
MASK = (torch.arange(24).view(6, 4) % 5 > 0).float()


@pytest.mark.parametrize(
    ("values", "layer", "message"),
    [
        (
            MASK,
            "input",
            f"layer 'input' is bypassed by entry 'observed' of the batch, {BYPASSED}; "
            "floating-point entries count as signal, and a mask that is given as bool does not; "
            "there is none to mix before or after it; verify=False turns this test off",
        ),
        (
            MASK + 1,
            "input",
            f"layer 'input' is bypassed by entry 'observed' of the batch, {BYPASSED}; "
            "there is none to mix before or after it; verify=False turns this test off",
        ),
        (
            MASK > 0,
            "first",
            f"layer 'first' is bypassed by layer 'skip', {BYPASSED}; mix 'input' before it "
            "instead; verify=False turns this test off",
        ),
    ],
)
def test_it_is_told_by_what_a_layer_is_bypassed(values, layer, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Beside(), ManifoldMixup(layers=[layer]), data=observed(values))


def test_a_reason_that_all_layers_share_is_told_by_auto():
    class Scales(Beside):
        def forward(self, x, observed):
            return self.last(self.first(x)) * observed[:, :1]

    message = (
        "layers=\"auto\" found no layer to mix, since each is bypassed by entry 'observed' of the "
        "batch; floating-point entries count as signal, and a mask that is given as bool does not"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Scales(), ManifoldMixup(), data=observed(MASK))


class Recurrent(Net):
    """Takes time first, and turns it or not."""

    turns = False

    def __init__(self):
        super().__init__()
        self.embed, self.attend = nn.Linear(4, 6), nn.TransformerEncoderLayer(6, 2, 8, dropout=0)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        h = self.attend(self.embed(x.transpose(0, 1) if self.turns else x))
        return self.head(h).mean(0)

    def on_after_backward(self):
        pass


TURN = "give the network the batch first (batch_first=True, or transpose in a module of its own)"


TURN_BATCH = (
    "transpose the batch in on_after_batch_transfer, targets that have time first as well, and "
    "have the network take it so (batch_first=True)"
)


def test_a_layer_with_time_first_is_told_to_turn():
    class Turns(Recurrent):
        turns = True

    data = [(torch.randn(6, 7, 4), batches()[0][1])]
    message = (
        f"layer 'attend' is not batch-first: (7, 5, 6) of 5 samples, {BYPASSED}; {TURN}; mix "
        "'input' before it instead"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Turns(), ManifoldMixup(layers=["attend"]), data=data)


@pytest.mark.parametrize("layers", ["auto", ["input"]])
def test_a_batch_with_time_first_is_told_once(layers):
    data = [(torch.randn(7, 6, 4), batches()[0][1])]
    reason = "since the input is not batch-first: (7, 6, 4) of 6 samples"
    of_auto = f'layers="auto" found no layer to mix, {reason}; {TURN_BATCH}'
    named = (
        f"layer 'input' is not batch-first: (7, 6, 4) of 6 samples, {BYPASSED}; {TURN}; there is "
        "none to mix before or after it"
    )
    message = of_auto if layers == "auto" else named
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Recurrent(), ManifoldMixup(layers=layers), data=data)


def test_of_a_container_that_never_runs_itself_its_own_layers_are_named():
    class InALoop(Residual):
        def forward(self, x):
            h = self.net.stem(x)
            for stage in self.net.layer1, self.net.layer2, self.net.layer3:
                for block in stage:
                    h = block(h)
            return self.net.head(h)

    message = (
        "layer 'net.layer2' never runs in forward, so nothing would be mixed there; of what it "
        "holds, 'net.layer2.0' or 'net.layer2.1' can be mixed; verify=False is for one that the "
        "training step runs"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(InALoop(), ManifoldMixup(layers=["net.layer2"]))


def test_an_input_that_has_other_rows_than_the_targets_is_left_out_by_auto():
    class Nodes(Net):
        def forward(self, x, graph):
            sums = torch.zeros(int(graph.max()) + 1, 6).index_add(0, graph, self.net[0](x))
            return self.net[2](self.net[1](sums))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch["x"], batch["graph"]), batch["y"])

        def on_after_backward(self):
            pass

    batch = {"x": torch.randn(17, 4), "graph": torch.arange(17) % 6, "y": batches()[0][1]}
    callback = ManifoldMixup()
    fit(Nodes(), callback, data=[batch])
    assert callback.layers_ == ["net.1"]
    message = (
        f"layer 'input' is not batch-first: (17, 4) of 6 samples, {BYPASSED}; mix 'net.1' after it"
        " instead"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(Nodes(), ManifoldMixup(layers=["input"]), data=[batch])


def translator(kind):
    hf = pytest.importorskip("transformers")
    ends = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    if kind == "T5":
        sizes = {"d_kv": 6, "d_ff": 20, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}
        config = hf.T5Config(vocab_size=31, d_model=12, **sizes, **ends)
        return Wrapped(hf.T5ForConditionalGeneration(config))
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 3}
    sizes = {"encoder_ffn_dim": 20, "decoder_ffn_dim": 20, "decoder_layers": 2}
    more = {"max_position_embeddings": 16, "bos_token_id": 1, "d_model": 12, "vocab_size": 31}
    return Wrapped(hf.BartForConditionalGeneration(hf.BartConfig(**heads, **sizes, **more, **ends)))


def translations():
    ids = torch.arange(42).view(6, 7) * 5 % 28 + 3
    attended = (torch.arange(7) < torch.arange(6)[:, None] + 2).long()
    labels = torch.arange(24).view(6, 4) * 5 % 28 + 3
    return {"input_ids": ids, "attention_mask": attended, "labels": labels}


ENCODERS = {
    "T5": ("model.encoder", "embed_tokens", "block.1", "final_layer_norm"),
    "BART": ("model.model.encoder", "layernorm_embedding", "layers.1", "layers.2"),
}


@pytest.mark.filterwarnings("ignore:You called .self.log")
@pytest.mark.parametrize("kind", ENCODERS)
def test_of_a_network_that_takes_its_labels_the_encoder_is_mixed(float64, kind):
    if kind == "T5":  # earlier its decoder shares the encoder's embedding
        pytest.importorskip("transformers", "5")
    encoder, first, *others = ENCODERS[kind]
    callback = ManifoldMixup()
    module = translator(kind)
    fit(module, callback, data=[translations()])
    assert callback.layers_ == [f"{encoder}.{first}", encoder]
    layers = [f"{encoder}.{name}" for name in (first, *others)]
    # its loss is in float32
    assert_naive(
        translator(kind), translations(), lambda b: [b["labels"]], 12, atol=1e-6, layers=layers
    )


@pytest.mark.filterwarnings("ignore:You called .self.log")
def test_of_a_network_that_takes_its_labels_the_decoder_is_refused():
    message = (
        "layer 'model.decoder.block.0' depends on the target, which the network takes, so it can't"
        " be mixed exactly; mix 'model.encoder' before it instead"
    )
    module = translator("T5")
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit(module, ManifoldMixup(layers=["model.decoder.block.0"]), data=[translations()])


def test_numbers_that_are_targets_are_no_signal():
    class OfNoise(Net):
        def forward(self, x, target):
            return self.net[2](self.net[1](self.net[0](x)) + target)

        def training_step(self, batch, batch_idx):
            return (self(**batch) - batch["target"]).square().mean()

        def on_after_backward(self):
            pass

    x, _ = batches()[0]
    callback = ManifoldMixup()
    fit(OfNoise(), callback, data=[{"x": x, "target": torch.randn(6, 1)}])
    assert callback.layers_ == ["input", "net.1"]


def test_foreign_errors_are_cut_short():
    class Fails(WithoutForward):
        def forward(self, *tensors):
            raise RuntimeError("x" * 300 + "\n second line")

    with pytest.raises(ValueError, match=r"RuntimeError at \w+.py:\d+: x+\.\.\.\)") as caught:
        fit(Fails(), ManifoldMixup())
    assert len(str(caught.value)) < 400


def test_a_copy_of_the_input_as_the_target_is_no_view():
    class Autoencoder(Net):
        def training_step(self, batch, batch_idx):
            return (self.net[0](batch[0]).mean(1) - batch[1].mean(1)).square().mean()

        def on_after_backward(self):
            pass

    x, _ = batches()[0]
    callback = ManifoldMixup(layers=["input"], target=1)
    fit(Autoencoder(), callback, data=[(x, x.clone())])
    assert callback.layers_ == ["input"]
