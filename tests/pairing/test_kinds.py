"""Steps of other kinds than mixup: boxes, masks that go along, and a weight for each sample."""

import naive
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_mmix import mixed_loss, mixing
from lightning_mmix.core.plan import Recipe, draw
from lightning_mmix.metrics.classification import MixedAccuracy
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.step import Step
from lightning_mmix.proof.agreement import agreement
from lightning_mmix.proof.naive import Trial

WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
Y = torch.tensor([0, 3, 1, 2, 1])


def plan_of(layer, batch_idx=0, **kwargs):
    kwargs = {"kind": "cutmix", **kwargs}
    return draw(Recipe(1.0, {layer: 1.0}, **kwargs), 5, seed=3, batch_idx=batch_idx)


def pictures():
    torch.manual_seed(1)
    body = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, 2), nn.Tanh()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(6 * 3 * 4, 4))


def images():
    return torch.randn(5, 3, 7, 9, generator=torch.Generator().manual_seed(2))


def criterion(z, y):
    return F.cross_entropy(z, y, weight=WEIGHT.to(z.dtype), label_smoothing=0.1)


def real(plan, space):
    """The positions that are taken, and what is left to the sample."""
    positions = naive.taken(float(plan.lam), plan.box.tolist(), space)
    return positions, 1 - len(positions) / torch.Size(space).numel()


def naive_loss(model, run, plan, dims):
    """λ·L(y) + (1 - λ)·L(y[partner]) with the layer pasted a position at a time, in two passes."""
    lams = []

    def hook(module, args, output):
        space = [output.shape[dim] for dim in dims]
        positions, lam = real(plan, space)
        lams.append(lam)
        return naive.paste(output, positions, plan.partner.tolist(), dims)

    handle = dict(model.named_modules())[plan.layer].register_forward_hook(hook)
    first, second = run(Y), run(Y[plan.partner])
    handle.remove()
    return lams[0] * first + (1 - lams[0]) * second


def assert_exact(model, found, expected):
    loss, grads = found
    theirs = torch.autograd.grad(expected, list(model.parameters()), materialize_grads=True)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(grads, theirs, atol=1e-10, rtol=0)


def mixed(model, run, plan, y=Y, **kwargs):
    with mixing(model, plan, y.clone(), **kwargs) as target:
        loss = run(target)
        grads = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return loss, grads


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_a_box_has_the_naive_loss_and_gradients(float64, layer, memory_format):
    model = pictures().to(memory_format=memory_format)
    x = images().contiguous(memory_format=memory_format)
    run = lambda y: criterion(model(x), y)  # noqa: E731
    for i in range(6):
        plan = plan_of(layer, i)
        assert_exact(model, mixed(model, run, plan), naive_loss(model, run, plan, (2, 3)))


def test_a_box_in_the_input_has_the_naive_loss_and_the_input_comes_back(float64):
    model, x = pictures(), images()
    before = x.clone()
    for i in range(6):
        plan = plan_of("input", i)
        found = mixed(model, lambda y: criterion(model(x), y), plan, input=x)
        assert torch.equal(x, before)
        positions, lam = real(plan, (7, 9))
        pasted = naive.paste(x, positions, plan.partner.tolist(), (2, 3))
        z = model(pasted)
        expected = lam * criterion(z, Y) + (1 - lam) * criterion(z, Y[plan.partner])
        assert_exact(model, found, expected)


class Tokens(nn.Module):
    """Of shape (B, T, C) from a recurrent layer, with its last states in use."""

    def __init__(self, batch_first, cls=nn.LSTM):
        super().__init__()
        torch.manual_seed(1)
        self.rnn = cls(3, 4, num_layers=2, batch_first=batch_first, bidirectional=True)
        self.drop, self.head = nn.Identity(), nn.Linear(8, 4)
        self.batch_first = batch_first

    def forward(self, x):
        sequence, states = self.rnn(x if self.batch_first else x.transpose(0, 1))
        self.sequence, self.states = sequence, states
        sequence = sequence if self.batch_first else sequence.transpose(0, 1)
        states = states[0] if isinstance(states, tuple) else states
        return self.head(self.drop(sequence).mean(1) + states[-2:].transpose(0, 1).flatten(1))


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_last_states_come_from_whoever_has_their_position(batch_first, cls):
    model, x = Tokens(batch_first, cls), torch.randn(5, 32, 3)
    for i in range(6):
        plan = plan_of("rnn", i)
        with torch.no_grad(), mixing(model, plan):
            model(x)
        sequence, states = model.sequence, model.states
        model(x)
        positions, _ = real(plan, (32,))
        rows = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
        expected = naive.paste(rows(model.sequence), positions, plan.partner.tolist(), (1,))
        assert torch.equal(rows(sequence), expected)
        states = states if cls is nn.LSTM else [states]
        plain = model.states if cls is nn.LSTM else [model.states]
        # the hidden state of the upper layer is the end of the sequence
        assert torch.equal(states[0][2], expected[:, -1, :4])
        assert torch.equal(states[0][3], expected[:, 0, 4:])
        for state, before in zip(states, plain, strict=True):
            for index, at in enumerate([31, 0, 31, 0]):
                order = plan.partner if (at,) in positions else torch.arange(5)
                assert torch.equal(state[index], before[index][order])


def test_tokens_have_the_naive_loss_and_gradients(float64):
    model, x = Tokens(True), torch.randn(5, 6, 3)
    run = lambda y: criterion(model(x), y)  # noqa: E731
    plan = plan_of("drop")
    assert_exact(model, mixed(model, run, plan), naive_loss(model, run, plan, (1,)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_computed_again_is_pasted_again(float64, reentrant):
    model, x = pictures(), images().requires_grad_()

    def run(y):
        hidden = checkpoint(model[:4], x, use_reentrant=reentrant)
        return criterion(model[4:](hidden), y)

    plan = plan_of("0")
    with mixing(model, plan, Y.clone()) as target:
        run(target).backward()
    grads = tuple(p.grad for p in model.parameters())
    run = lambda y: criterion(model(x), y)  # noqa: E731
    expected = naive_loss(model, run, plan, (2, 3))
    assert_exact(model, (expected, grads), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("layer", ["0", "2"])
def test_one_graph_serves_for_all_boxes(float64, layer):
    torch.compiler.reset()
    model, x = pictures(), images()
    plain = pictures()
    model.compile(backend="aot_eager", fullgraph=True)
    gates = Gates(model, [layer])
    for i in range(6):
        plan = plan_of(layer, i)
        with torch.compiler.set_stance("default" if i == 0 else "fail_on_recompile"):
            found = mixed(gates_of(gates), lambda y: criterion(model(x), y), plan)
        expected = naive_loss(plain, lambda y: criterion(plain(x), y), plan, (2, 3))
        assert_exact(plain, found, expected)
    gates.remove()
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_kinds_may_change_from_step_to_step_in_two_graphs(float64):
    torch.compiler.reset()
    model, x, plain = pictures(), images(), pictures()
    model.compile(backend="aot_eager", fullgraph=True)
    gates = gates_of(Gates(model, ["0"]))
    run = lambda y: criterion(plain(x), y)  # noqa: E731
    for i in range(8):
        plan = plan_of("0", i, kind=["cutmix", "mixup"][i % 2])
        with torch.compiler.set_stance("default" if i < 2 else "fail_on_recompile"):
            found = mixed(gates, lambda y: criterion(model(x), y), plan)
        if plan.kind == "cutmix":
            expected = naive_loss(plain, run, plan, (2, 3))
        else:
            expected = naive.two_pass(run, plan, dict(plain.named_modules()), Y)
        assert_exact(plain, found, expected)
    gates.remove()
    torch.compiler.reset()


def gates_of(gates):
    gates.parameters = gates.model.parameters
    return gates


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_graph_of_any_size_takes_boxes_masks_and_lams(float64):
    torch.compiler.reset()
    model, plain = same_size(), same_size()
    model.compile(backend="aot_eager", fullgraph=True, dynamic=True)
    gates = gates_of(Gates(model, ["0"]))
    for i, width in enumerate([9, 8, 7, 9, 6]):
        x = torch.randn(5, 3, 7, width)
        masks = torch.randint(0, 4, (5, 7, width))
        plan = plan_of("0", i)
        run = lambda y, x=x, model=model: criterion(model(x), y)  # noqa: E731
        found = mixed(gates, run, plan, masks, input=x)
        positions, _ = real(plan, (7, width))
        handle = plain[0].register_forward_hook(
            lambda m, a, out, positions=positions, plan=plan: naive.paste(
                out, positions, plan.partner.tolist(), (2, 3)
            )
        )
        pasted = naive.paste(masks, positions, plan.partner.tolist(), (1, 2))
        assert_exact(plain, found, criterion(plain(x), pasted))
        handle.remove()
    gates.remove()
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays(dtype):
    layer = nn.ModuleDict({"a": nn.Identity()})
    plan, hidden = plan_of("a"), torch.randn(5, 3, 7, 9).to(dtype)
    with mixing(layer, plan):
        pasted = layer["a"](hidden)
    assert pasted.dtype == dtype
    expected = naive.paste(hidden, real(plan, (7, 9))[0], plan.partner.tolist(), (2, 3))
    assert torch.equal(pasted, expected)


def segmenter():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(6, 4, 1), Up()
    )


def same_size():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 1))


class Up(nn.Module):
    def forward(self, h):
        return h.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :7]


class Cropped(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net, self.width = segmenter(), width

    def forward(self, x):
        return self.net(x)[..., : self.width]


@pytest.fixture
def masks():
    return torch.randint(0, 4, (5, 7, 9))


def boxed(model, run, plan, target, dims, **kwargs):
    """The same with the target pasted by hand, and the layer, unless it is the input."""
    positions, lam = real(plan, (7, 9))
    pasted = naive.paste(target, positions, plan.partner.tolist(), dims)
    if plan.layer == "input":
        return run(pasted), lam
    hook = lambda m, a, out: naive.paste(out, positions, plan.partner.tolist(), (2, 3))  # noqa: E731
    handle = dict(model.named_modules())[plan.layer].register_forward_hook(hook)
    loss = run(pasted)
    handle.remove()
    return loss, lam


@pytest.mark.parametrize("layer", ["input", "net.0"])
@pytest.mark.parametrize("form", ["(B, H, W)", "(B, 1, H, W)", "(B, H, W, C)"])
def test_a_mask_is_pasted_in_the_same_box(float64, layer, form, masks):
    model, x = Cropped(9), images()
    dims = (2, 3) if form == "(B, 1, H, W)" else (1, 2)
    target = {"(B, H, W)": masks, "(B, 1, H, W)": masks[:, None]}.get(form, F.one_hot(masks, 4))

    def run_on(x):
        def run(y):
            y = y.squeeze(1) if form == "(B, 1, H, W)" else y
            y = y.movedim(3, 1).double() if form == "(B, H, W, C)" else y
            return criterion(model(x), y)

        return run

    for i in range(4):
        plan, lent = plan_of(layer, i), target.clone()
        before = lent.clone()
        found = mixed(model, run_on(x), plan, lent, input=x)
        inner = x
        if layer == "input":
            inner = naive.paste(x, real(plan, (7, 9))[0], plan.partner.tolist(), (2, 3))
        expected, _ = boxed(model, run_on(inner), plan, target, dims)
        assert_exact(model, found, expected)
        assert torch.equal(lent, before)


def test_masks_go_along_and_labels_are_paired_in_one_step(float64, masks):
    model, x, plan = Cropped(9), images(), plan_of("net.0", 2)
    gates, step = Gates(model, ["net.0"]), Step(plan, model)
    labels, lent = Y.clone(), masks.clone()

    def run(y, labels):
        z = model(x)
        return criterion(z, y) + criterion(z.mean((2, 3)), labels)

    gates.arm(step, [lent, labels], x)
    assert (step.pastes, step.pairs, step.realised) == (True, True, plan)
    loss = run(lent, labels)
    found = loss.detach(), torch.autograd.grad(loss, list(model.parameters()))
    gates.disarm()
    first, lam = boxed(model, lambda y: run(y, Y), plan, masks, (1, 2))
    second, _ = boxed(model, lambda y: run(y, Y[plan.partner]), plan, masks, (1, 2))
    assert_exact(model, found, lam * first + (1 - lam) * second)
    assert torch.equal(lent, masks)
    assert float(step.lam) == float(step.realised.lam) == pytest.approx(lam)
    assert step.realised.region.input_space == (7, 9)


def test_a_layer_with_other_positions_than_the_mask_is_refused(masks):
    model, x, plan = Cropped(9), images(), plan_of("net.1")
    message = r"layer 'net.1' puts out \(4, 5\) positions, and the target, .*, has \(7, 9\); mix"
    with pytest.raises(ValueError, match=message), mixing(model, plan, masks, input=x):
        model(x)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ValueError, match="input, which is not recognised"):
        mixing(model, plan, masks).__enter__()


def test_a_mask_whose_layer_does_not_run_is_refused(masks):
    model, x, before = Cropped(9), images(), masks.clone()
    message = "layer 'net.0' did not run, but the target holds the partner's values in a box"
    plan = plan_of("net.0")
    with pytest.raises(ValueError, match=message), mixing(model, plan, masks, input=x):
        pass
    assert torch.equal(masks, before)


def test_hidden_states_with_other_positions_are_refused():
    layer = nn.ModuleDict({"a": nn.Identity()})
    message = r"layer 'a' puts out hidden states with \(7, 9\) and \(4, 9\) positions"
    with pytest.raises(ValueError, match=message), mixing(layer, plan_of("a")):
        layer["a"]((torch.ones(5, 3, 7, 9), torch.ones(5, 3, 4, 9)))
    with mixing(layer, plan_of("a")):
        layer["a"]((torch.ones(5, 3, 7, 9), torch.ones(5, 2, 7, 9)))


def test_labels_of_ids_are_pasted_as_the_tokens_are():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3))
    ids, tags, plan = torch.randint(0, 9, (5, 6)), torch.randint(0, 3, (5, 6)), plan_of("0")
    expected = naive.paste(tags, real(plan, (6,))[0], plan.partner.tolist(), (1,))
    with mixing(model, plan, tags, input=ids) as target:
        model(ids)
        assert torch.equal(target, expected)


def test_a_weight_for_each_sample_and_the_own_label_alone(float64):
    model, x = pictures(), images()
    for i, layer in enumerate(["0", "1", "2", "input"]):
        plan, y = plan_of(layer, i, kind="mixup", labels="own"), Y.clone()
        rows = plan.lam.tolist(), plan.partner.tolist()
        with mixing(model, plan, y, input=x) as target:
            assert target is y
            assert type(y) is torch.Tensor
            loss = criterion(model(x), target)
            grads = torch.autograd.grad(loss, list(model.parameters()))
        if layer == "input":
            expected = criterion(model(naive.mix_each(x, *rows)), Y)
        else:
            hook = lambda m, a, out, rows=rows: naive.mix_each(out, *rows)  # noqa: E731
            handle = model[int(layer)].register_forward_hook(hook)
            expected = criterion(model(x), Y)
            handle.remove()
        assert_exact(model, (loss, grads), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_one_graph_serves_for_all_weights_of_samples(float64):
    torch.compiler.reset()
    model, x, plain = pictures(), images(), pictures()
    model.compile(backend="aot_eager", fullgraph=True)
    gates = gates_of(Gates(model, ["0"]))
    for i in range(4):
        plan = plan_of("0", i, kind="mixup", labels="own")
        with torch.compiler.set_stance("default" if i == 0 else "fail_on_recompile"):
            found = mixed(gates, lambda y: criterion(model(x), y), plan)
        rows = plan.lam.tolist(), plan.partner.tolist()
        hook = lambda m, a, out, rows=rows: naive.mix_each(out, *rows)  # noqa: E731
        handle = plain[0].register_forward_hook(hook)
        assert_exact(plain, found, criterion(plain(x), Y))
        handle.remove()
    gates.remove()
    torch.compiler.reset()


def test_nothing_is_paired_with_own_labels():
    step = Step(plan_of("input", kind="mixup", labels="own"))
    gates, y = Gates(pictures(), []), Y.clone()
    gates.arm(step, [y], images())
    assert not step.pairs
    assert type(y) is torch.Tensor
    gates.disarm()


def test_a_mixed_loss_takes_the_real_lam_and_pastes_masks(float64, masks):
    z, nominal = torch.randn(5, 4), plan_of("0", 1)
    with pytest.raises(ValueError, match="expected the plan of a box as its layer was mixed"):
        mixed_loss(criterion, z, Y, nominal)
    plan = nominal.at((7, 9), (7, 9))
    lam = real(nominal, (7, 9))[1]
    expected = lam * criterion(z, Y) + (1 - lam) * criterion(z, Y[plan.partner])
    torch.testing.assert_close(mixed_loss(criterion, z, Y, plan), expected)
    maps = torch.randn(5, 4, 7, 9)
    pasted = naive.paste(masks, real(nominal, (7, 9))[0], plan.partner.tolist(), (1, 2))
    torch.testing.assert_close(mixed_loss(criterion, maps, masks, plan), criterion(maps, pasted))
    both = lambda z, y: criterion(z[0], y[0]) + criterion(z[1], y[1])  # noqa: E731
    found = mixed_loss(both, (z, maps), (Y, masks), plan)
    torch.testing.assert_close(found, expected + criterion(maps, pasted))
    with pytest.raises(ValueError, match=r"puts out \(4, 5\) positions"):
        mixed_loss(criterion, maps, masks, nominal.at((4, 5), (7, 9)))


def test_a_mixed_loss_with_own_labels_is_the_criterion():
    plan, z = plan_of("0", kind="mixup", labels="own"), torch.randn(5, 4)
    assert torch.equal(mixed_loss(criterion, z, Y, plan), criterion(z, Y))


def test_a_mixed_accuracy_takes_the_real_lam_and_no_own_labels():
    z, plan = torch.randn(5, 4), plan_of("0", 1).at((7, 9))
    metric = MixedAccuracy()
    metric.update(z, Y, plan)
    assert float(metric.compute()) == pytest.approx(naive.mixed_accuracy(z, Y, plan))
    own = plan_of("0", kind="mixup", labels="own")
    with pytest.raises(ValueError, match="labels='own' mixes each sample by its own weight"):
        metric.update(z, Y, own)
    model, metric = pictures(), MixedAccuracy()
    with mixing(model, plan_of("0", 1), Y.clone()) as target:
        z = model(images())
        metric.update(z, target)
    assert float(metric.compute()) == pytest.approx(naive.mixed_accuracy(z, Y, plan))


@pytest.mark.parametrize("layer", ["input", "net.0", "net.2"])
@pytest.mark.parametrize("labels", ["labels", "masks", "own"])
def test_a_check_finds_every_kind_exact(float64, layer, labels, masks):
    model = Cropped(9)
    kwargs = {"kind": "mixup", "labels": "own"} if labels == "own" else {}
    plan = plan_of(layer, 1, **kwargs)
    target = masks if labels == "masks" else Y
    pooled = (lambda z: z) if labels == "masks" else (lambda z: z.mean((2, 3)))
    run = lambda batch: criterion(pooled(model(batch[0])), batch[1])  # noqa: E731
    gates = Gates(model, [layer])
    parameters = list(model.parameters())
    trial = Trial(run, gates, plan, (images(), target), parameters=parameters)
    found = agreement(trial, lambda batch, targets: None)
    gates.remove()
    if layer == "net.2" and labels == "masks":
        assert "puts out (4, 5) positions" in found.problem
    else:
        assert found.is_exact, found
