import copy
import pickle

import lightning.pytorch as L
import losses
import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import InFront, Net, batches, fit, loader, trainer
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy

from lightning_mmix import ManifoldMixup, ManifoldMixupClassifier, ManifoldMixupMixin


class Marked(ManifoldMixupMixin):
    """Has no training step but the mixin's, so the targets stay ordinary."""

    configure_optimizers, forward = Net.configure_optimizers, Net.forward
    on_after_backward = Net.on_after_backward
    configure_mixup = InFront.configure_mixup

    def __init__(self, criterion):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))

        def remembered(prediction, target):
            self.seen = type(target)
            return criterion(prediction, target)

        self.criterion = remembered

    def on_before_backward(self, loss):
        self.loss = loss


class Behind(Net, ManifoldMixupMixin):
    """Keeps its own training step, whose target is paired."""

    configure_mixup = InFront.configure_mixup


def plan_of(module):
    (callback,) = [c for c in module.trainer.callbacks if isinstance(c, ManifoldMixup)]
    return callback.plan


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_mixin_computes_the_naive_loss_and_gradients(float64, name):
    module, ((x, y),) = Marked(copy.deepcopy(losses.LOSSES[name])), batches()
    untouched = copy.deepcopy(module.net)
    fit(module, data=[(x, y)])
    criterion, modules = copy.deepcopy(losses.LOSSES[name]), {"net.0": untouched[0]}
    loss = naive.two_pass(lambda y: criterion(untouched(x), y), plan_of(module), modules, y)
    grads = torch.autograd.grad(loss, list(untouched.parameters()))
    assert module.seen is torch.Tensor
    torch.testing.assert_close(module.loss, loss, atol=1e-10, rtol=0)
    torch.testing.assert_close(module.grads, list(grads), atol=1e-10, rtol=0)


@pytest.mark.parametrize("cls", [InFront, Behind])
def test_the_mixin_works_in_front_of_and_behind_another_base(float64, cls):
    module, ((x, y),) = cls(), batches()
    untouched = copy.deepcopy(module)
    fit(module, data=[(x, y)])
    modules = dict(untouched.named_modules())
    loss = naive.two_pass(lambda y: F.cross_entropy(untouched(x), y), plan_of(module), modules, y)
    torch.testing.assert_close(module.loss.detach(), loss.detach(), atol=1e-10, rtol=0)


def test_a_callback_of_the_trainer_takes_the_place_of_the_modules_own():
    callback, module = ManifoldMixup(layers=["net.1"], stop=1.0), InFront()
    fit(module, callback)
    assert callback.layers_ == ["net.1"]
    assert [c for c in module.trainer.callbacks if isinstance(c, ManifoldMixup)] == [callback]


def test_one_module_is_fitted_twice_in_a_trainer_and_in_another():
    module, first = InFront(), trainer(max_epochs=2)
    first.fit(module, loader(batches()))
    first.fit_loop.max_epochs = 4
    first.fit(module, loader(batches()))
    fit(module)
    assert plan_of(module) is not None
    assert not any(m._forward_hooks for m in module.modules())


def test_a_base_behind_the_mixin_may_configure_the_mixup():
    class Body(Net):
        def configure_mixup(self):
            return ManifoldMixup(layers=["net.1"], stop=1.0)

    class Mine(ManifoldMixupMixin, Body):
        pass

    module = Mine()
    fit(module)
    assert plan_of(module).layer == "net.1"


def test_the_mixin_takes_the_plain_loss_if_the_layer_did_not_run():
    module = Marked(F.cross_entropy)
    module.unused = nn.Identity()
    module.configure_mixup = lambda: ManifoldMixup(layers=["unused"], verify=False, stop=1.0)
    ((x, y),) = batches()
    expected = F.cross_entropy(module.net(x), y)
    with pytest.warns(
        UserWarning, match="layer 'unused' was to be mixed in this training step and did not run"
    ):
        fit(module, data=[(x, y)])
    torch.testing.assert_close(module.loss, expected)


def test_without_a_trainer_the_step_computes_the_plain_loss():
    module, ((x, y),) = InFront(), batches()
    assert torch.equal(module.training_step((x, y), 0), F.cross_entropy(module(x), y))


def test_callbacks_of_another_base_are_kept():
    class Other(Net):
        def configure_callbacks(self):
            return kept

    class Both(ManifoldMixupMixin, Other):
        configure_mixup = InFront.configure_mixup

    kept = L.Callback()
    module = Both()
    fit(module)
    assert kept in module.trainer.callbacks
    assert plan_of(module) is not None


def classifier(**kwargs):
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
    return ManifoldMixupClassifier(net, 5, **{"layers": ["net.0"], **kwargs})


def test_the_classifier_measures_accuracy_nll_ece_and_brier():
    module, trained = classifier(), trainer(max_epochs=2)
    data = loader(batches(3))
    trained.fit(module, data, data)
    with torch.no_grad():
        logits = torch.cat([module(x) for x, _ in batches(3)])
    y = torch.cat([y for _, y in batches(3)])
    expected = {
        "accuracy": multiclass_accuracy(logits, y, num_classes=5, average="micro"),
        "nll": naive.negative_log_likelihood(logits, y),
        "ece": naive.ece(logits, y, 15),
        "brier": naive.brier(logits, y),
        "loss": F.cross_entropy(logits, y),
    }
    (tested,) = trained.test(module, data, verbose=False)
    for name, value in expected.items():
        assert tested[f"test/{name}"] == pytest.approx(float(value), abs=1e-5)
        assert trained.callback_metrics[f"test/{name}"] == tested[f"test/{name}"]


def test_the_classifier_finds_its_batch_where_the_callback_is_told():
    mixup = ManifoldMixup(layers=["net.0"], target="1.digit", input="0.pixels", stop=1.0)
    module, trained = classifier(), trainer(mixup)
    data = loader([({"pixels": x}, {"digit": y, "index": 0}) for x, y in batches(2)])
    trained.fit(module, data, data)
    trained.test(module, data, verbose=False)
    assert mixup.plan is not None
    assert trained.predict(module, data)[0].shape == (6, 5)


def test_the_classifier_predicts_probabilities():
    module, (x, y) = classifier(), batches()[0]
    for batch in (x, (x, y)):
        (probabilities,) = trainer().predict(module, loader([batch]))
        torch.testing.assert_close(probabilities, module(x).softmax(1))


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_the_classifier_takes_any_optimizer_and_scheduler(interval):
    module = classifier(
        optimizer=torch.optim.AdamW,
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
        interval=interval,
    )
    fit(module, data=batches(3))
    assert isinstance(module.optimizers().optimizer, torch.optim.AdamW)
    (rate,) = module.lr_schedulers().get_last_lr()
    assert rate == 1e-3 * 0.5 ** (1 if interval == "epoch" else 3)


def test_the_modules_pickle_before_and_after_a_fit():
    for module in (classifier(), InFront()):
        pickle.loads(pickle.dumps(module))
        fit(module)
        copied = pickle.loads(pickle.dumps(module))
        fit(copied)
        assert plan_of(copied) is not None


def test_a_checkpoint_of_the_classifier_loads_with_weights_only(tmp_path):
    module, trained = classifier(), trainer()
    trained.fit(module, loader(batches()))
    trained.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["hyper_parameters"] == {
        "num_classes": 5, "alpha": 1.0, "layers": ["net.0"], "stop": None, "interval": "epoch",
        "ignore_index": None,
    }  # fmt: skip
    loaded = ManifoldMixupClassifier.load_from_checkpoint(
        tmp_path / "last.ckpt", net=copy.deepcopy(classifier().net)
    )
    torch.testing.assert_close(loaded.state_dict(), module.state_dict())


def test_the_classifier_leaves_an_ignored_label_out_of_loss_and_scores():
    module, trained = classifier(ignore_index=255), trainer(max_epochs=1)
    data = [(x, y.where(torch.arange(len(y)) % 3 > 0, 255)) for x, y in batches(1)]
    trained.fit(module, loader(data), loader(data))
    (tested,) = trained.test(module, loader(data), verbose=False)
    ((x, y),) = data
    with torch.no_grad():
        logits = module(x)[y != 255]
    labels = y[y != 255]
    expected = {
        "accuracy": naive.accuracy(logits, labels),
        "nll": naive.negative_log_likelihood(logits, labels),
        "ece": naive.ece(logits, labels, 15),
        "brier": naive.brier(logits, labels),
        "loss": F.cross_entropy(logits, labels),
    }
    for name, value in expected.items():
        assert tested[f"test/{name}"] == pytest.approx(float(value), abs=1e-5)
    assert module.train_accuracy.ignore_index == 255
