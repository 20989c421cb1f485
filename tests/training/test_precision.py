"""Dtypes, memory formats, clipping and torch's own switches, against the naive two-pass form."""

import copy
from contextlib import nullcontext

import naive
import pytest
import torch
import torch.nn.functional as F
from fitting import batches, fit
from stepped import LAYERS, Stepped, Steps, assert_same_weights, mixup, trained_naively
from torch import nn

from lightning_mmix import ManifoldMixup

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="16-mixed runs on CUDA only")


class Watched(Stepped):
    def training_step(self, batch, batch_idx):
        self.loss = super().training_step(batch, batch_idx)
        return self.loss

    def on_before_optimizer_step(self, optimizer):  # unscaled by now
        self.grads = [p.grad.clone() for p in self.parameters()]


def steep():
    """A module, input and target whose loss is changed far more by mixing than by rounding."""
    module, ((x, _),) = Watched(), batches()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(4)
    return module, x, module(x).argmax(1)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [
        ("32-true", torch.float32, 1e-6),
        ("64-true", torch.float64, 1e-10),
        ("bf16-true", torch.bfloat16, 2e-2),
        ("16-true", torch.float16, 2e-3),
        ("bf16-mixed", torch.float32, 2e-2),
        pytest.param("16-mixed", torch.float32, 2e-3, marks=NEEDS_CUDA),
    ],
)
def test_any_precision_gives_the_naive_loss_and_gradients(precision, dtype, tolerance, layer):
    device = "cuda" if precision == "16-mixed" else "cpu"
    half = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)
    module, x, y = steep()
    naively, callback = (
        copy.deepcopy(module).to(device, dtype),
        ManifoldMixup(layers=[layer], stop=1.0),
    )
    fit(module, callback, data=[(x, y)], precision=precision, accelerator=device)
    x, y = x.to(device, dtype), y.to(device)
    with torch.autocast(device, half) if half else nullcontext():
        loss, grads = naive.step(naively, callback.plan, (x, y))
        plain = F.cross_entropy(naively(x), y)
    near = {"atol": tolerance, "rtol": 0, "check_dtype": False, "check_device": False}
    torch.testing.assert_close(module.loss, loss, **near)
    torch.testing.assert_close(module.grads, list(grads), **near)
    assert all(grad.dtype == dtype for grad in module.grads)
    assert abs(plain - loss) > 10 * tolerance


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipped_gradients_give_the_naive_weights(float64, algorithm, every):
    clip = getattr(nn.utils, f"clip_grad_{algorithm}_")
    kwargs = {"gradient_clip_val": 0.02, "gradient_clip_algorithm": algorithm}
    module, steps = Stepped(), Steps()
    before = copy.deepcopy(module)
    fit(module, steps, mixup(), data=batches(5), accumulate_grad_batches=every, **kwargs)
    naively = trained_naively(before, steps.seen, every, clip=lambda p: clip(p, 0.02))
    unclipped = trained_naively(before, steps.seen, every)
    assert_same_weights(module, naively)
    with pytest.raises(AssertionError):
        assert_same_weights(module, unclipped)


@pytest.fixture
def _switches():
    yield
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)


class Folded(Stepped):
    """Images whose hidden states lie in memory with the channels last."""

    def __init__(self):
        super().__init__()
        body = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(30, 5))
        self.net = body.to(memory_format=torch.channels_last)
        self.formats = []
        self.net[2].register_forward_pre_hook(self._look)

    def _look(self, module, args):
        self.formats.append(args[0].is_contiguous(memory_format=torch.channels_last))


class Spectral(Stepped):
    """Hidden states, and weights, that are complex."""

    def __init__(self):
        super().__init__()

        class Fourier(nn.Module):
            def forward(self, x):
                return torch.fft.fft(x)

        class Modulus(nn.Module):
            def forward(self, z):
                return z.abs()

        inner = nn.Linear(4, 6, dtype=torch.complex128)
        self.net = nn.Sequential(Fourier(), inner, Modulus(), nn.Linear(6, 5))


def assert_trains_naively(module, data, **kwargs):
    before, steps = copy.deepcopy(module), Steps()
    fit(module, steps, mixup(), data=data, **kwargs)
    assert_same_weights(module, trained_naively(before, steps.seen))


@pytest.mark.usefixtures("_switches")
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("switch", ["detect_anomaly", "deterministic"])
@pytest.mark.parametrize("kind", [Stepped, Folded, Spectral])
def test_torchs_own_switches_change_nothing(float64, switch, kind):
    data = images(5) if kind is Folded else batches(5)
    assert_trains_naively(kind(), data, **{switch: True})


def images(count):
    shaped = [torch.randn(6, 3, 3, 4) for _ in range(count)]
    labels = [y for _, y in batches(count)]
    return [
        (x.contiguous(memory_format=torch.channels_last), y)
        for x, y in zip(shaped, labels, strict=True)
    ]


def test_channels_last_stays_so_and_gives_the_naive_weights(float64):
    module, data = Folded(), images(5)
    assert_trains_naively(module, data)
    assert len(module.formats) >= 5
    assert all(module.formats)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x, _ in data)


def test_complex_hidden_states_give_the_naive_weights(float64):
    assert_trains_naively(Spectral(), batches(5))


def test_a_complex_input_is_refused(float64):
    message = r"expected a floating-point input to mix, but got complex128 \(6, 4\); mix the layer"
    ((x, y),) = batches()
    with pytest.raises(TypeError, match=message):
        fit(Spectral(), mixup(layers=["input"], verify=False), data=[(x + 1j, y)])
