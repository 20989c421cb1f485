import naive
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torchvision import tv_tensors
from torchvision.transforms import v2

from lightning_mmix.core.paste import Region, edges_of, mask_of, paste, paste_where, region
from lightning_mmix.core.plan import MixPlan, Recipe, draw

PARTNER = torch.tensor([3, 0, 4, 2, 1])
INSIDE = Region((4, 6), ((1, 3), (0, 4)))
OUTSIDE = Region((4, 6), ((0, 4), (1, 5)), is_inside=False)
SPACES = [(7,), (4, 6), (9, 1), (5, 4, 3), (1, 1)]
LAST = torch.channels_last


def positions(found):
    """The positions that come from the partner."""
    mask = torch.zeros(found.space, dtype=torch.bool)
    mask[tuple(slice(*bounds) for bounds in found.bounds)] = True
    return [tuple(at) for at in (mask ^ (not found.is_inside)).nonzero().tolist()]


def drawn(count):
    recipe = Recipe(1.0, {"input": 1.0}, kind="cutmix")
    return [draw(recipe, 5, seed=7, batch_idx=i) for i in range(count)]


@pytest.mark.parametrize("space", SPACES)
def test_a_region_is_the_naive_one(space):
    for plan in drawn(60):
        found = region(float(plan.lam), plan.box.tolist(), space)
        expected = naive.taken(float(plan.lam), plan.box.tolist(), space)
        assert positions(found) == expected
        size = torch.Size(space).numel()
        assert found.lam == pytest.approx(1 - len(expected) / size, abs=1e-15)
        assert found.lam >= 0.5
        assert found.nominal == float(plan.lam)


@pytest.mark.parametrize("space", SPACES)
def test_a_graph_finds_the_same_region(space):
    for plan in drawn(60):
        place = float(plan.lam), plan.box.tolist()
        found = [tuple(at) for at in mask_of(edges_of(*place), space).nonzero().tolist()]
        assert found == positions(region(*place, space))


def test_edges_are_rounded_to_nearest_and_clipped():
    assert region(0.75, [0.5, 0.5], (8, 4)).bounds == ((2, 6), (1, 3))
    assert region(0.75, [0.0, 0.99], (8, 4)).bounds == ((0, 2), (3, 4))
    assert region(0.9, [0.5], (8,)).bounds == ((4, 4),)  # 3.6 to 4.4
    assert region(0.9, [0.5], (8,)).lam == 1
    assert region(1.0, [0.3, 0.2], (8, 4)).lam == 1
    assert region(0.0, [0.5, 0.5], (8, 4)).lam == 1  # whoever is whose partner


def test_a_box_of_more_than_half_takes_what_lies_outside():
    found = region(0.2, [0.5], (10,))
    assert (found.bounds, found.is_inside, found.lam) == (((1, 9),), False, 0.8)
    half = region(0.5, [0.5], (10,))
    assert (half.is_inside, half.lam) == (True, pytest.approx(0.5))


def test_a_complement_is_the_same_batch_with_other_names():
    hidden = torch.randn(5, 3, 4, 6)
    other = Region(OUTSIDE.space, OUTSIDE.bounds)
    renamed = paste(hidden, other, torch.argsort(PARTNER), (2, 3))
    assert torch.equal(paste(hidden, OUTSIDE, PARTNER, (2, 3))[torch.argsort(PARTNER)], renamed)


CASES = [
    ((5, 3, 4, 6), (2, 3)),
    ((5, 4, 6, 3), (1, 2)),
    ((5, 4, 6), (1, 2)),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.int64])
@pytest.mark.parametrize("found", [INSIDE, OUTSIDE])
@pytest.mark.parametrize(("shape", "dims"), CASES)
def test_value_and_gradient_are_the_naive_ones(shape, dims, found, dtype):
    ours = (10 * torch.randn(shape)).to(dtype)
    if dtype == torch.int64:
        expected = naive.paste(ours, positions(found), PARTNER.tolist(), dims)
        assert torch.equal(paste(ours, found, PARTNER, dims), expected)
        return
    theirs = ours.clone().requires_grad_()
    ours.requires_grad_()
    upstream = torch.randn(shape).to(dtype)
    pasted = paste(ours, found, PARTNER, dims)
    expected = naive.paste(theirs, positions(found), PARTNER.tolist(), dims)
    pasted.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(pasted, expected)
    assert torch.equal(ours.grad, theirs.grad)
    assert pasted.dtype == dtype


@pytest.mark.parametrize("found", [INSIDE, OUTSIDE])
def test_one_and_three_dimensions_of_space(found):
    line = torch.randn(5, 3, 9, requires_grad=True)
    one = Region((9,), ((2, 7),), is_inside=found.is_inside)
    expected = naive.paste(line, positions(one), PARTNER.tolist(), (2,))
    assert torch.equal(paste(line, one, PARTNER, (2,)), expected)
    volume = torch.randn(5, 2, 3, 4, 6)
    three = Region((3, 4, 6), ((1, 2), (0, 3), (2, 6)), is_inside=found.is_inside)
    expected = naive.paste(volume, positions(three), PARTNER.tolist(), (2, 3, 4))
    assert torch.equal(paste(volume, three, PARTNER, (2, 3, 4)), expected)


@pytest.mark.parametrize("found", [INSIDE, OUTSIDE])
def test_first_and_second_derivatives_are_right(found):
    hidden = torch.randn(5, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    one = torch.randn(5, 1, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: paste(h, found, PARTNER, (2, 3)), one)
    (first,) = torch.autograd.grad(
        paste(hidden, found, PARTNER, (2, 3)).pow(3).sum(), hidden, create_graph=True
    )
    (second,) = torch.autograd.grad(first.pow(2).sum(), hidden)
    other = hidden.detach().clone().requires_grad_()
    usual = naive.paste(other, positions(found), PARTNER.tolist(), (2, 3))
    (expected,) = torch.autograd.grad(usual.pow(3).sum(), other, create_graph=True)
    (expected,) = torch.autograd.grad(expected.pow(2).sum(), other)
    torch.testing.assert_close(second, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("found", [INSIDE, OUTSIDE])
@pytest.mark.parametrize(
    "hidden",
    [
        torch.randn(5, 3, 4, 6).contiguous(memory_format=LAST),
        torch.randn(5, 4, 6, 3).permute(0, 3, 1, 2),
        torch.randn(4, 5, 3, 6).permute(1, 2, 0, 3),
    ],
)
def test_the_memory_format_stays_in_both_directions(hidden, found):
    leaf = hidden.clone().requires_grad_()
    pasted = paste(leaf, found, PARTNER, (2, 3))
    assert pasted.stride() == hidden.stride()
    assert torch.equal(pasted, naive.paste(hidden, positions(found), PARTNER.tolist(), (2, 3)))
    (grad,) = torch.autograd.grad(pasted, leaf, torch.randn_like(hidden))
    assert grad.stride() == hidden.stride()


@pytest.mark.parametrize("found", [INSIDE, OUTSIDE, Region((4, 6), ((1, 1), (0, 4)))])
def test_what_comes_out_is_no_view_and_the_hidden_state_stays(found):
    hidden = torch.randn(5, 3, 4, 6)
    before, pasted = hidden.clone(), paste(hidden, found, PARTNER, (2, 3))
    assert not pasted._is_view()
    pasted.zero_()
    assert torch.equal(hidden, before)


@pytest.mark.parametrize("found", [INSIDE, OUTSIDE])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
def test_a_paste_takes_one_fresh_buffer_in_each_direction(found, memory_format):
    hidden = torch.randn(5, 2048, 4, 6).contiguous(memory_format=memory_format).requires_grad_()
    upstream = torch.randn_like(hidden)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        torch.autograd.grad(paste(hidden, found, PARTNER, (2, 3)), hidden, upstream)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    large = [e.nbytes() for e in events if e.nbytes() > hidden.nbytes / 8]
    assert large == [hidden.nbytes] * 2


def test_it_composes_with_vmap_and_grad():
    hidden = torch.randn(2, 5, 3, 4, 6)
    partner = torch.stack([PARTNER, PARTNER.flip(0)])
    for found in (INSIDE, OUTSIDE):
        ours = torch.func.vmap(lambda h, p, found=found: paste(h, found, p, (2, 3)))
        expected = [paste(h, found, p, (2, 3)) for h, p in zip(hidden, partner, strict=True)]
        assert torch.equal(ours(hidden, partner), torch.stack(expected))
        loss = lambda h, found=found: paste(h, found, PARTNER, (2, 3)).sin().sum()  # noqa: E731
        leaf = hidden[0].clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(leaf), leaf)
        torch.testing.assert_close(torch.func.grad(loss)(hidden[0]), grad)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_graph_serves_for_every_box(backend):
    torch.compiler.reset()

    def pasted(hidden, edges, partner):
        return paste_where(hidden, mask_of(edges, (4, 6)), partner, (2, 3))

    compiled = torch.compile(pasted, fullgraph=True, backend=backend)
    hidden = torch.randn(5, 3, 4, 6).contiguous(memory_format=LAST).requires_grad_()
    with torch.compiler.set_stance("default"):
        for i, plan in enumerate(drawn(20)):
            edges = edges_of(plan.nominal, plan.box.tolist())
            stance = "default" if i == 0 else "fail_on_recompile"
            with torch.compiler.set_stance(stance):
                ours = compiled(hidden, edges, plan.partner)
            theirs = paste(hidden, plan.region_in((4, 6)), plan.partner, (2, 3))
            assert torch.equal(ours, theirs)
            assert ours.stride() == hidden.stride()
            upstream = torch.randn_like(hidden)
            grads = [torch.autograd.grad(each, hidden, upstream)[0] for each in (ours, theirs)]
            assert torch.equal(*grads)


def test_the_input_is_pasted_as_torchvision_does():
    images, labels = torch.rand(5, 3, 8, 10), torch.arange(5)
    torch.manual_seed(3)
    cutmix = v2.CutMix(num_classes=5, alpha=1.0)
    for _ in range(10):
        state = torch.get_rng_state()
        params = cutmix.make_params([tv_tensors.Image(images)])
        torch.set_rng_state(state)
        theirs, weights = cutmix(images, labels)
        x1, y1, x2, y2 = params["box"]
        found = Region((8, 10), ((y1, y2), (x1, x2)))
        partner = torch.arange(5).roll(1)
        assert torch.equal(paste(images, found, partner, (2, 3)), theirs)
        assert weights[0, 0] == pytest.approx(found.lam, abs=1e-6)


def test_a_plan_knows_its_real_lam_once_it_knows_the_sizes():
    plan = MixPlan("0", torch.tensor(0.2), PARTNER, torch.tensor([0.5, 0.5, 0.5]))
    real = plan.at((10,), (20, 20))
    assert (float(real.lam), real.lam.dtype, real.region.input_space) == (
        *(pytest.approx(0.8), torch.float64),
        (20, 20),
    )
    assert real.nominal == plan.nominal
    assert real.at((10,)).region.bounds == real.region.bounds
