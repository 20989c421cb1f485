import copy
import pickle

import lightning.pytorch as L
import losses
import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, Steps, batches, fit, loader, trainer
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_mmix import ManifoldMixup
from lightning_mmix.core.plan import Recipe, draw
from lightning_mmix.pairing.arguments import is_paired


def assert_exact(module, callback, batch, untouched):
    loss, grads = naive.step(untouched, callback.plan, batch)
    torch.testing.assert_close(module.loss.detach(), loss.detach(), atol=1e-10, rtol=0)
    torch.testing.assert_close(module.grads, list(grads), atol=1e-10, rtol=0)


@pytest.mark.parametrize("layer", ["net.0", "input"])
@pytest.mark.parametrize("name", losses.LOSSES)
def test_an_unedited_module_gets_the_naive_loss_and_gradients(float64, name, layer):
    module = Net(copy.deepcopy(losses.LOSSES[name]))
    untouched, callback = copy.deepcopy(module), ManifoldMixup(layers=[layer], stop=1.0)
    data = batches()
    fit(module, callback, data=data)
    assert callback.plan.lam < 1
    assert_exact(module, callback, data[0], untouched)


def test_the_rank_goes_into_the_plan(monkeypatch):
    monkeypatch.setattr(L.Trainer, "global_rank", 3)
    callback = ManifoldMixup(layers=["net.0"], seed=1, stop=1.0)
    fit(Net(), callback)
    assert callback.plan.lam == draw(Recipe(1.0, {"net.0": 1.0}), 6, seed=1, rank=3).lam


def test_the_logged_loss_is_the_one_that_was_trained_on(float64):
    class Logs(Net):
        def __init__(self):
            super().__init__()
            self.mean = MeanMetric()

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss, on_step=True, on_epoch=True)
            self.log("mean", self.mean(loss))
            return loss

    module, callback, data = Logs(), ManifoldMixup(layers=["net.0"], stop=1.0), batches()
    expected = naive.step(copy.deepcopy(module), callback.plan or _first_plan(), data[0])[0]
    trained = trainer(callback)
    trained.fit(module, loader(data))
    for name in ("loss_step", "loss_epoch", "mean"):
        assert trained.callback_metrics[name] == pytest.approx(expected.item(), rel=1e-6)


def _first_plan():
    return draw(Recipe(1.0, {"net.0": 1.0}), 6, seed=0)


def test_class_counts_in_a_buffer_stay_ordinary_and_count_the_dominant_labels(float64):
    mixed, plain = Net(losses.WithBuffer()), Net(losses.WithBuffer())
    fit(mixed, ManifoldMixup(layers=["net.0"], stop=1.0))
    fit(plain)
    assert type(mixed.criterion.counts) is torch.Tensor
    assert torch.equal(mixed.criterion.counts, plain.criterion.counts)


def test_several_targets_are_all_paired(float64):
    class TwoTasks(Net):
        def training_step(self, batch, batch_idx):
            z = self(batch["x"])
            self.loss = F.cross_entropy(z, batch["a"]) * F.mse_loss(z[:, 0], batch["b"])
            return self.loss

    module, ((x, y),) = TwoTasks(), batches()
    untouched, callback = (
        copy.deepcopy(module),
        ManifoldMixup(layers=["net.1"], target=["a", "b"], stop=1.0),
    )
    values = torch.randn(6)
    fit(module, callback, data=[{"x": x, "a": y, "b": values}])
    plan, modules = callback.plan, dict(untouched.named_modules())

    def run(rows):
        z = untouched(x)
        return F.cross_entropy(z, y[rows]) * F.mse_loss(z[:, 0], values[rows])

    loss = naive.two_pass(run, plan, modules, torch.arange(6))
    torch.testing.assert_close(module.loss, loss.detach(), atol=1e-10, rtol=0)


def test_rows_are_cut_at_their_own_and_at_their_partners_length(float64):
    class Rows(Net):
        def training_step(self, batch, batch_idx):
            self.loss = loss_of(self(batch["x"]), batch["a"], batch["n"])
            return self.loss

    def loss_of(z, values, lengths):
        rows = [row[:n] for row, n in zip(values, lengths, strict=True)]
        return (z.sum() - torch.cat(rows)).square().sum() + F.mse_loss(z[0, 0], values[0, 0])

    module, ((x, _),) = Rows(), batches()
    values, lengths = torch.randn(6, 5), torch.arange(6) % 5 + 1
    untouched, callback = (
        copy.deepcopy(module),
        ManifoldMixup(layers=["net.1"], target=["a", "n"], stop=1.0),
    )
    fit(module, callback, data=[{"x": x, "a": values, "n": lengths}])
    modules = dict(untouched.named_modules())
    run = lambda rows: loss_of(untouched(x), values[rows], lengths[rows])  # noqa: E731
    loss = naive.two_pass(run, callback.plan, modules, torch.arange(6))
    torch.testing.assert_close(module.loss, loss.detach(), atol=1e-10, rtol=0)


def test_a_mapping_for_each_sample_is_no_target():
    data = [(X, [{"labels": torch.arange(6)}] * 6)]
    message = r"expected targets of shape \(B, ...\), but got a list of 6 dict, one for each sample"
    with pytest.raises(TypeError, match=message):
        fit(Net(), ManifoldMixup(layers=["net.0"], target=1, stop=1.0), data=data)


def test_evaluation_is_bit_identical_with_and_without(float64):
    class Watched(Net):
        def __init__(self):
            super().__init__()
            self.seen = []

        def validation_step(self, batch, batch_idx):
            self.seen.append(self.criterion(self(batch[0]), batch[1]))

        test_step = validation_step

        def predict_step(self, batch, batch_idx):
            self.seen.append(self(batch[0]))
            return self.seen[-1]

    def evaluated(*callbacks):
        torch.manual_seed(3)
        module, data = Watched(), loader(batches(2))
        before = copy.deepcopy(module.state_dict())
        trained = trainer(*callbacks, num_sanity_val_steps=2)
        trained.fit(module, data, data)
        module.load_state_dict(before)
        module.seen = module.seen[:2]  # of the sanity check, on the first weights
        trained.validate(module, data, verbose=False)
        trained.test(module, data, verbose=False)
        trained.predict(module, data)
        return module.seen

    mixed, plain = evaluated(ManifoldMixup(layers=["input", "net.0"], stop=1.0)), evaluated()
    assert len(mixed) == len(plain) == 8
    assert all(torch.equal(a, b) for a, b in zip(mixed, plain, strict=True))


@pytest.mark.parametrize("layer", ["input", "net.0"])
def test_the_global_generators_go_on_as_without_the_callback(layer):
    def states(*callbacks):
        module = Net()
        module.net.insert(2, nn.Dropout(0.5))
        L.seed_everything(1, verbose=False)
        fit(module, *callbacks, data=batches(3))
        return torch.get_rng_state(), np.random.get_state()[1]

    mixed, plain = states(ManifoldMixup(layers=[layer], stop=1.0)), states()
    assert torch.equal(mixed[0], plain[0])
    assert (mixed[1] == plain[1]).all()


def test_the_hidden_state_keeps_dtype_shape_and_memory_format():
    seen = []

    class Look(nn.Module):
        def forward(self, h):
            seen.append((h.dtype, h.shape, h.is_contiguous(memory_format=torch.channels_last)))
            return h.mean((2, 3))

    def look(*callbacks):
        module = Net()
        module.net = nn.Sequential(nn.Conv2d(3, 5, 1), Look()).to(memory_format=torch.channels_last)
        x = torch.randn(6, 3, 2, 2).contiguous(memory_format=torch.channels_last)
        fit(module, *callbacks, data=[(x, batches()[0][1])], precision="bf16-mixed")

    look(ManifoldMixup(layers=["net.0"], stop=1.0))
    look()
    assert seen[-2] == seen[-1] == (torch.bfloat16, (6, 5, 2, 2), True)


def test_it_pickles_before_during_and_after_a_fit(tmp_path):
    class Pickles(L.Callback):
        def on_after_backward(self, trainer, pl_module):
            self.callback = pickle.loads(pickle.dumps(callback))
            self.module = pickle.loads(pickle.dumps(pl_module))

    callback, during, module = ManifoldMixup(layers=["net.0"], stop=1.0), Pickles(), Net()
    fresh = pickle.loads(pickle.dumps(callback))
    fit(module, callback, during)
    after = pickle.loads(pickle.dumps(callback))
    for copied in (fresh, during.callback, after):
        fit(Net(), copied)
        assert copied.layers_ == ["net.0"]
    # the copy holds a gate, but not an armed one
    x = batches()[0][0]
    during.module.load_state_dict(module.state_dict())
    assert torch.equal(during.module(x), module(x))


def test_the_seed_is_that_of_seed_everything():
    plans = []
    for seed in (None, 11):
        if seed is not None:
            L.seed_everything(seed, verbose=False)
        callback = ManifoldMixup(layers=["net.0"], stop=1.0)
        fit(Net(), callback)
        plans.append(callback.plan.lam)
    assert plans == [draw(Recipe(1.0, {"net.0": 1}), 6, seed=s).lam for s in (0, 11)]


def test_metrics_in_the_training_step_see_ordinary_labels():
    class Measured(Net):
        def __init__(self):
            super().__init__()
            self.accuracy, self.mean = MulticlassAccuracy(5, average="micro"), MeanMetric()
            self.elsewhere = [MulticlassAccuracy(5, average="micro")]

        def training_step(self, batch, batch_idx):
            z = self(batch[0])
            loss = F.cross_entropy(z, batch[1])
            self.accuracy(z, batch[1])
            self.elsewhere[0].update(z, batch[1])
            self.mean(loss)
            self.log("accuracy", self.accuracy)
            self.log("loss", loss, on_step=True, on_epoch=True)
            self.right = (z.argmax(1) == batch[1]).pair.first.float().mean().item()
            return loss

    module = Measured()
    metrics = module.accuracy, module.mean, module.elsewhere[0]
    for metric in metrics:
        metric.reset = lambda: None  # Lightning resets what was logged
    fit(module, ManifoldMixup(layers=["net.0"], stop=1.0))
    assert module.accuracy.compute() == pytest.approx(module.right)
    assert module.elsewhere[0].compute() == pytest.approx(module.right)
    for metric in metrics:
        states = [getattr(metric, name) for name in metric._defaults]
        assert not any(is_paired(state) or type(state) is not torch.Tensor for state in states)


def test_the_plan_can_be_logged():
    callback = ManifoldMixup(layers=["input", "net.0"], log_plan=True, stop=1.0)
    trained = trainer(callback)
    trained.fit(Net(), loader(batches()))
    assert trained.callback_metrics["mixup/lam"] == pytest.approx(float(callback.plan.lam))
    position = callback.layers_.index(callback.plan.layer)
    assert trained.callback_metrics["mixup/layer"] == position


def test_weights_say_how_often_a_layer_is_drawn():
    class Layers(L.Callback):
        def __init__(self):
            self.drawn = []

        def on_train_batch_start(self, *args):
            self.drawn.append(callback.plan.layer)

    callback, layers = ManifoldMixup(layers={"input": 1, "net.0": 3}, stop=1.0), Layers()
    fit(Net(), callback, layers, data=batches(200))
    assert 130 < layers.drawn.count("net.0") < 170


@pytest.mark.parametrize("kwargs", [{"alpha": 0.0}, {"alpha": 0.0, "layers": "auto"}])
def test_alpha_zero_trains_plainly(kwargs):
    mixed, plain = (torch.manual_seed(1), Net())[1], (torch.manual_seed(1), Net())[1]
    fit(mixed, ManifoldMixup(**kwargs))
    fit(plain)
    assert all(map(torch.equal, mixed.parameters(), plain.parameters()))


def test_a_batch_of_one_is_left_alone():
    callback = ManifoldMixup(layers=["net.0"], stop=1.0)
    with pytest.warns(UserWarning, match="no batch had two samples, so nothing was mixed"):
        fit(Net(), callback, data=batches(size=1))
    assert callback.plan is None


def test_a_manual_step_that_trains_nothing_is_not_refused():
    class Accumulating(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            if batch_idx % 2:
                return self.manual_backward(super().training_step(batch, batch_idx))
            self(batch[0])  # runs, and trains nothing
            return None

    callback = ManifoldMixup(layers=["net.0"], stop=1.0)
    fit(Accumulating(), callback, data=batches(4))
    assert callback.plan is not None


def test_a_trainer_of_pytorch_lightning_does_the_same():
    pl = pytest.importorskip("pytorch_lightning")

    class Other(pl.LightningModule):
        __init__, forward = Net.__init__, Net.forward
        training_step, configure_optimizers = Net.training_step, Net.configure_optimizers

    Other.__init__ = lambda self: (
        pl.LightningModule.__init__(self),
        setattr(self, "net", nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))),
        setattr(self, "criterion", F.cross_entropy),
    )[0]
    torch.manual_seed(1)
    theirs = Other()
    torch.manual_seed(1)
    ours = Net()
    callback = ManifoldMixup(layers=["input", "net.0"], stop=1.0)
    fit(theirs, callback, data=batches(4), cls=pl.Trainer)
    assert callback.plan is not None
    fit(ours, ManifoldMixup(layers=["input", "net.0"], stop=1.0), data=batches(4))
    torch.testing.assert_close(list(theirs.parameters()), list(ours.parameters()))


def shown(capsys, **kwargs):
    fit(Net(), ManifoldMixup(layers={"input": 1, "net.*": 1}), **kwargs)
    return capsys.readouterr().out


def test_the_layers_are_shown_at_the_start_of_a_fit(capsys):
    printed = shown(capsys, enable_model_summary=True)
    table = printed[printed.index("Manifold Mixup, alpha = 1") :]
    assert [row.split() for row in table.splitlines()[3:7]] == [
        ["input", "(B,", "4)", "0%", "25%"],
        ["net.0", "(B,", "6)", "44%", "25%"],
        ["net.1", "(B,", "6)", "44%", "25%"],
        ["net.2", "(B,", "5)", "100%", "25%"],
    ]
    assert " ".join(table.split()).endswith(
        "target: batch[1]; input: batch[0]; mixed until 50% of the training"
    )


def test_the_entries_that_are_target_and_input_are_shown(capsys):
    class Keyed(Net):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def training_step(self, batch, batch_idx):
            return super().training_step((batch[self.name], batch["label"]), batch_idx)

        def forward(self, x):
            return self.net(x[self.name] if isinstance(x, dict) else x)

    x, y = batches()[0]
    for name, told in (("image", "input: image"), ("grid", "no input was recognised, so it is")):
        batch = {name: x, "label": y, "sample_weight": torch.ones(len(y))}
        fit(Keyed(name), ManifoldMixup(stop=1.0), data=[batch], enable_model_summary=True)
        shown = " ".join(capsys.readouterr().out.split())
        assert f"target: label, sample_weight; {told}" in shown


def test_nothing_is_shown_without_a_model_summary(capsys):
    assert "Manifold Mixup" not in shown(capsys, enable_model_summary=False)


# Errors: each says what was expected and what came, and leaves everything as it was.


def assert_refused(message, module, *callbacks, data=None, error=ValueError):
    data = batches() if data is None else data
    before = copy.deepcopy(data)
    weights = copy.deepcopy(module.state_dict())
    with pytest.raises(error, match=message):
        fit(module, *callbacks, data=data)
    assert not any(m._forward_hooks for m in module.modules())
    torch.testing.assert_close(module.state_dict(), weights, atol=0, rtol=0)
    for found, expected in zip(data, before, strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["net.7"], r"there is no layer 'net.7'; did you mean 'net.2' or 'net.1' or 'net.0'\?"),
        (["ned"], r"there is no layer 'ned'; did you mean 'net'"),
        (["net.layer*"], r"no layer matches 'net.layer\*'; did you mean 'net"),
        (["net.0", "net.0"], "layer 'net.0' is named twice"),
        (["net.0", "net.?"], r"layer 'net.0' is named twice, the second time by 'net.\?'"),
        ([], r"expected a list of layer names, as .* but got layers=\[\]"),
    ],
)
def test_layers_that_cannot_be_resolved_are_refused(layers, message):
    assert_refused(message, Net(), ManifoldMixup(layers=layers, stop=1.0))


def test_a_container_is_refused():
    module = Net()
    module.blocks = nn.ModuleList([nn.Linear(2, 2)])
    message = (
        r"layer 'blocks', a ModuleList, never runs itself; "
        r"did you mean 'blocks.0'\?"
    )
    assert_refused(message, module, ManifoldMixup(layers=["blocks"], stop=1.0))


X, Y = batches()[0]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (X, r"the batch, float32 \(6, 4\), holds no target; an autoencoder's "),
        ((X, Y, Y.clone()), "there is no recognisable target in the batch, (tuple|list)"),
        ({"x": X, "z": Y}, r"target in the batch, dict\(x: float32 \(6, 4\), z: int64 \(6,\)\)"),
        ({"x": X, "y": Y, "label": Y.clone()}, "y or label may be the target in the batch"),
        ((X, X[:3]), "layer 'net.0' puts out 2 rows for each sample"),
        ((X, torch.tensor(1)), r"expected targets of shape \(B, ...\), but got int64 \(\), w"),
    ],
)
def test_a_batch_without_a_clear_target_is_refused(batch, message):
    assert_refused(message, Net(), ManifoldMixup(layers=["net.0"], stop=1.0), data=[batch])


def test_a_target_that_is_the_input_too_is_refused():
    message = "the target stands at two places of the batch"
    with pytest.raises(ValueError, match=message):
        fit(Net(F.mse_loss), ManifoldMixup(layers=["net.0"], stop=1.0), data=[(X, X)])


class Rebuilds(Steps):
    def forward(self, x):
        return self.net(x if x.is_floating_point() else F.one_hot(x, 4).float())

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if isinstance(batch, dict):
            batch["labels"] = batch["x"].clone()
            return batch
        (x,) = batch
        return x, x.clone()


def rebuilds(module, batch):
    x, y = (batch["x"], batch["labels"]) if isinstance(batch, dict) else batch
    return F.mse_loss(module(x)[:, :4], y)


def predicts(module, batch):
    return F.cross_entropy(module(batch[0])[:, :-1].mT, batch[1][:, 1:])


TOKENS = torch.tensor([[0, 1, 2], [3, 3, 0], [1, 0, 1], [2, 3, 1]])


@pytest.mark.parametrize(
    ("step", "batch", "target"),
    [
        (rebuilds, [X], 1),
        (rebuilds, {"x": X}, "labels"),
        (rebuilds, {"x": X}, None),
        (predicts, [TOKENS], 1),
    ],
)
def test_a_copy_of_the_input_is_a_target(step, batch, target):
    module, callback = Rebuilds(step), ManifoldMixup(layers=["net.0"], target=target, stop=1.0)
    untouched, (x,) = copy.deepcopy(module), batch.values() if isinstance(batch, dict) else batch
    fit(module, callback, data=[copy.copy(batch)])
    modules = dict(untouched.named_modules())
    loss = naive.two_pass(lambda y: step(untouched, (x, y)), callback.plan, modules, x)
    torch.testing.assert_close(module.loss, loss.detach(), check_dtype=False)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, {"labels": 3}), r"expected a tensor as target, but got dict\(labels: int\)"),
        ((X, None), "expected a tensor as target, but got NoneType in the batch"),
    ],
)
def test_a_target_that_is_no_tensor_is_refused(batch, message):
    assert_refused(
        message, Net(), ManifoldMixup(layers=["net.0"], stop=1.0), data=[batch], error=TypeError
    )


def test_a_path_that_leads_nowhere_is_refused():
    callback = ManifoldMixup(layers=["net.0"], target="1.labels", stop=1.0)
    message = r"there is no target='1.labels' in the batch, (tuple|list)\(0: float32 \(6, 4\), 1:"
    assert_refused(message, Net(), callback)


def test_token_ids_are_refused_as_input_and_as_hidden_state():
    class Tokens(nn.Module):
        def forward(self, x):
            return x.long()

    ids = [(torch.ones(6, 4, dtype=torch.long), Y)]
    message = r"expected a floating-point input to mix, but got int64 \(6, 4\); mix the layer"
    callback = ManifoldMixup(layers=["input"], verify=False, stop=1.0)
    assert_refused(message, Net(), callback, data=ids, error=TypeError)
    module = Net()
    module.net.insert(0, Tokens())
    message = r"layer 'net.0' puts out int64 \(6, 4\), and no floating-point hidden state"
    assert_refused(message, module, ManifoldMixup(layers=["net.0"], verify=False, stop=1.0))


def test_a_hidden_state_with_the_batch_elsewhere_is_refused():
    class SequenceFirst(nn.Module):
        def forward(self, x):
            return x.T[..., None]

    module = Net()
    module.net.insert(0, SequenceFirst())
    message = r"layer 'net.0' puts out float32 \(4, 6, 1\) for 6 samples, which is not batch-first"
    assert_refused(message, module, ManifoldMixup(layers=["net.0"], verify=False, stop=1.0))


def test_a_training_step_that_never_used_the_target_is_refused():
    message = "the hidden state of layer 'net.0' was mixed, but the loss was not"
    module = Net(lambda z, y: z.square().mean())
    assert_refused(message, module, ManifoldMixup(layers=["net.0"], stop=1.0))


def test_a_manual_step_that_never_used_the_target_is_refused():
    class Manual(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self(batch[0]).square().mean().backward()
            self.optimizers().step()

    with pytest.raises(ValueError, match="was mixed, but the loss was not"):
        fit(Manual(), ManifoldMixup(layers=["net.0"], stop=1.0))


def test_a_layer_that_does_not_run_gives_the_plain_loss_and_one_warning():
    class Sometimes(Net):
        def __init__(self):
            super().__init__()
            self.unused = nn.Identity()

    torch.manual_seed(1)
    mixed = Sometimes()
    torch.manual_seed(1)
    plain = Sometimes()
    message = "layer 'unused' was to be mixed in this training step and did not run"
    with pytest.warns(UserWarning, match=message) as warned:
        fit(mixed, ManifoldMixup(layers=["unused"], verify=False, stop=1.0), data=batches(3))
    assert len([w for w in warned if "was to be mixed" in str(w.message)]) == 1
    fit(plain, data=batches(3))
    assert all(map(torch.equal, mixed.parameters(), plain.parameters()))


def test_a_dataloader_iter_is_refused():
    class Iterating(Net):
        def training_step(self, dataloader_iter):
            return super().training_step(*next(dataloader_iter))

    message = "needs the batch before the training step takes it; write training_step"
    with pytest.warns(UserWarning, match="dataloader_iter"):
        assert_refused(message, Iterating(), ManifoldMixup(layers=["net.0"], stop=1.0))


def test_two_callbacks_in_one_trainer_are_refused():
    class Mine(ManifoldMixup):
        pass

    with pytest.raises(
        RuntimeError, match="more than one stateful callback of type `ManifoldMixup`"
    ):
        trainer(ManifoldMixup(stop=1.0), ManifoldMixup(stop=1.0))
    message = "expected one ManifoldMixup callback in the Trainer, but got several"
    assert_refused(
        message, Net(), ManifoldMixup(layers=["net.0"], stop=1.0), Mine(layers=["net.1"])
    )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"alpha": -1.0}, "expected a finite alpha ≥ 0, but got -1.0"),
        ({"alpha": float("nan")}, "expected a finite alpha ≥ 0, but got nan"),
        ({"layers": {"a": -1.0}}, "expected a finite weight ≥ 0 for 'a', but got -1.0"),
        ({"layers": {"a": 0.0}}, "expected a layer with a weight > 0"),
        ({"layers": Net()}, "names to weights as layers, but got Net$"),
        ({"layers": (name for name in ["a"])}, "as layers, but got generator$"),
        ({"seed": -1}, r"expected a whole number in \[0, 2\*\*64\) as seed, but got -1"),
    ],
)
def test_an_argument_out_of_range_is_refused_at_once(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ManifoldMixup(**kwargs)
