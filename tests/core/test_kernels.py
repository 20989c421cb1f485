import os
import subprocess
import sys

import naive
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_mmix import mix
from lightning_mmix.core import kernels

MB = 2**20
LAST, FIRST = torch.channels_last, torch.contiguous_format
BY_BAGS, BY_ROWS, BY_A_GATHER = (64, 32, 24, 24), (9, 3, 150, 151), (5000, 210)


@pytest.fixture
def ways(monkeypatch):
    """The names of the ways that were taken."""
    taken = []
    for name in ("_by_rows", "_by_bags"):
        way = getattr(kernels, name)
        monkeypatch.setattr(
            kernels, name, lambda *a, way=way, name=name: taken.append(name) or way(*a)
        )
    return taken


@pytest.mark.parametrize("memory_format", [FIRST, LAST])
@pytest.mark.parametrize(
    ("shape", "dtype", "way"),
    [
        (BY_BAGS, torch.float32, "_by_bags"),
        (BY_BAGS, torch.float64, None),
        (BY_BAGS, torch.bfloat16, None),
        ((64, 32, 48, 48), torch.bfloat16, None),
        (BY_ROWS, torch.float32, None),
        ((9, 3, 250, 251), torch.float32, "_by_rows"),
        ((9, 3, 250, 251), torch.float64, "_by_rows"),
        ((9, 3, 450, 251), torch.bfloat16, "_by_rows"),
        ((9, 3, 250, 251), torch.complex64, "_by_rows"),
        ((8192, 1, 13, 10), torch.float32, None),
    ],
)
def test_a_large_hidden_state_goes_through_memory_once(shape, dtype, way, memory_format, ways):
    hidden = torch.randn(shape).to(dtype).contiguous(memory_format=memory_format)
    hidden.requires_grad_()
    partner, upstream = torch.randperm(len(hidden)), torch.randn_like(hidden)
    mixed = mix(hidden, 0.7, partner)
    mixed.backward(upstream)
    has_way = way is not None and (way == "_by_rows" or kernels._HAS_FAST_BAGS)
    assert ways == ([way, way] if has_way else [])
    assert mixed.stride() == hidden.stride()
    close = {"rtol": 0.02, "atol": 0.05} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(mixed, naive.mix(hidden, 0.7, partner.tolist()), **close)
    back = naive.mix(upstream, 0.7, torch.argsort(partner).tolist())
    torch.testing.assert_close(hidden.grad, back.to(dtype), **close)


@pytest.mark.parametrize("shape", [(1100, 1024), (4, 700, 700), (9, 4, 250, 251), (1_100_000,)])
def test_the_next_layer_may_write_into_what_comes_out(shape):
    hidden = torch.randn(shape, requires_grad=True)
    mixed = mix(hidden, 0.7, torch.arange(len(hidden)).roll(1))
    assert not mixed._is_view()
    nn.functional.relu(mixed, inplace=True).sum().backward()
    assert hidden.grad.shape == hidden.shape


def test_a_hidden_state_whose_samples_lie_in_no_rows_is_mixed_too(ways):
    hidden = torch.randn(1024, 64, 32).transpose(0, 1)
    partner = torch.randperm(64)
    mixed = mix(hidden, 0.7, partner)
    assert ways == []
    assert mixed.stride() == hidden.stride()
    torch.testing.assert_close(mixed, naive.mix(hidden, 0.7, partner.tolist()))


@pytest.mark.parametrize("shape", [(128, 16384), (16, 131072), (2048, 1000)])
def test_a_mix_takes_one_fresh_buffer_in_each_direction(shape):
    hidden, partner = torch.randn(shape, requires_grad=True), torch.randperm(shape[0])
    upstream = torch.randn(shape)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        torch.autograd.grad(mix(hidden, 0.7, partner), hidden, upstream)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    large = [e.nbytes() for e in events if e.nbytes() > hidden.nbytes / 4]
    assert large == [hidden.nbytes] * 2


def test_the_gradient_of_a_gradient_is_right_where_memory_is_gone_through_once():
    hidden = torch.randn(1100, 1024, requires_grad=True)
    partner = torch.randperm(1100)
    (first,) = torch.autograd.grad(
        mix(hidden, 0.7, partner).pow(3).sum(), hidden, create_graph=True
    )
    (second,) = torch.autograd.grad(first.sum(), hidden)
    other = hidden.detach().clone().requires_grad_()
    usual = other * 0.7 + other[partner] * 0.3
    (expected,) = torch.autograd.grad(usual.pow(3).sum(), other, create_graph=True)
    (expected,) = torch.autograd.grad(expected.sum(), other)
    torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1100, 1024), (4, 700, 700)])
def test_autocast_does_not_round_a_large_hidden_state(shape):
    hidden, partner = torch.randn(shape, requires_grad=True), torch.randperm(shape[0])
    plain = mix(hidden, 0.7, partner)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mix(hidden, 0.7, partner)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)


def test_a_large_hidden_state_may_be_differentiated_by_a_transform():
    hidden, partner = torch.randn(1100, 1024), torch.randperm(1100)
    by_grad = torch.func.grad(lambda h: mix(h, 0.7, partner).pow(2).sum())(hidden)
    leaf = hidden.clone().requires_grad_()
    mix(leaf, 0.7, partner).pow(2).sum().backward()
    torch.testing.assert_close(by_grad, leaf.grad)


@pytest.mark.parametrize("shape", [(1100, 1024), (4, 700, 700)])
def test_defaults_of_dtype_and_device_are_not_those_of_the_hidden_state(shape):
    hidden, partner = torch.randn(shape), torch.randperm(shape[0])
    expected = mix(hidden, 0.7, partner)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            mixed = mix(hidden, torch.tensor(0.7, device="cpu"), partner)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(mixed, expected)


@pytest.fixture
def launched(monkeypatch):
    """Whether the kernel of GPUs was launched, which this stands in for, and how."""
    calls = []
    kernel = lambda *args, adjoint: calls.append(adjoint)  # noqa: E731
    monkeypatch.setattr(kernels, "_gpu_kernel", lambda device: kernel)
    return calls


class Other(torch.Tensor):
    pass


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize(
    ("hidden", "fits"),
    [
        (torch.randn(4, 256), True),
        (torch.randn(4, 3, 16, 16).contiguous(memory_format=LAST), True),
        (torch.randn(4, 512).bfloat16(), True),
        (torch.randn(4, 512).half(), True),
        (torch.randn(4, 255), False),
        (torch.randn(256, 4, 4).transpose(0, 1), False),
        (torch.randn(4, 512)[:, ::2], False),
        (torch.randn(4, 512).double(), False),
        (torch.randn(4, 512, dtype=torch.complex64), False),
        (torch.randn(4, 512).as_subclass(Other), False),
        (torch.empty(0, 512), False),
        (torch._neg_view(torch.randn(4, 512)), False),
    ],
)
def test_the_kernel_of_gpus_takes_plain_samples_in_rows(hidden, fits, adjoint, launched):
    partner = torch.arange(len(hidden))
    mixed = kernels._in_one_kernel(hidden, 0.7, partner, adjoint=adjoint)
    assert launched == ([adjoint] if fits else [])
    assert (mixed is not None) == fits
    assert mixed is None or mixed.stride() == hidden.stride()


def test_the_kernel_of_gpus_is_not_taken_past_a_mode_or_by_other_partners(launched):
    hidden, partner = torch.randn(4, 512), torch.arange(4)
    with TorchDispatchMode():
        assert kernels._in_one_kernel(hidden, 0.7, partner, adjoint=False) is None
    assert kernels._in_one_kernel(hidden, 0.7, partner.double(), adjoint=False) is None
    assert not launched


def test_the_kernel_of_gpus_is_not_taken_where_it_does_not_run():
    assert kernels._gpu_kernel(torch.device("cpu")) is None


INTERPRETED = """
import torch
from lightning_mmix.core.fused import interpolate_rows

for dtype in (torch.float32, torch.bfloat16, torch.float16):
    for shape in ((7, 37), (5, 64), (12, 3000), (3, 1)):
        hidden, partner = torch.randn(shape).to(dtype), torch.randperm(shape[0])
        for adjoint, order in ((False, partner), (True, torch.argsort(partner))):
            for lam in (0.0, 0.3, 0.7, 1.0):
                mixed = torch.full_like(hidden, torch.inf)
                interpolate_rows(hidden, lam, partner, mixed, adjoint=adjoint)
                torch.testing.assert_close(mixed, torch.lerp(hidden[order], hidden, lam))
                assert 0 < lam < 1 or torch.equal(mixed, hidden if lam else hidden[order])
    interpolate_rows(hidden, 0.7, torch.tensor([0, 3, -1]), mixed, adjoint=False)
    assert mixed.isnan().flatten().tolist() == [False, True, True]
"""


def test_the_kernel_of_gpus_is_right_in_tritons_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
