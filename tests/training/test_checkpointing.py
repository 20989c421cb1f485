"""Activation checkpointing: what is computed again in the backward pass is mixed again, alike."""

import copy
import functools

import naive
import pytest
import torch
from fitting import Net, batches, fit
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import (
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

from lightning_mmix import ManifoldMixup

# before the region, inside, its last layer, the region itself, and behind it
LAYERS = ["input", "stem", "region.0", "region.2", "region", "head"]
MATMULS = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]
SELECTIVE = functools.partial(create_selective_checkpoint_contexts, MATMULS)

WAYS = {
    "reentrant": lambda region, h: checkpoint(region, h, use_reentrant=True),
    "not reentrant": lambda region, h: checkpoint(region, h, use_reentrant=False),
    "selective": lambda region, h: checkpoint(region, h, use_reentrant=False, context_fn=SELECTIVE),
    "in segments, reentrant": lambda region, h: checkpoint_sequential(
        region, 2, h, use_reentrant=True
    ),
    "in segments": lambda region, h: checkpoint_sequential(region, 2, h, use_reentrant=False),
}


class Regions(Net):
    """Counts how often the region's first layer runs."""

    def __init__(self, way=lambda region, h: region(h)):
        super().__init__()
        self.net, self.way = None, way
        self.stem = nn.Linear(4, 6)
        self.region = nn.Sequential(nn.Linear(6, 7), nn.Dropout(0.5), nn.Tanh())
        self.head = nn.Linear(7, 5)
        self.region[0].register_forward_hook(Counts())

    def on_train_batch_start(self, *_):
        torch.manual_seed(5)

    def forward(self, x):
        return self.head(self.way(self.region, self.stem(x)))


class Counts:
    def __init__(self):
        self.count = 0

    def __call__(self, *_):
        self.count += 1


def assert_exact(module, callback):
    """Against the same module without checkpoints, in the naive form."""
    untouched = Regions()
    untouched.load_state_dict(
        {k.replace("_checkpoint_wrapped_module.", ""): v for k, v in module.state_dict().items()}
    )
    fit(module, callback)
    torch.manual_seed(5)
    assert callback.plan.lam < 0.99
    loss, grads = naive.step(untouched, callback.plan, batches()[0])
    torch.testing.assert_close(module.loss.detach(), loss.detach(), atol=1e-10, rtol=0)
    torch.testing.assert_close(module.grads, list(grads), atol=1e-10, rtol=0)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_the_mixed_layer_may_lie_inside_at_the_edge_and_outside(float64, way, layer):
    if way.startswith("in segments") and layer == "region":
        pytest.skip("a region in segments never runs itself")
    module = Regions(WAYS[way])
    assert_exact(module, ManifoldMixup(layers=[layer], verify=False, stop=1.0))
    (counts,) = [h for h in module.region[0]._forward_hooks.values() if isinstance(h, Counts)]
    assert counts.count == 2 or way == "in segments"  # whose first needs nothing again


@pytest.mark.filterwarnings("ignore:Please specify CheckpointImpl")  # older torch's own
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", [CheckpointImpl.REENTRANT, CheckpointImpl.NO_REENTRANT])
def test_wrapped_layers_keep_their_names(float64, kind, layer):
    module = Regions()
    wrapper = functools.partial(checkpoint_wrapper, checkpoint_impl=kind)
    apply_activation_checkpointing(
        module, checkpoint_wrapper_fn=wrapper, check_fn=lambda m: m is module.region
    )
    callback = ManifoldMixup(layers=[layer], stop=1.0)
    assert_exact(module, callback)
    assert callback.layers_ == [layer]


@pytest.mark.parametrize("way", [way for way in WAYS if not way.startswith("in")])
def test_auto_chooses_and_verifies_as_without_checkpoints(way):
    plain, callback = ManifoldMixup(stop=1.0), ManifoldMixup(stop=1.0)
    fit(Regions(), plain)
    fit(Regions(WAYS[way]), callback)
    assert callback.layers_ == plain.layers_


def test_copies_of_a_checkpointed_module_are_exact_too(float64):
    assert_exact(
        copy.deepcopy(Regions(WAYS["reentrant"])), ManifoldMixup(layers=["region.0"], stop=1.0)
    )


class Carries(nn.Module):
    """Passes on what it was given beside its hidden state."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, h, given):
        return self.inner(h), given


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_region_passes_on_is_mixed_again(reentrant):
    class Carrying(Regions):
        def __init__(self):
            super().__init__()
            self.region, self.head = Carries(), nn.Linear(6, 5)

        def forward(self, x):
            h = self.stem(x)
            if self.way is None:
                return self.head(sum(self.region(h, 2 * h)))
            return self.head(sum(checkpoint(self.region, h, 2 * h, use_reentrant=reentrant)))

    torch.manual_seed(1)
    module, callback = Carrying(), ManifoldMixup(layers=["region"], verify=False, stop=1.0)
    plain = copy.deepcopy(module)
    plain.way = None
    fit(module, callback)
    fit(plain, ManifoldMixup(layers=["region"], verify=False, stop=1.0))
    assert callback.plan.lam < 1
    torch.testing.assert_close(module.state_dict(), plain.state_dict())
