import copy
import warnings
from inspect import signature

import lightning.pytorch as L
import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit, loader, trainer
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import metrics

from lightning_mmix import ManifoldMixup, Mixer, mixing
from lightning_mmix.core.plan import Recipe, draw
from lightning_mmix.pairing.gates import Gates

LAYERS = ["input", "net.0", "net.2"]
WAYS = ["net.compile()", "torch.compile(net)", "torch.compile(module)"]

# torch.compile looks at the gradient of every input
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


class Deep(Net):
    def __init__(self):
        super().__init__()
        hidden = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 7), nn.Tanh()]
        self.net = nn.Sequential(*hidden, nn.Linear(7, 5))

    def validation_step(self, batch, batch_idx):
        self.validated = self(batch[0])


class Steps(L.Callback):
    """The weights and the number of graphs after every step."""

    def __init__(self):
        self.weights, self.graphs, self.before = [], [], None

    def on_train_batch_start(self, *args):
        if self.before is None:
            self.before = counters["stats"]["unique_graphs"]

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.weights.append([p.detach().clone() for p in pl_module.parameters()])
        self.graphs.append(counters["stats"]["unique_graphs"] - self.before)


def compiled(module, way, **kwargs):
    kwargs = {"backend": "aot_eager", **kwargs}
    if way == "torch.compile(module)":
        return torch.compile(module, **kwargs)
    if way == "torch.compile(net)":
        module.net = torch.compile(module.net, **kwargs)
    else:
        module.net.compile(**kwargs)
    return module


def naive_weights(module, data, epochs=1, layers=LAYERS):
    """The weights after every step of the naive form, with SGD as in Net."""
    weights = []
    for epoch in range(epochs):
        for i, batch in enumerate(data):
            recipe = Recipe(1.0, dict.fromkeys(layers, 1.0))
            plan = draw(recipe, len(batch[1]), seed=0, epoch=epoch, batch_idx=i)
            _, grads = naive.step(module, plan, batch)
            with torch.no_grad():
                for parameter, grad in zip(module.parameters(), grads, strict=True):
                    parameter.sub_(0.1 * grad)
            weights.append([p.detach().clone() for p in module.parameters()])
    return weights


def assert_same(steps, expected):
    torch.testing.assert_close(steps.weights, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("is_trained", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_step_is_the_naive_one_and_every_layer_has_one_graph(float64, way, is_trained):
    data, module, steps = batches(12), Deep(), Steps()
    untouched, callback = copy.deepcopy(module), ManifoldMixup(layers=LAYERS, stop=1.0)
    module = compiled(module, way)
    if is_trained:  # before the callback came
        fit(module, data=data[:2])
        fit(untouched, data=data[:2])
    trainer(callback, steps, num_sanity_val_steps=1).fit(module, loader(data), loader(data[:1]))
    assert_same(steps, naive_weights(untouched, data))
    assert len(set(steps.graphs[6:])) == 1
    assert steps.graphs[-1] <= 3  # of net.0, of net.2, and unmixed


def test_a_network_may_be_compiled_by_its_module(float64):
    class Compiles(Deep):
        def configure_model(self):
            compiled(self, "net.compile()")

    module, data, steps = Compiles(), batches(6), Steps()
    untouched = copy.deepcopy(module)
    fit(module, ManifoldMixup(layers=LAYERS, stop=1.0), steps, data=data)
    assert_same(steps, naive_weights(untouched, data))
    assert steps.graphs[-1] <= 3


def test_a_network_may_be_compiled_in_the_middle_of_a_fit(float64):
    class Compiles(Deep):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                compiled(self, "net.compile()")

    module, data, steps = Compiles(), batches(9), Steps()
    untouched = copy.deepcopy(module)
    fit(module, ManifoldMixup(layers=LAYERS, stop=1.0), steps, data=data, max_epochs=2)
    assert_same(steps, naive_weights(untouched, data, epochs=2))
    assert steps.graphs[-1] <= 3


def test_blocks_compiled_one_by_one_are_mixed(float64):
    module, data, steps = Deep(), batches(8), Steps()
    untouched = copy.deepcopy(module)
    for block in module.net:
        block.compile(backend="aot_eager")
    fit(module, ManifoldMixup(layers=LAYERS, stop=1.0), steps, data=data)
    assert_same(steps, naive_weights(untouched, data))


@pytest.mark.parametrize("layers", [["net.1.0"], ["net.0.0", "net.2.1"]])
def test_a_block_is_not_taken_for_another_of_the_same_code(float64, layers):
    class Blocks(Net):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                *(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)) for _ in range(3))
            )

    module, data, steps = Blocks(), [(x, y % 4) for x, y in batches(8)], Steps()
    untouched = copy.deepcopy(module)
    for block in module.net:
        block.compile(backend="aot_eager")
    fit(module, ManifoldMixup(layers=layers, stop=1.0), steps, data=data)
    assert_same(steps, naive_weights(untouched, data, layers=layers))


def test_torch_compile_is_left_as_it_was():
    config = torch._dynamo.config
    for mode in (True, False):
        with config.patch(skip_nnmodule_hook_guards=mode):
            first, second = Gates(Deep(), ["net"]), Gates(Deep(), ["net"])
            assert not config.skip_nnmodule_hook_guards
            first.remove()
            assert not config.skip_nnmodule_hook_guards
            second.remove()
            second.remove()
            assert config.skip_nnmodule_hook_guards is mode


def test_a_second_fit_is_mixed_and_what_follows_is_not(float64):
    module, data = compiled(Deep(), "net.compile()"), batches(4)
    fit(module, ManifoldMixup(layers=LAYERS, stop=1.0), data=data)
    untouched, x = Deep(), data[0][0]
    untouched.load_state_dict(module.state_dict())
    assert torch.equal(module(x), untouched(x))
    steps = Steps()
    fit(module, ManifoldMixup(layers=LAYERS, stop=1.0), steps, data=data)
    assert_same(steps, naive_weights(untouched, data))
    trainer().validate(module, loader(data[:1]), verbose=False)
    torch.testing.assert_close(module.validated, module(x))


@pytest.mark.parametrize("way", WAYS)
def test_batches_of_other_sizes_compile_again_only_once(float64, way):
    data = [batches(6)[i] if i % 3 else batches(size=5)[0] for i in range(6)]
    module, steps = Deep(), Steps()
    untouched = copy.deepcopy(module)
    fit(
        compiled(module, way),
        ManifoldMixup(layers=LAYERS, stop=1.0),
        steps,
        data=data,
        max_epochs=6,
    )
    assert_same(steps, naive_weights(untouched, data, epochs=6))
    assert len(set(steps.graphs[18:])) == 1
    assert steps.graphs[-1] <= 2 * 3


def test_the_network_with_its_gates_is_one_whole_graph(float64):
    module, data, steps = Deep(), batches(6), Steps()
    untouched = copy.deepcopy(module)
    compiled(module, "net.compile()", fullgraph=True)
    fit(module, ManifoldMixup(layers=LAYERS, stop=1.0), steps, data=data)
    assert_same(steps, naive_weights(untouched, data))
    assert not counters["graph_break"]


def test_a_whole_module_in_one_graph_is_refused():
    module = torch.compile(Deep(), backend="aot_eager", fullgraph=True)
    message = "the loss of a mixed target runs outside the graph; compile the network rather"
    if "reason" not in signature(torch.compiler.disable).parameters:
        message = "_outside"  # torch 2.7 names the function alone
    with pytest.raises(torch._dynamo.exc.Unsupported, match=message):
        fit(module, ManifoldMixup(layers=["net.0"], stop=1.0))
    assert not any(m._forward_hooks for m in module.modules())


@pytest.mark.skipif(
    "reason" not in signature(torch.compiler.disable).parameters,
    reason="torch 2.7 names the function alone",
)
def test_a_loss_in_one_graph_is_refused_in_watched_steps_too():
    def loss_of(model, batch):
        each = F.cross_entropy(model(batch["x"]), batch["label"], reduction="none")
        return (each * batch["weight"]).mean()

    model, (x, y) = Deep().net, batches()[0]
    mixer = Mixer(model, layers=["0"], target=["label", "weight"])
    whole = torch.compile(loss_of, backend="eager", fullgraph=True)
    for _ in range(3):  # of which the first two are watched
        refused = pytest.raises(torch._dynamo.exc.Unsupported, match="runs outside the graph")
        with refused, mixer({"x": x, "label": y, "weight": torch.rand(6)}) as batch:
            whole(model, batch)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_inductor_fuses_the_mixing_with_the_layer_after_it(mode):
    def kernels(*callbacks):
        torch.compiler.reset()
        metrics.reset()
        torch.manual_seed(1)
        module, steps = Deep(), Steps()
        compiled(module, "net.compile()", backend="inductor", mode=mode)
        fit(module, *callbacks, steps, data=batches(1))
        return metrics.generated_kernel_count, steps.weights[-1]

    plan = draw(Recipe(1.0, {"net.1": 1.0}), 6, seed=0)
    plain = kernels()[0]
    mixed, weights = kernels(ManifoldMixup(layers=["net.1"], stop=1.0))
    torch.manual_seed(1)
    untouched = Deep()
    _, grads = naive.step(untouched, plan, batches()[0])
    expected = [p - 0.1 * g for p, g in zip(untouched.parameters(), grads, strict=True)]
    torch.testing.assert_close(weights, expected)
    assert mixed == plain + 1  # which casts lam


def test_a_plain_loop_makes_its_gates_once(float64):
    data, model = batches(9), Deep().net
    untouched, steps = copy.deepcopy(model), []
    model.compile(backend="aot_eager")
    gates = Gates(model, ["0", "2"])
    for i, (x, y) in enumerate(data):
        layer = ["0", "2", "input"][i % 3]
        plan = draw(Recipe(1.0, {layer: 1.0}), 6, seed=0, batch_idx=i)
        with mixing(gates, plan, y, input=x) as paired:
            loss = F.cross_entropy(model(x), paired)
            found = torch.autograd.grad(loss, list(model.parameters()))
        modules = dict(untouched.named_modules())
        if layer != "input":
            run = lambda y, x=x: F.cross_entropy(untouched(x), y)  # noqa: E731
            value = naive.two_pass(run, plan, modules, y)
            expected = torch.autograd.grad(value, list(untouched.parameters()))
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
        steps.append(counters["stats"]["unique_graphs"])
    assert len(set(steps[3:])) == 1
    assert steps[-1] <= 3
    gates.remove()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_plain_loop_that_makes_gates_after_the_trace_is_mixed_or_told():
    (x, y), model = batches()[0], Deep().net
    model.compile(backend="aot_eager")
    plan = draw(Recipe(1.0, {"0": 1.0}), 6, seed=0)
    expected = F.cross_entropy(model(x), y)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with mixing(model, plan, y) as paired:
            loss = F.cross_entropy(model(x), paired)
    said = [str(each.message) for each in told if "make its gates" in str(each.message)]
    assert bool(said) == torch.equal(loss, expected)
