"""A loop of one's own draws what the callback draws, and reaches the same weights bit for bit."""

import copy
import io
import pickle
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_mmix import ManifoldMixup, Mixer

SETTINGS = {
    "named": {"layers": ["input", "net.0"], "stop": 1.0},
    "auto": {"stop": 1.0},
    "now and then": {"layers": ["input", "net.0"], "prob": 0.5, "stop": 1.0},
    "scheduled": {"layers": ["net.0"], "prob": {0: 1.0, 1: 0.5}, "alpha": {0: 1.0, 2: 0.2}},
    "until": {"layers": ["net.0"], "stop": 0.5},
    "own labels": {"layers": ["input", "net.0"], "labels": "own", "stop": 1.0},
}
EPOCHS, SEED = 3, 5
DATA = batches(4)


class Kept(Net):
    """Keeps the plans of all its steps."""

    def __init__(self):
        torch.manual_seed(1)
        super().__init__()
        self.plans = []

    def on_before_zero_grad(self, optimizer):
        self.plans.append(plain(self.trainer.callbacks[0].plan))


def plain(plan):
    return plan and (plan.layer, plan.lam.tolist(), plan.partner.tolist())


def looped(mixer, model, data=DATA, epochs=range(EPOCHS), take=lambda mixer, x, y: mixer(x, y)):
    """Train as people do in a loop of their own; the plans."""
    optimizer, plans = torch.optim.SGD(model.parameters(), lr=0.1), []
    for epoch in epochs:
        # who tells no length mixes to the end
        mixer.set_epoch(epoch, of=mixer.settings.stop and EPOCHS)
        for x, y in copy.deepcopy(data):
            optimizer.zero_grad()
            with take(mixer, x, y) as target:
                F.cross_entropy(model(x), target).backward()
            optimizer.step()
            plans.append(plain(mixer.plan))
    return plans


def looped_once(mixer, model):
    x, y = copy.deepcopy(DATA[0])
    with mixer(x, y) as target:
        F.cross_entropy(model(x), target).backward()


def by_hand(**settings):
    model = Kept()
    with Mixer(model, seed=SEED, **settings) as mixer:
        return looped(mixer, model), model.state_dict()


def by_trainer(settings):
    # on epochs, for a loop knows no steps
    if settings.get("stop") == 0.5:
        settings = {"layers": settings["layers"], "prob": {0: 1.0, 2: 0.0}}
    module = Kept()
    fit(module, ManifoldMixup(seed=SEED, **settings), data=DATA, max_epochs=EPOCHS)
    return module.plans, module.state_dict()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_loop_reaches_the_weights_of_the_callback(name):
    (plans, weights), (drawn, expected) = by_hand(**SETTINGS[name]), by_trainer(SETTINGS[name])
    assert plans == drawn
    assert len(plans) == EPOCHS * len(DATA)
    assert any(plans)
    for key, value in expected.items():
        assert torch.equal(weights[key], value), key


def test_a_batch_is_found_as_the_callback_finds_it():
    def as_mapping(mixer, x, y):
        return mixer.__call__({"pixels": x, "labels": y})

    model, other = Kept(), Kept()
    with Mixer(model, layers=["net.0"], seed=SEED) as mixer:
        plans = looped(mixer, model)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with Mixer(other, layers=["net.0"], seed=SEED) as mixer:
        for epoch in range(EPOCHS):
            mixer.set_epoch(epoch)
            for x, y in copy.deepcopy(DATA):
                optimizer.zero_grad()
                with mixer({"pixels": x, "labels": y}) as batch:
                    F.cross_entropy(other(batch["pixels"]), batch["labels"]).backward()
                optimizer.step()
    assert len(plans) == EPOCHS * len(DATA)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_loop_goes_on_where_a_state_was_taken():
    whole, weights = by_hand(layers=["input", "net.0"], prob=0.5)
    model = Kept()
    with Mixer(model, layers=["input", "net.0"], prob=0.5, seed=SEED) as mixer:
        plans = looped(mixer, model, epochs=[0]) + looped(mixer, model, DATA[:2], epochs=[1])
        state, halfway = mixer.state_dict(), copy.deepcopy(model.state_dict())
    other = Kept()
    other.load_state_dict(halfway)
    with Mixer(other, layers=["input", "net.0"], prob=0.5) as mixer:
        mixer.load_state_dict(state)
        plans += looped(mixer, other, DATA[2:], epochs=[1]) + looped(mixer, other, epochs=[2])
    assert plans == whole
    for key, value in weights.items():
        assert torch.equal(other.state_dict()[key], value)


def test_a_state_loads_with_weights_only(tmp_path):
    with Mixer(Net(), layers=["net.0"]) as mixer:
        looped(mixer, mixer.model)
        mixer.set_gap(torch.tensor(0.25))
        torch.save(mixer.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["gap"], state["epoch"], state["batch_idx"]) == (0.25, EPOCHS - 1, len(DATA))


def test_layers_that_were_tested_are_not_tested_again():
    model = Net()
    with Mixer(model, layers=["net.0"]) as mixer:
        looped(mixer, model)
    calls = []
    model.net.register_forward_hook(lambda *_: calls.append(1))
    with Mixer(model, layers=["net.0"]) as other:
        other.load_state_dict(mixer.state_dict())
        looped(other, model, epochs=[EPOCHS - 1])
    assert len(calls) == len(DATA)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("layer", ["input", "net.0"])
def test_an_exception_leaves_no_step_open(error, layer):
    model, (x, y) = Net(), batches()[0]
    before = x.clone(), y.clone()
    with Mixer(model, layers=[layer]) as mixer:
        with pytest.raises(error), mixer(x, y):
            raise error
        assert mixer.step is None
        assert type(y) is torch.Tensor
        assert torch.equal(x, before[0])
        assert torch.equal(y, before[1])
        with mixer(x, y) as target:
            F.cross_entropy(model(x), target).backward()
    assert not model.net[0]._forward_hooks


def test_no_gate_is_left_when_the_mixer_goes():
    model, (x, y) = Net(), batches()[0]
    mixer = Mixer(model, layers=["net.0"])
    with mixer(x, y) as target:
        F.cross_entropy(model(x), target)
        assert model.net[0]._forward_hooks
        mixer.remove()
        assert not model.net[0]._forward_hooks
        assert type(y) is torch.Tensor


def test_what_is_not_mixed_comes_as_it_is():
    (x, y), model = batches()[0], Net()
    with Mixer(model, alpha=0) as mixer, mixer(x, y) as target:
        assert target is y
        assert type(target) is torch.Tensor
    assert mixer.plan is None


def test_a_network_settles_by_the_gap_that_is_told():
    model = Net()
    plans = []
    with Mixer(model, layers=["net.0"], settle=0.5) as mixer:
        for epoch, gap in enumerate((-0.1, -0.1, 0.1, -0.1)):
            mixer.set_epoch(epoch, of=4)
            mixer.set_gap(gap)
            x, y = batches()[0]
            with mixer(x, y) as target:
                F.cross_entropy(model(x), target).backward()
            plans.append(mixer.plan is not None)
    assert plans == [True, True, True, False]


@pytest.mark.parametrize(("of", "mixed"), [(4, "xx.."), (None, "xxxx")])
def test_as_it_comes_a_loop_that_tells_its_length_mixes_the_first_half(of, mixed):
    found = ""
    with Mixer(Net(), layers=["net.0"]) as mixer:
        for epoch in range(4):
            mixer.set_epoch(epoch, of=of)
            with mixer(*batches()[0]) as target:
                F.cross_entropy(mixer.model(batches()[0][0]), target).backward()
            found += ".x"[mixer.plan is not None]
    assert found == mixed


def test_how_many_epochs_there_are_is_told_once():
    model, found = Net(), ""
    with Mixer(model, layers=["net.0"]) as mixer:
        for epoch in range(4):
            mixer.set_epoch(epoch, of=None if epoch else 4)
            looped_once(mixer, model)
            found += ".x"[mixer.plan is not None]
            with pytest.raises(ValueError, match="the last of 2 is 1"):
                mixer.set_epoch(9, of=2)
        with pytest.raises(ValueError, match="the last of 4 is 3, but got 4"):
            mixer.set_epoch(4)
        assert mixer.epoch == 3
        mixer.set_epoch(4, of=40)
        looped_once(mixer, model)
        assert mixer.plan is not None
    assert found == "xx.."


@pytest.mark.parametrize(("of", "is_mixed"), [(None, False), (20, True)])
def test_a_state_knows_how_many_epochs_there_are(of, is_mixed):
    mixer, model = Mixer(Net(), layers=["net.0"]), Net()
    mixer.set_epoch(6, of=10)
    with Mixer(model, layers=["net.0"]) as other:
        other.set_epoch(0, of=of)
        other.load_state_dict(mixer.state_dict())
        for _ in range(2):
            looped_once(other, model)
            assert (other.plan is not None) == is_mixed
            other.set_epoch(7)


def test_a_loop_without_a_length_can_t_stop_by_a_share():
    with Mixer(Net(), layers=["net.0"], stop=0.5) as mixer:
        mixer.set_epoch(0)
        with pytest.raises(ValueError, match="whose length is not known"), mixer(*batches()[0]):
            pass


def test_a_misspelt_layer_is_told_at_once():
    with pytest.raises(ValueError, match=r"did you mean 'net.0'"):
        Mixer(Net(), layers=["net.00"])


def test_a_loss_taken_outside_of_the_context_is_told():
    model, (x, y) = Net(), batches()[0]
    with Mixer(model, layers=["net.0"]) as mixer:
        with pytest.raises(ValueError, match="no loss was taken of the target"), mixer(x, y):
            prediction = model(x)
        F.cross_entropy(prediction, y).backward()
        assert mixer.step is None


def test_the_gradient_of_a_loss_may_be_taken_later():
    one, two = Kept(), Kept()
    with Mixer(one, layers=["net.0"], seed=SEED) as mixer:
        for x, y in copy.deepcopy(DATA):
            with mixer(x, y) as target:
                loss = F.cross_entropy(one(x), target)
            loss.backward()
    with Mixer(two, layers=["net.0"], seed=SEED) as mixer:
        for x, y in copy.deepcopy(DATA):
            with mixer(x, y) as target:
                F.cross_entropy(two(x), target).backward()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_model_that_mixer_was_not_given_is_told():
    model = Net()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        mixer, drawn = Mixer(model, layers=["input", "net.0"], seed=0), []
        for _ in range(9):
            looped_once(mixer, copy.deepcopy(model))
            drawn.append((mixer.plan.layer, len(told)))
    assert drawn[0] == ("input", 0)  # of which there is nothing to tell
    assert drawn[-1][1] == 1
    assert "the very model that the loop calls" in str(told[0].message)


def test_a_model_that_has_run_is_no_other():
    model, (x, y) = Net(), batches()[0]
    with Mixer(model, layers=["net.0"]) as mixer:
        looped_once(mixer, model)
        with pytest.warns(UserWarning, match="nothing was mixed; name layers"), mixer(x, y) as t:
            F.cross_entropy(nn.Linear(4, 5)(x), t).backward()


@pytest.mark.parametrize("place", ["label", 2, ["1", "1.weight", "weight"]])
def test_a_target_is_given_by_its_place_or_apart(place):
    model, (x, y) = Net(), batches()[0]
    with Mixer(model, layers=["net.0"], target=place) as mixer:
        with pytest.raises(ValueError, match="a place in a whole batch"), mixer(x, y):
            pass
        assert mixer.batch_idx == 0
    for apart in ("1.label", 1, -1, None):
        target = {"label": y} if apart == "1.label" else y
        with Mixer(model, layers=["net.0"], target=apart) as mixer, mixer(x, target):
            F.cross_entropy(model(x), y).backward()


def test_a_mixer_shows_what_it_does():
    model = Net()
    mixer = Mixer(model, {0: 1.0, 2: 0.5}, ["input", "net.*"], stop=0.75)
    assert str(mixer) == "Mixer(layers=['input', 'net.*'], alpha=1.0, epoch 0, mixing)"
    mixer.set_epoch(2, of=4)
    looped_once(mixer, model)
    layers = mixer.layers_
    assert repr(mixer) == f"Mixer(layers={layers}, alpha=0.5, epoch 2 of 4, mixing)"
    mixer.set_epoch(3)
    assert str(mixer).endswith("epoch 3 of 4, not mixing)")
    assert str(Mixer(model, 0.0)) == "Mixer(layers='auto', alpha=0.0, epoch 0, not mixing)"


def test_a_loop_that_settles_and_tells_no_gap_is_told_so():
    model = Net()
    told = pytest.warns(UserWarning, match=r"mixer\.set_gap\(gap\)")
    with told, Mixer(model, layers=["net.0"], settle=0.5) as mixer:
        for epoch in range(2):
            mixer.set_epoch(epoch, of=2)
            x, y = batches()[0]
            with mixer(x, y) as target:
                F.cross_entropy(model(x), target).backward()


def test_a_number_that_is_logged_is_not_warned_of():
    model, (x, y) = Net(), batches()[0]
    with Mixer(model, layers=["net.0"]) as mixer, mixer(x, y) as target:
        prediction = model(x)
        F.cross_entropy(prediction, target).backward()
        assert (prediction.argmax(1) == target).float().mean().item() >= 0


def test_an_entry_that_meets_the_target_is_told():
    model, (x, y) = Net(), batches()[0]
    batch = {"x": x, "label": y, "score": torch.rand(6)}

    def step(mixer):
        with mixer(batch):
            loss = F.cross_entropy(model(x), batch["label"], reduction="none") * batch["score"]
            loss.mean().backward()

    mixer = Mixer(model, layers=["net.0"])
    with pytest.warns(UserWarning, match="along with entry 'score'"):
        step(mixer)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("settings", [{"layers": ["net.0"]}, {}])
def test_a_compiled_network_is_mixed_as_it_is(settings):
    torch.compiler.reset()
    model = Kept()
    compiled = torch.compile(model, backend="eager")
    with Mixer(compiled, seed=SEED, **settings) as mixer:
        plans = looped(mixer, compiled)
    drawn, expected = by_hand(**settings)
    assert plans == drawn
    for key, value in expected.items():
        torch.testing.assert_close(model.state_dict()[key], value)


@pytest.mark.parametrize("is_reentrant", [True, False])
def test_a_checkpointed_network_mixes_again_in_the_backward_pass(is_reentrant):
    class Checkpointed(Kept):
        def forward(self, x):
            return checkpoint(self.net, x.requires_grad_(), use_reentrant=is_reentrant)

    model = Checkpointed()
    with Mixer(model, layers=["net.0"], seed=SEED) as mixer:
        looped(mixer, model)
    _, expected = by_hand(layers=["net.0"])
    for key, value in expected.items():
        assert torch.equal(model.state_dict()[key], value)


def test_a_wrapper_is_looked_through():
    model = Net()
    mixer = Mixer(nn.DataParallel(torch.compile(model)), layers=["net.0"])
    assert mixer.model is model


def saved(tree):
    torch.save(tree, file := io.BytesIO())
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


COPIES = {
    "copy": copy.deepcopy,
    "pickle": lambda tree: pickle.loads(pickle.dumps(tree)),
    "save": saved,
}


@pytest.mark.parametrize("settings", [{}, {"layers": ["net.0"], "verify": False}])
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_model_and_mixer_goes_on_as_they_do(settings, way):
    model = Kept()
    mixer = Mixer(model, seed=SEED, **settings)
    looped(mixer, model, epochs=[0])
    looped(mixer, model, DATA[:1], epochs=[1])
    other, copied = COPIES[way]((model, mixer))
    assert copied.model is other
    plans = looped(mixer, model, DATA[1:], epochs=[1])
    assert not any(layer._forward_hooks for layer in other.modules())
    assert looped(copied, other, DATA[1:], epochs=[1]) == plans
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_that_is_taken_within_a_step_begins_the_next(way):
    model, (x, y) = Kept(), batches()[0]
    mixer = Mixer(model, layers=["net.0"], seed=SEED)
    with mixer(x, y) as target:
        F.cross_entropy(model(x), target).backward()
        other, copied = COPIES[way]((model, mixer))
        assert plain(copied.plan) == plain(mixer.plan)
    assert looped(copied, other, epochs=[0]) == looped(mixer, model, epochs=[0])
    assert type(target) is torch.Tensor


def test_a_copy_of_a_mixer_has_a_copy_of_the_model():
    model = Kept()
    mixer = Mixer(model, layers=["net.0"], seed=SEED)
    looped(mixer, model, epochs=[0])
    copied = copy.deepcopy(mixer)
    assert copied.model is not model
    assert looped(copied, copied.model, epochs=[1]) == looped(mixer, model, epochs=[1])


class AsTuple(NamedTuple):
    images: torch.Tensor
    labels: torch.Tensor


@dataclass
class AsDataclass:
    images: torch.Tensor
    labels: torch.Tensor


@pytest.mark.parametrize("layer", ["input", "net.0"])
@pytest.mark.parametrize("kind", [AsTuple, AsDataclass])
def test_a_batch_of_a_kind_is_lent_as_it_is(kind, layer):
    model, batch = Net(), kind(*copy.deepcopy(DATA[0]))
    with Mixer(model, layers=[layer]) as mixer, mixer(batch) as lent:
        assert lent is batch
        assert isinstance(lent, kind)
        F.cross_entropy(model(lent.images), lent.labels).backward()
        assert mixer.step.went_backward
    assert torch.equal(batch.images, DATA[0][0])
    assert type(batch.labels) is torch.Tensor


def test_an_epoch_that_is_not_told_goes_on():
    model, other = Kept(), Kept()
    with Mixer(model, layers=["net.0"], seed=SEED) as mixer:
        plans = [*looped(mixer, model, epochs=[0]), *looped(mixer, model, epochs=[0])]
    with Mixer(other, layers=["net.0"], seed=SEED) as mixer:
        assert looped(mixer, other, DATA * 2, epochs=[0]) == plans
    assert len({plan[1] for plan in plans}) == len(plans)


def test_the_context_of_a_batch_that_failed_is_over():
    model, (x, y) = Net(), batches()[0]
    with Mixer(model, layers=["net.0"]) as mixer:
        with pytest.raises(ValueError, match="holds no target"), mixer(x):
            pass
        for _ in range(2):
            with mixer(x, y) as target:
                F.cross_entropy(model(x), target).backward()
                with pytest.raises(ValueError, match="has not ended"), mixer(x, y):
                    pass


def test_two_of_them_take_turns():
    model, other = Net(), Net()
    other.load_state_dict(model.state_dict())
    one, two = Mixer(model, layers=["net.0"]), Mixer(model, layers=["net.1"])
    alone = Mixer(other, layers=["net.1"])
    for x, y in copy.deepcopy(DATA):
        for mixer, net in ((one, model), (two, model), (alone, other)):
            net.zero_grad()
            with mixer(x, y) as target:
                F.cross_entropy(net(x), target).backward()
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad)


def test_a_model_that_a_callback_trained_is_mixed():
    model = fit(Net(), ManifoldMixup(layers=["net.0"]))
    other = Net()
    other.load_state_dict(model.state_dict())
    for net in (model, other):
        with Mixer(net, layers=["net.0"]) as mixer:
            looped(mixer, net, epochs=[0])
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_an_evaluation_between_the_batches_is_left_alone():
    model, untouched = Net(), Net()
    with Mixer(model, layers=["net.0"]) as mixer:
        for x, y in copy.deepcopy(DATA):
            with mixer(x, y) as target:
                F.cross_entropy(model(x), target).backward()
            untouched.load_state_dict(model.state_dict())
            model.eval()
            assert torch.equal(model(x), untouched(x))
            model.train()


def minimised(model, loss_of):
    """The losses of a step of L-BFGS."""
    optimizer, losses = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4), []

    def closure():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    return losses


def test_a_closure_runs_as_often_as_it_is_asked_to():
    model, other, (x, y) = Kept(), Kept(), copy.deepcopy(DATA[0])
    with Mixer(model, layers=["net.0"], seed=SEED) as mixer, mixer(x, y) as target:
        losses = minimised(model, lambda: F.cross_entropy(model(x), target))
    modules = dict(other.named_modules())

    def naively():
        return naive.two_pass(lambda y: F.cross_entropy(other(x), y), mixer.plan, modules, y)

    assert len(losses) > 3
    assert losses == pytest.approx(minimised(other, naively), rel=1e-5)


def test_a_scaler_changes_nothing():
    def scaled(scaler, model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Mixer(model, layers=["input", "net.0"], seed=SEED) as mixer:
            for x, y in copy.deepcopy(DATA):
                optimizer.zero_grad()
                with mixer(x, y) as target:
                    scaler.scale(F.cross_entropy(model(x), target)).backward()
                    scaler.step(optimizer)
                    scaler.update()
        return model

    one, other = (
        scaled(torch.amp.GradScaler("cpu", 8.0, enabled=enabled), Kept())
        for enabled in (True, False)
    )
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("outside", [True, False])
def test_a_loss_under_autocast_is_mixed(outside):
    model, (x, y) = Net(), copy.deepcopy(DATA[0])

    def autocast(enabled):
        return torch.autocast("cpu", torch.bfloat16, enabled=enabled)

    with Mixer(model, layers=["input"]) as mixer:
        with autocast(outside), mixer(x, y) as target, autocast(True):
            loss = F.cross_entropy(model(x), target)
            loss.backward()
        plan = mixer.plan
    lam, partner = float(plan.lam), plan.partner
    with autocast(True):
        output = model(lam * x + (1 - lam) * x[partner])
        expected = lam * F.cross_entropy(output, y)
        expected = expected + (1 - lam) * F.cross_entropy(output, y[partner])
    torch.testing.assert_close(loss, expected)


def test_the_last_epoch_is_told_of_too():
    model, (x, y) = Net(), batches()[0]
    told = pytest.warns(UserWarning, match="no batch had two samples")
    with told, Mixer(model, layers=["net.0"]) as mixer, mixer(x[:1], y[:1]) as target:
        F.cross_entropy(model(x[:1]), target).backward()


def test_a_first_batch_of_one_sample_is_no_fault():
    model, (x, y) = Net(), batches()[0]
    with Mixer(model, layers=["net.0"]) as mixer:
        for size in (1, 6, 3):
            mixer.set_epoch(0)  # as a loop may that tells it before each batch
            with mixer(x[:size], y[:size]) as target:
                F.cross_entropy(model(x[:size]), target).backward()
            assert (mixer.plan is None) == (size == 1)
    assert not model.net[0]._forward_hooks


def test_what_a_loop_converts_is_tested():
    model, (x, y) = Net(), batches()[0]
    double = x.double()
    with Mixer(model) as mixer, mixer(double, y) as target:
        F.cross_entropy(model(double.float()), target).backward()
    assert mixer.layers_ == ["input", "net.1"]


def test_a_target_that_looks_like_the_input_is_taken_where_it_is_given():
    model, x = nn.Linear(4, 4), batches()[0][0]
    with warnings.catch_warnings(), Mixer(model, layers=["input"]) as mixer:
        warnings.simplefilter("error")
        for _ in range(2):
            with mixer(x, x.clone()) as target:
                F.mse_loss(model(x), target).backward()
