import naive
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from lightning_mmix.metrics.samples import log_probabilities, samples
from lightning_mmix.metrics.scores import (
    brier_sum,
    correct_sum,
    nll_sum,
    temperature_scaling,
    tempered,
)

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)
FORMS = {"logits": lambda scores: scores, "probabilities": torch.sigmoid}


def binary(*shape):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(shape, generator=generator)
    return scores, torch.randint(2, shape, generator=generator)


def test_nll_and_brier_are_those_of_a_sample_at_a_time():
    log_probs = log_probabilities(LOGITS)
    assert float(nll_sum(log_probs, TARGET) / 57) == pytest.approx(
        float(naive.negative_log_likelihood(LOGITS, TARGET))
    )
    assert float(brier_sum(log_probs, TARGET) / 57) == pytest.approx(
        float(naive.brier(LOGITS, TARGET))
    )


def test_the_scores_are_those_of_sklearn():
    log_probs = log_probabilities(LOGITS.double())
    probs = log_probs.exp()
    assert float(nll_sum(log_probs, TARGET)) == pytest.approx(57 * log_loss(TARGET, probs))
    assert float(brier_sum(log_probs, TARGET)) == pytest.approx(
        57 * brier_score_loss(TARGET, probs)
    )
    assert int(correct_sum(log_probs, TARGET)) == 57 * accuracy_score(TARGET, probs.argmax(1))


def test_a_perfect_prediction_has_brier_zero_and_the_worst_two():
    perfect = torch.eye(3).log()
    assert float(brier_sum(perfect, torch.arange(3))) == 0
    assert float(brier_sum(perfect, torch.tensor([1, 2, 0]))) == 6


@pytest.mark.parametrize("form", FORMS)
def test_binary_scores_are_those_of_sklearn(form):
    scores, target = binary(30)
    preds = FORMS[form](scores.double())
    probs, rows = scores.double().sigmoid(), samples(preds, target, form)
    assert float(nll_sum(*rows)) == pytest.approx(30 * log_loss(target, probs))
    assert float(brier_sum(*rows)) == pytest.approx(2 * 30 * brier_score_loss(target, probs))
    assert int(correct_sum(*rows)) == 30 * accuracy_score(target, probs > 0.5)


def mean_nll(logits, target):
    return float(nll_sum(*samples(logits, target)) / target.numel())


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_the_temperature_is_the_minimum_that_scipy_finds(scale):
    logits = scale * (LOGITS + torch.eye(4)[TARGET]).double()
    found = minimize_scalar(
        lambda cold: mean_nll(logits * cold, TARGET), bounds=(0.01, 100), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    assert 0.1 < found.x < 10
    assert float(temperature_scaling(logits, TARGET)) == pytest.approx(1 / found.x, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_recovered(temperature):
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    target = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    found = temperature_scaling(logits, target)
    assert float(found) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("form", FORMS)
def test_the_temperature_of_one_score_a_label_is_that_of_two_classes(form):
    scores, target = binary(6, 5)
    preds, two = FORMS[form](scores), naive.two_classes(scores, "logits")
    expected = temperature_scaling(two, target.flatten())
    torch.testing.assert_close(
        temperature_scaling(preds, target, form), expected, rtol=1e-5, atol=0
    )


def test_the_temperature_of_probabilities_is_that_of_their_logits():
    logits = LOGITS + torch.eye(4)[TARGET]
    expected = temperature_scaling(logits, TARGET)
    found = temperature_scaling(logits.softmax(1), TARGET, "probabilities")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("shift", "end"), [(0, 0.01), (1, 100.0)])
def test_where_all_is_right_or_wrong_the_temperature_is_an_end(shift, end):
    logits = 2 * torch.eye(4)[(TARGET + shift) % 4]
    assert float(temperature_scaling(logits, TARGET)) == pytest.approx(end)


def test_a_probability_of_zero_that_was_wrong_gives_the_upper_end():
    probs = torch.eye(4)[torch.tensor([0, 1, 2, 3])]
    found = temperature_scaling(probs, torch.tensor([0, 1, 2, 0]), "probabilities")
    assert float(found) == pytest.approx(100)


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_scaling_lowers_the_nll_and_leaves_the_accuracy(scale):
    logits = scale * (LOGITS + torch.eye(4)[TARGET])
    scaled = logits / temperature_scaling(logits, TARGET)
    assert mean_nll(scaled, TARGET) < mean_nll(logits, TARGET)
    assert torch.equal(scaled.argmax(1), logits.argmax(1))
    assert temperature_scaling(scaled, TARGET) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("shape", [(12,), (6, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_one_score_a_label_is_tempered_as_one(shape, form):
    scores, target = binary(*shape)
    found, labels = tempered(FORMS[form](scores), target, torch.tensor(3.0), form)
    torch.testing.assert_close(found, scores.flatten() / 3, rtol=1e-5, atol=1e-6)
    assert torch.equal(labels, target.flatten())


@pytest.mark.parametrize("form", FORMS)
def test_classes_are_tempered_up_to_a_shift_of_the_logits(form):
    preds = LOGITS if form == "logits" else LOGITS.softmax(1)
    temperature = torch.tensor(3.0, dtype=torch.float64)
    found, labels = tempered(preds, TARGET, temperature, form)
    torch.testing.assert_close(found.softmax(1), (LOGITS / 3).softmax(1))
    assert torch.equal(labels, TARGET)


def test_no_samples_have_no_temperature():
    with pytest.raises(ValueError, match="at least one sample to fit a temperature to, but got no"):
        temperature_scaling(LOGITS[:0], TARGET[:0])


@pytest.mark.parametrize("void", [-100, 255, 2])
def test_the_temperature_leaves_out_what_is_ignored(void):
    logits = LOGITS + torch.eye(4)[TARGET]
    target = torch.where(torch.arange(57) % 5 == 0, void, TARGET)
    kept = target != void
    expected = temperature_scaling(logits[kept], target[kept])
    torch.testing.assert_close(temperature_scaling(logits, target, ignore_index=void), expected)
    found = tempered(logits, target, expected, ignore_index=void)
    for ours, theirs in zip(found, tempered(logits[kept], target[kept], expected), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_temperature_of_nothing_but_ignored_labels_is_refused():
    with pytest.raises(ValueError, match="at least one sample to fit a temperature to, but got no"):
        temperature_scaling(LOGITS, TARGET.new_full((57,), -1), ignore_index=-1)


def test_a_temperature_of_probabilities_that_are_called_logits_is_doubted():
    with pytest.warns(UserWarning, match=r"lie in \[0, 1\] and sum to one over the classes"):
        temperature_scaling(LOGITS.softmax(1), TARGET)
