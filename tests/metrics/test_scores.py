import naive
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from lightning_mmix.metrics.samples import log_probabilities, samples
from lightning_mmix.metrics.scores import brier_sum, correct_sum, nll_sum

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
    # class by class, since older versions know two classes alone
    each = [brier_score_loss(label == TARGET, column) for label, column in enumerate(probs.T)]
    assert float(brier_sum(log_probs, TARGET)) == pytest.approx(57 * sum(each))
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
