"""Hidden states recorded by hooks, and their spectra batch by batch."""

import naive
import pytest
import torch
from torch import nn

from lightning_mmix.evaluation.hidden import Spectra, recorded
from lightning_mmix.evaluation.predictions import Predictor

X, Y = torch.randn(11, 4), torch.arange(11) % 3


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


class Of(nn.Module):
    """Passes on what its one layer puts out."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


class Split(nn.Module):
    def forward(self, x):
        return {"ids": x.argmax(1), "states": [x.unflatten(1, (2, 2)), x]}


@pytest.mark.parametrize(
    ("layer", "x", "pooled"),
    [
        (nn.Identity(), X, lambda x: x),
        (nn.Tanh(), torch.randn(3, 2, 4, 5), lambda x: torch.tanh(x).flatten(2).mean(2)),
        (nn.Tanh(), torch.randn(3, 2, 4, 5, 6), lambda x: torch.tanh(x).flatten(2).mean(2)),
        (nn.Tanh(), torch.randn(3, 7, 2), lambda x: torch.tanh(x).sum(1) / 7),
        (Split(), X, lambda x: (x[:, :2] + x[:, 2:]) / 2),
    ],
)
def test_states_are_pooled_to_a_vector_a_sample(layer, x, pooled):
    model = Of(layer)
    with recorded(model, ["layer"]) as states:
        model(x.requires_grad_(x.is_floating_point()))
    torch.testing.assert_close(states, {"layer": pooled(x.detach())})
    assert not states["layer"].requires_grad


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_the_states_of_a_recurrent_layer_are_pooled_over_time(kind, batch_first):
    layer, x = kind(4, 2, batch_first=batch_first), torch.randn(3, 7, 4)
    model, x = Of(layer), x if batch_first else x.transpose(0, 1)
    with recorded(model, ["layer"]) as states:
        sequence, _ = model(x)
    torch.testing.assert_close(states["layer"], sequence.detach().mean(1 if batch_first else 0))


def test_globs_are_resolved_and_the_last_pass_counts():
    model = network()
    with recorded(model, ["?"]) as states:
        model(X[:2])
        model(X)
    assert list(states) == ["0", "1", "2"]
    assert torch.equal(states["1"], model[:2](X))


def forward(model, x, layers=("*",)):
    with recorded(model, layers):
        model(x)


def test_no_hook_is_left_behind_also_after_an_exception():
    model = network()
    forward(model, X)
    with pytest.raises(RuntimeError):
        forward(model, X[:, :3])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_is_not_there_is_refused_before_there_is_a_hook():
    model = network()
    with pytest.raises(ValueError, match="there is no layer '7'; did you mean"):
        forward(model, X, ["1", "7"])
    with pytest.raises(ValueError, match="there is no layer '7'; did you mean"):
        Spectra(Predictor(model), ["7"])
    assert not model[1]._forward_hooks


def test_the_spectra_are_those_of_all_states_of_each_class():
    model = network()
    spectra = Spectra(Predictor(model), ["0", "1"])
    for rows in (slice(0, 4), slice(4, 11)):
        preds, target = spectra.update((X[rows], Y[rows]))
        assert torch.equal(preds, model(X[rows]))
        assert torch.equal(target, Y[rows])
    found = spectra.compute()
    for name, states in {"0": model[:1](X), "1": model[:2](X)}.items():
        expected = naive.singular_values(states.detach(), Y, 3, centred=True)
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_only_the_first_samples_count_if_so_many_are_asked_for():
    counted, plain = (Spectra(Predictor(network()), ["1"]) for _ in range(2))
    preds, target = counted.update((X, Y), 5)
    assert len(preds) == len(target) == 5
    plain.update((X[:5], Y[:5]))
    torch.testing.assert_close(counted.compute(), plain.compute(), rtol=1e-5, atol=1e-7)


def test_two_classes_with_one_score_have_two_spectra():
    model, y = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 1)), (Y > 0).float()
    spectra = Spectra(Predictor(model), ["0"])
    spectra.update((X, y))
    expected = naive.singular_values(model[0](X).detach(), y, 2, centred=True)
    torch.testing.assert_close(spectra.compute()["0"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("most", "left"), [(48, ["2"]), (107, ["2"]), (108, ["0", "1", "2"])])
def test_a_layer_of_too_many_moments_is_left_out(most, left):
    spectra = Spectra(Predictor(network()), ["?"], most=most)
    spectra.update((X, Y))
    assert spectra.layers == ["0", "1", "2"]
    assert list(spectra.compute()) == left


def test_without_layers_there_are_predictions_and_no_spectra():
    spectra = Spectra(Predictor(network()), [])
    preds, _ = spectra.update((X, torch.zeros_like(Y)))
    assert torch.equal(preds, network()(X))
    assert spectra.compute() == {}


class Skipped(Of):
    def __init__(self, skipped):
        super().__init__(network())
        self.skipped = skipped

    def forward(self, x):
        return super().forward(x)


class Turned(Skipped):
    def forward(self, x):
        self.skipped(x.T)
        return super().forward(x)


class Ids(nn.Module):
    def forward(self, x):
        return x.argmax(1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Skipped(nn.Tanh()), r"layer 'skipped' did not run, or put out no floating"),
        (Turned(nn.Tanh()), r"of shape \(11, \.\.\.\), the batch first, but got \(4, 11\) after a"),
        (Turned(Ids()), r"layer 'skipped' did not run"),
    ],
)
def test_a_layer_without_states_of_the_batch_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        Spectra(Predictor(model), ["skipped"]).update((X, Y))


def test_a_process_without_a_batch_takes_the_sizes_of_the_others():
    spectra = Spectra(Predictor(network()), ["0", "1"])
    others = torch.tensor([[3, 6], [0, 0]])
    with pytest.warns(UserWarning, match="was called before the ``update``"):
        found = spectra.compute(lambda own: torch.maximum(own, others))
    assert found["0"].tolist() == [[0] * 6] * 3
    assert "1" not in found


def test_states_that_are_nan_have_a_spectrum_that_is_nan():
    spectra = Spectra(Predictor(network()), ["1"])
    spectra.update((X * torch.nan, Y))
    assert spectra.compute()["1"].isnan().all()
    assert spectra.compute()["1"].shape == (3, 6)


def test_states_of_an_ignored_label_are_of_no_class():
    torch.manual_seed(4)
    model, x, target = (
        nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)),
        torch.randn(9, 4),
        torch.arange(9) % 3,
    )
    target[[0, 4, 5]] = 255
    kept = target != 255
    spectra = Spectra(Predictor(model, ignore_index=255), ["0"])
    _, labels = spectra.update((x, target), 7)
    expected = Spectra(Predictor(model), ["0"])
    expected.update((x[:7][kept[:7]], target[:7][kept[:7]]))
    assert torch.equal(labels, target[:7])
    torch.testing.assert_close(spectra.compute()["0"], expected.compute()["0"])
