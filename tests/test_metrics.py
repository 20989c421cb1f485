import pickle

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_mmix.metrics import BrierScore, CalibrationError, NegativeLogLikelihood

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)
METRICS = [NegativeLogLikelihood, BrierScore, CalibrationError]


@pytest.mark.parametrize("cls", METRICS)
def test_the_sum_over_parts_is_the_whole(cls):
    whole, parts, other = cls(), cls(), cls()
    whole.update(LOGITS, TARGET)
    parts.update(LOGITS[:20], TARGET[:20])
    parts.update(LOGITS[20:20], TARGET[20:20])
    other.update(LOGITS[20:], TARGET[20:])
    parts.merge_state(other)
    torch.testing.assert_close(parts.compute(), whole.compute())


@pytest.mark.parametrize("cls", METRICS)
def test_the_form_of_the_predictions_is_a_choice(cls):
    torch.testing.assert_close(
        cls(form="probabilities")(LOGITS.softmax(1), TARGET), cls()(LOGITS, TARGET)
    )


@pytest.mark.parametrize("cls", METRICS)
def test_the_state_is_of_fixed_size_and_pickles(cls):
    metric = cls()
    before = {name: getattr(metric, name).shape for name in metric._defaults}
    metric.update(LOGITS, TARGET)
    assert {name: getattr(metric, name).shape for name in metric._defaults} == before
    copied = pickle.loads(pickle.dumps(metric))
    assert copied.compute() == metric.compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("cls", METRICS)
def test_without_samples_the_score_is_nan(cls):
    assert cls().compute().isnan()


def test_they_work_in_a_collection():
    collection = MetricCollection({cls.__name__: cls() for cls in METRICS})
    scores = collection(LOGITS, TARGET)
    assert scores == {cls.__name__: cls()(LOGITS, TARGET) for cls in METRICS}


def test_a_collection_tells_them_apart_after_perfect_predictions():
    collection = MetricCollection({cls.__name__: cls() for cls in METRICS})
    perfect = torch.eye(4)[TARGET] * 1000
    for logits in (perfect, LOGITS):
        collection.update(logits, TARGET)
    for cls in METRICS:
        alone = cls()
        alone.update(torch.cat([perfect, LOGITS]), TARGET.repeat(2))
        torch.testing.assert_close(collection.compute()[cls.__name__], alone.compute())


def test_bins_out_of_range_are_refused():
    with pytest.raises(ValueError, match="expected num_bins ≥ 1, but got 0"):
        CalibrationError(0)
