"""What a GPU does: the same numbers, in one pass through its memory, without waiting for it."""

import copy

import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import Net, batches, fit
from lightning.pytorch import Callback
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lightning_mmix import ManifoldMixup, MixPlan, mix, mixing
from lightning_mmix.core import kernels

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
    pytest.mark.filterwarnings("ignore:.*Profiler clears events"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),
]
LAST, FIRST = torch.channels_last, torch.contiguous_format


@pytest.fixture(autouse=True)
def _may_wait_again():
    yield
    torch.cuda.set_sync_debug_mode("default")


def launched(run):
    """The names of the GPU's kernels that a function runs."""
    run()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        run()
        torch.cuda.synchronize()
    return [e.name for e in profiled.events() if e.device_type.name == "CUDA"]


@pytest.mark.parametrize("memory_format", [FIRST, LAST])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "shape", [(7, 3, 30, 31), (64, 32, 24, 24), (3, 1, 1, 1), (5, 8, 200, 150)]
)
def test_a_mix_and_its_gradient_are_those_of_a_sample_at_a_time(shape, dtype, memory_format):
    hidden = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=memory_format)
    hidden.requires_grad_()
    partner, upstream = torch.randperm(len(hidden)).cuda(), torch.randn_like(hidden)
    mixed = mix(hidden, 0.7, partner)
    mixed.backward(upstream)
    assert mixed.stride() == hidden.stride()
    assert mixed.dtype == dtype
    near = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, 2e-2)
    near = {"atol": near, "rtol": near, "check_dtype": False}
    expected = naive.mix(hidden.double(), 0.7, partner.tolist())
    torch.testing.assert_close(mixed, expected, **near)
    back = naive.mix(upstream.double(), 0.7, torch.argsort(partner).tolist())
    torch.testing.assert_close(hidden.grad, back, **near)


def test_what_is_not_mixed_is_exactly_as_it_was():
    hidden, partner = torch.randn(9, 5000, device="cuda"), torch.randperm(9, device="cuda")
    assert torch.equal(mix(hidden, 0.7, torch.arange(9, device="cuda")), hidden)
    assert torch.equal(mix(hidden, 1.0, partner), hidden)
    assert torch.equal(mix(hidden, 0.0, partner), hidden[partner])


def test_a_partner_that_is_none_gives_nan():
    hidden = torch.randn(3, 5000, device="cuda")
    mixed = mix(hidden, 0.7, torch.tensor([0, 3, -1], device="cuda"))
    assert mixed.isnan().all(1).tolist() == [False, True, True]


def test_a_large_hidden_state_goes_through_memory_once():
    hidden = torch.randn(64, 4096, device="cuda", requires_grad=True)
    partner, upstream = torch.randperm(64).cuda(), torch.randn_like(hidden)
    names = launched(lambda: torch.autograd.grad(mix(hidden, 0.7, partner), hidden, upstream))
    assert names == ["_interpolate", "_interpolate"]


def test_without_a_compiler_a_gather_and_a_lerp_do_the_same(monkeypatch):
    hidden = torch.randn(64, 4096, device="cuda", requires_grad=True)
    partner, upstream = torch.randperm(64).cuda(), torch.randn_like(hidden)
    both = []
    for kernel in (kernels._gpu_kernel, lambda device: None):
        monkeypatch.setattr(kernels, "_gpu_kernel", kernel)
        mixed = mix(hidden, 0.7, partner)
        both.append([mixed, *torch.autograd.grad(mixed, hidden, upstream)])
    torch.testing.assert_close(*both, atol=1e-6, rtol=1e-6)


def test_the_gradient_of_a_gradient_is_right():
    hidden = torch.randn(11, 1024, device="cuda", requires_grad=True)
    partner = torch.randperm(11).cuda()
    found = []
    for change in (mix, lambda h, lam, p: h * lam + h[p] * (1 - lam)):
        (first,) = torch.autograd.grad(
            change(hidden, 0.7, partner).pow(3).sum(), hidden, create_graph=True
        )
        found.append(torch.autograd.grad(first.pow(2).sum(), hidden)[0])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layer", ["net.0", "net.1", "input"])
@pytest.mark.parametrize(("precision", "near"), [("32-true", 1e-5), ("64-true", 1e-10)])
def test_a_step_gives_the_naive_loss_and_gradients(precision, near, layer):
    module, data = Net(), batches()
    naively, callback = copy.deepcopy(module), ManifoldMixup(layers=[layer])
    fit(module, callback, data=data, accelerator="gpu", devices=1, precision=precision)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    naively = naively.to("cuda", dtype)
    loss, grads = naive.step(
        naively, callback.plan, (data[0][0].to("cuda", dtype), data[0][1].cuda())
    )
    torch.testing.assert_close(module.loss, loss, atol=near, rtol=0, check_dtype=False)
    torch.testing.assert_close(module.grads, [g.to("cuda") for g in grads], atol=near, rtol=0)


class NoWaiting(Callback):
    """Lets nothing wait for the GPU until all gradients are there."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("error" if batch_idx else "default")

    def on_after_backward(self, trainer, pl_module):
        torch.cuda.set_sync_debug_mode("default")


class Quiet(Net):
    def on_after_backward(self):
        self.steps = getattr(self, "steps", 0) + 1


@pytest.mark.parametrize("layers", [["net.0"], ["input"], "auto"])
def test_no_step_waits_for_the_gpu(layers):
    module, data = Quiet(), [tuple(t.cuda() for t in batch) for batch in batches(6)]
    fit(
        module,
        NoWaiting(),
        ManifoldMixup(layers=layers, log_plan=True),
        data=data,
        accelerator="gpu",
        devices=1,
    )
    assert module.steps == 6


@pytest.mark.parametrize("size", [128, 100_000])
def test_a_plan_is_sent_without_waiting_for_the_gpu(size):
    plan, busy = MixPlan("0", torch.tensor(0.75), torch.randperm(size)), torch.cuda.Event()
    sent = plan.to(torch.device("cuda", 0))
    torch.cuda._sleep(10**9)
    busy.record()
    sent = plan.to(torch.device("cuda", 0))
    assert not busy.query()
    assert torch.equal(sent.partner.cpu(), plan.partner)


def test_a_plain_loop_does_not_wait_for_the_gpu():
    model = nn.Sequential(nn.Linear(4, 600), nn.Linear(600, 5)).cuda()
    x, y = (t.cuda() for t in batches()[0])
    plan = MixPlan("0", torch.tensor(0.75), torch.randperm(6)).to(y.device)
    with mixing(model, plan, y) as paired:
        F.cross_entropy(model(x), paired).backward()
    torch.cuda.set_sync_debug_mode("error")
    with mixing(model, plan, y) as paired:
        F.cross_entropy(model(x), paired).backward()


def test_a_mixed_step_needs_at_most_one_hidden_state_more():
    model = nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 5)).cuda()
    x, y = torch.randn(512, 64, device="cuda"), torch.randint(5, (512,), device="cuda")
    plan = MixPlan("1", torch.tensor(0.75), torch.randperm(512)).to(y.device)
    peaks = []
    for mixed in (None, plan) * 2:
        model.zero_grad()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with mixing(model, mixed, y) as paired:
            F.cross_entropy(model(x), paired).backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[3] - peaks[2] <= 512 * 4096 * 4 + 2**17


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_network_is_mixed_as_an_eager_one_is(mode):
    data = [tuple(t.cuda() for t in batch) for batch in batches(4)]
    modules = [Net(), Net()]
    modules[1].load_state_dict(modules[0].state_dict())
    modules[1].net.compile(mode=mode)
    for module in modules:
        fit(module, ManifoldMixup(layers=["net.0"]), data=data, accelerator="gpu", devices=1)
    for one, other in zip(*(m.parameters() for m in modules), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
