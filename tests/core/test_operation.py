import naive
import pytest
import torch

from lightning_mmix import mix

PARTNER = torch.tensor([3, 0, 4, 2, 1])
SHAPES = [(5,), (5, 3), (5, 2, 3, 4), (5, 0), (5, 3, 0, 2)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex64])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_are_those_of_the_authors_line(shape, dtype):
    ours = torch.randn(shape, dtype=dtype, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    upstream = torch.randn(shape, dtype=dtype)
    mixed, expected = mix(ours, 0.7, PARTNER), naive.mix(theirs, 0.7, PARTNER.tolist())
    mixed.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_no_more_than_once_a_step(dtype):
    hidden, lam = torch.randn(5, 40).to(dtype), torch.tensor(0.7123, dtype=torch.float64)
    expected = naive.mix(hidden.double(), lam, PARTNER.tolist())
    error = (mix(hidden, lam, PARTNER).double() - expected).abs()
    scale = torch.maximum(hidden.abs(), hidden[PARTNER].abs()).double() + expected.abs()
    assert (error <= torch.finfo(dtype).eps * scale).all()


def test_first_and_second_derivatives_are_right():
    hidden = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: mix(h, 0.7, PARTNER), hidden)
    assert torch.autograd.gradgradcheck(lambda h: mix(h, 0.7, PARTNER).sin(), hidden)


def test_lam_one_and_the_identity_partner_change_nothing():
    hidden = torch.randn(5, 3)
    assert torch.equal(mix(hidden, 1.0, PARTNER), hidden)
    torch.testing.assert_close(mix(hidden, 0.3, torch.arange(5)), hidden)
    assert torch.equal(mix(hidden[:1], 0.3, torch.tensor([0])), hidden[:1])


def test_a_partner_may_be_of_any_index_type():
    hidden = torch.randn(5, 3)
    assert torch.equal(mix(hidden, 0.7, PARTNER.int()), mix(hidden, 0.7, PARTNER))


def test_the_mean_over_the_batch_is_preserved():
    hidden = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(mix(hidden, 0.6, PARTNER).mean(0), hidden.mean(0))


@pytest.mark.parametrize(
    "hidden",
    [
        torch.randn(5, 3, 2, 4).contiguous(memory_format=torch.channels_last),
        torch.randn(5, 3, 2, 2, 4).contiguous(memory_format=torch.channels_last_3d),
        torch.randn(4, 5, 3).transpose(0, 1),
        torch.randn(5, 3, 1, 1).contiguous(memory_format=torch.channels_last),
    ],
)
def test_the_memory_format_stays(hidden):
    mixed = mix(hidden, 0.7, PARTNER)
    assert mixed.stride() == hidden.stride()
    torch.testing.assert_close(mixed, naive.mix(hidden, 0.7, PARTNER.tolist()))


@pytest.mark.parametrize("hidden", [torch.randn(5, 8)[:, ::2], torch.randn(5, 1).expand(5, 4)])
def test_a_hidden_state_with_gaps_or_overlaps_is_mixed_too(hidden):
    before = hidden.clone()
    torch.testing.assert_close(mix(hidden, 0.7, PARTNER), naive.mix(hidden, 0.7, PARTNER.tolist()))
    assert torch.equal(hidden, before)


def test_it_runs_under_autocast_and_deterministic_algorithms():
    hidden = torch.randn(5, 3, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            mixed = mix(hidden @ torch.randn(3, 2), 0.7, PARTNER)
            mixed.sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert mixed.dtype == torch.bfloat16


def test_it_composes_with_vmap_and_grad():
    hidden, lam = torch.randn(2, 5, 3), torch.rand(2)
    partner = torch.stack([PARTNER, PARTNER.flip(0)])
    shared = torch.func.vmap(mix, (0, None, None))(hidden, 0.7, PARTNER)
    torch.testing.assert_close(shared, torch.stack([mix(h, 0.7, PARTNER) for h in hidden]))
    own = torch.func.vmap(mix)(hidden, lam, partner)
    torch.testing.assert_close(own, torch.stack(list(map(mix, hidden, lam, partner))))
    by_grad = torch.func.grad(lambda h: mix(h, 0.7, PARTNER).sin().sum())(hidden[0])
    leaf = hidden[0].clone().requires_grad_()
    mix(leaf, 0.7, PARTNER).sin().sum().backward()
    torch.testing.assert_close(by_grad, leaf.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.complex64])
def test_a_graph_does_not_round_the_weight(dtype):
    hidden, lam = torch.randn(5, 7).to(dtype), torch.tensor(0.7, dtype=torch.float64)
    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(hidden, lam, PARTNER), mix(hidden, lam, PARTNER))


@pytest.mark.parametrize("lam", [0.7, torch.tensor(0.1, dtype=torch.bfloat16), torch.tensor(0.3)])
def test_a_graph_takes_lam_for_what_it_is(lam):
    hidden = torch.randn(5, 7, dtype=torch.float64)
    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager")
    expected = float(lam) * hidden + (1 - float(lam)) * hidden[PARTNER]
    torch.testing.assert_close(compiled(hidden, lam, PARTNER), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_graph_keeps_any_order_of_the_dimensions(backend):
    torch.compiler.reset()
    compiled = torch.compile(mix, fullgraph=True, backend=backend)
    for hidden in (torch.randn(5, 6, 4).mT, torch.randn(3, 5, 4).transpose(0, 1)):
        assert compiled(hidden, torch.tensor(0.7), PARTNER).stride() == hidden.stride()


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_graph_keeps_the_memory_format_whatever_the_sizes(backend):
    torch.compiler.reset()
    compiled = torch.compile(mix, fullgraph=True, backend=backend)
    for size in (4, 5, 6):
        hidden = torch.randn(5, 3, size, size + 1).contiguous(memory_format=torch.channels_last)
        mixed = compiled(hidden, torch.tensor(0.7), PARTNER)
        assert mixed.stride() == hidden.stride()
        torch.testing.assert_close(mixed, mix(hidden, 0.7, PARTNER))


def test_it_compiles_to_one_graph():
    hidden = torch.randn(5, 3, requires_grad=True)
    compiled = torch.compile(mix, fullgraph=True, backend="aot_eager")
    lam = torch.tensor(0.7, dtype=torch.float64)
    compiled(hidden, lam, PARTNER).sin().sum().backward()
    by_graph, hidden.grad = hidden.grad, None
    mix(hidden, lam, PARTNER).sin().sum().backward()
    torch.testing.assert_close(by_graph, hidden.grad)


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (torch.arange(5), r"expected a floating-point hidden state, but got torch.int64"),
        (torch.ones(5, dtype=torch.bool), "floating-point hidden state, but got torch.bool"),
        (
            torch.randn(5, 3).to_sparse(),
            "expected a dense hidden state, but got a torch.sparse_coo",
        ),
        (
            torch.nested.nested_tensor([torch.ones(2)] * 5, layout=torch.jagged),
            "expected a dense hidden state, but got a nested tensor",
        ),
    ],
)
def test_a_hidden_state_of_the_wrong_kind_is_refused(hidden, message):
    with pytest.raises(TypeError, match=message):
        mix(hidden, 0.7, PARTNER)


@pytest.mark.parametrize(
    ("lam", "partner", "message"),
    [
        (1.5, PARTNER, r"expected lam in \[0, 1\], but got 1.5"),
        (torch.rand(4), PARTNER, r"0-d lam, or one for each sample, .* but got shape \(4,\)"),
        (torch.tensor(0.5, requires_grad=True), PARTNER, "but got shape .* with gradient"),
        (0.5, torch.tensor([0, 0, 1, 2, 3]), r"expected a permutation of range\(5\)"),
        (0.5, PARTNER[:4], r"a partner of shape \(B,\), but got \(5, 3\) and \(4,\)"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(lam, partner, message):
    with pytest.raises(ValueError, match=message):
        mix(torch.randn(5, 3), lam, partner)


LAMS = torch.tensor([0.7, 0.1, 1.0, 0.0, 0.4], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_weight_for_each_sample_is_the_naive_form(shape, dtype):
    ours = torch.randn(shape, dtype=dtype, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    upstream = torch.randn(shape, dtype=dtype)
    mixed = mix(ours, LAMS, PARTNER)
    expected = naive.mix_each(theirs, LAMS.tolist(), PARTNER.tolist())
    mixed.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_weight_for_each_sample_is_not_rounded_in_half_precision(dtype):
    hidden = torch.randn(5, 40).to(dtype)
    expected = naive.mix_each(hidden.double(), LAMS, PARTNER.tolist())
    error = (mix(hidden, LAMS, PARTNER).double() - expected).abs()
    assert (error <= torch.finfo(dtype).eps * (expected.abs() + 1e-3)).all()


def test_derivatives_by_a_weight_for_each_sample_are_right():
    hidden = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: mix(h, LAMS, PARTNER), hidden)
    assert torch.autograd.gradgradcheck(lambda h: mix(h, LAMS, PARTNER).sin(), hidden)
    by_grad = torch.func.grad(lambda h: mix(h, LAMS, PARTNER).sin().sum())(hidden.detach())
    (expected,) = torch.autograd.grad(mix(hidden, LAMS, PARTNER).sin().sum(), hidden)
    torch.testing.assert_close(by_grad, expected)


def test_a_weight_for_each_sample_composes_with_vmap():
    hidden, lams = torch.randn(2, 5, 3), torch.stack([LAMS, LAMS.flip(0)])
    own = torch.func.vmap(lambda h, lam: mix(h, lam, PARTNER))(hidden, lams)
    each = [mix(h, lam, PARTNER) for h, lam in zip(hidden, lams, strict=True)]
    torch.testing.assert_close(own, torch.stack(each))


@pytest.mark.parametrize("graph", [False, True])
def test_a_weight_for_each_sample_keeps_the_memory_format(graph):
    run = torch.compile(mix, fullgraph=True, backend="aot_eager") if graph else mix
    hidden = torch.randn(5, 3, 2, 4).contiguous(memory_format=torch.channels_last)
    leaf = hidden.clone().requires_grad_()
    mixed = run(leaf, LAMS, PARTNER)
    assert mixed.stride() == hidden.stride()
    torch.testing.assert_close(mixed, naive.mix_each(hidden, LAMS.tolist(), PARTNER.tolist()))
    upstream = torch.randn_like(hidden)
    (grad,) = torch.autograd.grad(mixed, leaf, upstream)
    assert graph or grad.stride() == hidden.stride()
    theirs = hidden.clone().requires_grad_()
    naive.mix_each(theirs, LAMS.tolist(), PARTNER.tolist()).backward(upstream)
    torch.testing.assert_close(grad, theirs.grad)


def test_a_weight_of_a_sample_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"expected lam in \[0, 1\], but got 1.25"):
        mix(torch.randn(5, 3), torch.tensor([0.5, 0.5, 1.25, 0.5, 0.5]), PARTNER)
