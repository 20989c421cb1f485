import naive
import pytest
import torch

from lightning_mmix.metrics.spectrum import (
    ClassSpectrum,
    Moments,
    class_moments,
    effective_rank,
    singular_values,
    spectrum_statistic,
)

HIDDEN, TARGET = (
    torch.randn(41, 5, generator=torch.Generator().manual_seed(1)),
    torch.arange(41) % 3,
)
CENTRED = pytest.mark.parametrize("centred", [True, False])
STATISTICS = "largest", "rest", "rank"


def spectrum(hidden, target, num_classes=3, *, centred=True):
    return singular_values(class_moments(hidden, target, num_classes), centred=centred)


@CENTRED
def test_the_values_are_those_of_each_class_by_itself(centred):
    expected = naive.singular_values(HIDDEN, TARGET, 3, centred=centred)
    found = spectrum(HIDDEN, TARGET, centred=centred)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@CENTRED
def test_moments_of_parts_add_up_to_those_of_the_whole(centred):
    parts = [class_moments(HIDDEN[i : i + 9], TARGET[i : i + 9], 3) for i in range(0, 41, 9)]
    summed = Moments(*map(sum, zip(*parts, strict=True)))
    expected = naive.singular_values(HIDDEN, TARGET, 3, centred=centred)
    found = singular_values(summed, centred=centred)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@CENTRED
def test_values_beyond_the_rank_are_zero(centred):
    generator = torch.Generator().manual_seed(2)
    states, directions = (torch.randn(n, 2, generator=generator).double() for n in (41, 5))
    flat = states @ directions.T
    found = spectrum(flat, TARGET, centred=centred)
    expected = naive.singular_values(flat, TARGET, 3, centred=centred)
    torch.testing.assert_close(found[:, :2], expected[:, :2], rtol=1e-9, atol=0)
    assert (found[:, 2:] <= 1e-7 * found[:, :1]).all()


@CENTRED
def test_a_class_of_fewer_states_than_features_has_as_many_values(centred):
    hidden, target = HIDDEN[:7], torch.tensor([0, 0, 0, 0, 1, 1, 2])
    expected = naive.singular_values(hidden, target, 3, centred=centred)
    found = spectrum(hidden, target, centred=centred)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7 * float(expected.max()))
    assert bool(found[2].any()) != centred


@pytest.mark.parametrize("offset", [1e3, -1e3])
def test_a_mean_far_from_zero_costs_no_digit_that_counts(offset):
    hidden = HIDDEN.double() + offset
    expected = naive.singular_values(hidden, TARGET, 3, centred=True)
    torch.testing.assert_close(spectrum(hidden, TARGET), expected, rtol=1e-6, atol=0)


def test_a_class_without_samples_has_no_values():
    found = spectrum(HIDDEN, TARGET, 5)
    assert not found[3:].any()
    torch.testing.assert_close(found[:3], spectrum(HIDDEN, TARGET))
    assert not spectrum(HIDDEN[:0], TARGET[:0]).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_double(dtype):
    moments = class_moments(HIDDEN.to(dtype), TARGET, 3)
    assert {part.dtype for part in moments} == {torch.float64}
    expected = naive.singular_values(HIDDEN.to(dtype), TARGET, 3, centred=True)
    torch.testing.assert_close(singular_values(moments), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equal_directions_have_their_number_as_effective_rank(k):
    values = torch.zeros(6, dtype=torch.float64)
    values[:k] = 0.3
    assert float(effective_rank(values)) == pytest.approx(k)
    assert effective_rank(torch.zeros(2, 6)).tolist() == [0, 0]


def test_the_effective_rank_is_the_exponential_of_the_entropy():
    values = spectrum(HIDDEN, TARGET)
    expected = [naive.effective_rank(row) for row in values]
    assert effective_rank(values).tolist() == pytest.approx(expected)
    torch.testing.assert_close(effective_rank(1e3 * values), effective_rank(values))


def test_the_largest_and_the_rest_are_those_of_the_paper():
    values = torch.tensor([[5.0, 2.0, 1.0], [4.0, 0.0, 0.0]])
    assert spectrum_statistic(values, "largest").tolist() == [5, 4]
    assert spectrum_statistic(values, "rest").tolist() == [3, 0]
    assert spectrum_statistic(values, "rank").tolist() == effective_rank(values).tolist()


def metric_of(*, statistic="values", centred=True, num_classes=3):
    return ClassSpectrum(num_classes, 5, statistic=statistic, centred=centred)


@CENTRED
def test_the_metric_gives_the_values_of_streamed_parts_that_are_merged(centred):
    metric, other = metric_of(centred=centred), metric_of(centred=centred)
    for i in range(0, 20, 4):
        metric.update(HIDDEN[i : i + 4], TARGET[i : i + 4])
    other.update(HIDDEN[20:], TARGET[20:])
    metric.merge_state(other)
    expected = naive.singular_values(HIDDEN, TARGET, 3, centred=centred)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_a_statistic_is_the_mean_over_the_classes_that_have_samples(statistic):
    rows = spectrum_statistic(spectrum(HIDDEN, TARGET), statistic)
    found = metric_of(statistic=statistic, num_classes=7)(HIDDEN, TARGET)
    assert float(found) == pytest.approx(sum(rows.tolist()) / 3)


def test_feature_maps_are_flattened():
    metric, maps = ClassSpectrum(3, 12), torch.randn(41, 3, 2, 2)
    expected = naive.singular_values(maps.flatten(1), TARGET, 3, centred=False)
    metric.centred = False
    torch.testing.assert_close(metric(maps, TARGET), expected, rtol=1e-9, atol=1e-6)


def test_no_gradient_flows_through_the_spectrum():
    metric = metric_of(statistic="rank")
    assert not metric(HIDDEN.clone().requires_grad_(), TARGET).requires_grad


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("statistic", STATISTICS)
def test_without_samples_a_statistic_is_nan(statistic):
    assert metric_of(statistic=statistic).compute().isnan()


def test_a_statistic_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"statistic in .*'values', 'largest'.* got 'smallest'"):
        metric_of(statistic="smallest")


def test_another_number_of_features_is_refused():
    message = r"hidden states of 5 features, but got \(4,\) and \(4, 3, 2, 2\)"
    with pytest.raises(ValueError, match=message):
        metric_of().update(torch.zeros(4, 3, 2, 2), torch.arange(4) % 3)
