"""Fabric and plain DDP draw what the callback draws under a Trainer, and reach its weights."""

import copy

import fabrics
import processes
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit
from lightning.fabric import Fabric

from lightning_mmix import ManifoldMixup, Mixer

EPOCHS, SEED = 2, 5
NAMED = {"layers": ["input", "net.0"]}
SETTINGS = {"named": NAMED, "auto": {}, "now and then": {**NAMED, "prob": 0.5}}
DATA = batches(4)
ALL = range(EPOCHS * len(DATA))


def same(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for key, value in expected[1].items():
        assert torch.equal(found[1][key], value), key


def made():
    torch.manual_seed(1)
    return Net()


def fabric_of(precision="32-true"):
    return Fabric(accelerator="cpu", devices=1, precision=precision)


def step(fabric, model, x, y):
    fabric.backward(F.cross_entropy(model(x), y))


def looped(mixer, model, optimizer, take, batches=ALL):
    """Train on these batches, counted through the epochs; the plans."""
    plans = []
    for at in batches:
        epoch, i = divmod(at, len(DATA))
        x, y = copy.deepcopy(DATA[i])
        mixer.set_epoch(epoch)
        optimizer.zero_grad()
        with mixer(x, y) as target:
            take(model, x, target)
        optimizer.step()
        plans.append(fabrics.plain(mixer.plan))
    return plans


def by_fabric(precision="32-true", wrap=lambda model: model, take=step, **settings):
    fabric, model = fabric_of(precision), made()
    model, optimizer = fabric.setup(wrap(model), torch.optim.SGD(model.parameters(), lr=0.1))
    with Mixer(model, seed=SEED, **settings) as mixer:
        plans = looped(mixer, model, optimizer, lambda *batch: take(fabric, *batch))
    return plans, model.state_dict()


def by_trainer(precision="32-true", **settings):
    model, keep = made(), fabrics.Keep()
    mixup = ManifoldMixup(stop=1.0, seed=SEED, **settings)
    fit(model, mixup, keep, data=copy.deepcopy(DATA), max_epochs=EPOCHS, precision=precision)
    return keep.plans, model.state_dict()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_loop_of_fabric_reaches_the_weights_of_the_callback(name):
    found = by_fabric(**SETTINGS[name])
    same(found, by_trainer(**SETTINGS[name]))
    assert {plan[0] for plan in found[0] if plan} > {"input"}


@pytest.mark.parametrize("name", ["named", "auto"])
def test_mixed_precision_does_the_same(name):
    settings = SETTINGS[name]
    same(by_fabric("bf16-mixed", **settings), by_trainer("bf16-mixed", **settings))


@pytest.mark.parametrize("name", ["named", "auto"])
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_what_fabric_converts_is_tested_and_mixed_as_by_hand(precision, name):
    dtype = {"bf16-true": torch.bfloat16, "64-true": torch.float64}[precision]

    def take(model, x, y):
        F.cross_entropy(model(x.to(dtype)).float(), y).backward()

    model = made().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Mixer(model, seed=SEED, **SETTINGS[name]) as mixer:
        plans = looped(mixer, model, optimizer, take)
    same(by_fabric(precision, **SETTINGS[name]), (plans, model.state_dict()))


def test_a_layer_of_a_network_in_half_precision_that_is_no_cut_is_refused():
    class Residual(Net):
        def forward(self, x):
            return self.net[2](x.repeat(1, 2)[:, :6] + self.net[0](x))

    model = fabric_of("bf16-true").setup(Residual())
    x, y = batches()[0]
    mixed = Mixer(model, layers=["net.0"])(x, y)
    with pytest.raises(ValueError, match=r"layer 'net.0' is bypassed"), mixed:
        pass


@pytest.mark.parametrize("name", ["named", "auto"])
def test_a_compiled_network_does_the_same(name):
    torch.compiler.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    found = by_fabric(wrap=lambda model: torch.compile(model, backend=backend), **SETTINGS[name])
    same(found, by_trainer(**SETTINGS[name]))
    assert len(graphs) == 2  # with the gate's layer mixed, and without


def test_a_step_of_a_lightning_module_does_the_same():
    def take(fabric, model, x, y):
        fabric.backward(model.training_step((x, y), 0))

    same(by_fabric(take=take, **NAMED), by_trainer(**NAMED))


def test_a_mixer_goes_into_a_checkpoint_and_comes_back(tmp_path):
    fabric, plans = fabric_of(), []
    for part in (range(6), range(6, 8)):
        model = made()
        model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
        with Mixer(model, seed=SEED if not plans else None) as mixer:
            state = {"model": model, "optimizer": optimizer, "mixer": mixer}
            if plans:
                fabric.load(tmp_path / "state.ckpt", state)
            plans += looped(mixer, model, optimizer, lambda *batch: step(fabric, *batch), part)
            fabric.save(tmp_path / "state.ckpt", state)
    same((plans, model.state_dict()), by_trainer())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes found."""
    path = tmp_path_factory.mktemp("fabrics")
    processes.launch(fabrics.__file__, path)
    return path


def kept(folder, name, kind):
    return [torch.load(folder / f"{name} {kind}-{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("kind", ["by fabric", "by hand"])
@pytest.mark.parametrize("name", fabrics.FITS)
def test_two_processes_reach_the_weights_of_the_callback(folder, name, kind):
    kinds = kept(folder, name, kind), kept(folder, name, "by trainer")
    for found, expected in zip(*kinds, strict=True):
        same(found, expected)
        assert any(found[0])


def test_two_processes_mix_the_same_layer_with_other_partners(folder):
    first, second = (plans for plans, _ in kept(folder, "now and then", "by fabric"))
    assert [plan and plan[0] for plan in first] == [plan and plan[0] for plan in second]
    assert None in first
    assert all(one[1:] != other[1:] for one, other in zip(first, second, strict=True) if one)


@pytest.mark.parametrize("name", ["now and then", "auto"])
def test_two_processes_go_on_in_the_middle_of_an_epoch(folder, name):
    for found, expected in zip(
        *(kept(folder, name, k) for k in ("resumed", "by trainer")), strict=True
    ):
        same(found, expected)


def test_two_processes_mix_a_compiled_network(folder):
    kinds = (kept(folder, "auto", kind) for kind in ("compiled", "by trainer"))
    for found, expected in zip(*kinds, strict=True):
        assert found[0] == expected[0]
        torch.testing.assert_close(found[1], expected[1])
