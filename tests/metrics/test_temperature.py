from dataclasses import asdict
from threading import Barrier, Thread

import naive
import pytest
import torch
from scipy.optimize import minimize_scalar

from lightning_mmix.metrics.samples import samples
from lightning_mmix.metrics.scores import nll_sum
from lightning_mmix.metrics.temperature import Kept, temperature_scaling, tempered

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)
FORMS = {"logits": lambda scores: scores, "probabilities": torch.sigmoid}


def binary(*shape):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(shape, generator=generator)
    return scores, torch.randint(2, shape, generator=generator)


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


COLUMN = torch.linspace(-2, 2, 6)
THREE = torch.arange(6) % 3
OF_TWO = r"in \[0, 2\), for one score a label, but got int64 \(6,.* from 0 to 2; .* need "


@pytest.mark.parametrize(
    ("preds", "target", "message"),
    [
        (COLUMN, THREE, OF_TWO),
        (COLUMN[:, None], THREE, OF_TWO),
        (COLUMN[:, None], THREE[:, None], OF_TWO),
        (COLUMN[:, None, None], THREE[:, None], OF_TWO),
        (torch.zeros(6, 2), THREE, r"in \[0, 2\), for predictions of 2 .* from 0 to 2"),
        (torch.zeros(6, 4), THREE - 1, r"in \[0, 4\), for predictions of 4 .* from -1 to 1; if"),
        (torch.zeros(6, 3), THREE + 0.5, r"in \[0, 3\), for .* but got float32 .* 0.5 to 2.5"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_labels_of_other_classes_than_those_of_the_logits_are_refused(preds, target, message, form):
    scores, held = FORMS[form](preds), Kept(form)
    for take in (
        lambda: temperature_scaling(scores, target, form),
        lambda: tempered(scores, target, torch.tensor(2.0), form),
        lambda: held.update(scores, target),
    ):
        with pytest.raises(ValueError, match=f"expected labels that are whole numbers {message}"):
            take()
    assert held.fit() is None


def test_logits_may_be_whole_numbers():
    logits = (10 * SURE).round()
    assert temperature_scaling(logits.long(), TARGET) == temperature_scaling(logits, TARGET)


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


def pieces(count, preds=LOGITS, target=TARGET):
    return zip(preds.split(count), target.split(count), strict=True)


def kept(batches, **kwargs):
    held = Kept(**kwargs)
    for preds, target in batches:
        held.update(preds, target)
    return held


SURE = 3 * (LOGITS + torch.eye(4)[TARGET])


@pytest.mark.parametrize("count", [57, 10, 1])
def test_kept_predictions_have_the_temperature_of_all_at_once(count):
    found = kept(pieces(count, SURE)).fit()
    best = temperature_scaling(SURE, TARGET)
    assert pytest.approx(float(best), rel=1e-6) == found.T
    assert found.samples == 57
    assert found.nll == pytest.approx(mean_nll(SURE, TARGET), rel=1e-5)
    assert found.ece == pytest.approx(naive.ece(SURE, TARGET, 15), rel=1e-5)
    assert found.nll_at_T == pytest.approx(mean_nll(SURE / best, TARGET), rel=1e-5)
    assert found.ece_at_T == pytest.approx(naive.ece(SURE / best, TARGET, 15), rel=1e-4)
    assert found.nll_at_T < found.nll


@pytest.mark.parametrize("sizes", [(30, 27), (57, 0)])
def test_two_halves_whose_sums_are_added_have_the_temperature_of_the_whole(sizes):
    """Both halves take part in each sum, in lockstep, as two processes do."""
    halves = [
        kept([each] if len(each[1]) else [])
        for each in zip(SURE.split(sizes), TARGET.split(sizes), strict=True)
    ]
    barrier, slots, found = Barrier(2), [None, None], [None, None]

    def run(rank):
        def total(values):
            slots[rank] = values
            barrier.wait()
            summed = slots[0] + slots[1]
            barrier.wait()
            return summed

        found[rank] = halves[rank].fit(total)

    threads = [Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    whole = kept([(SURE, TARGET)]).fit()
    assert asdict(found[0]) == pytest.approx(asdict(whole), rel=1e-6)


def test_of_more_than_the_most_every_second_fourth_or_eighth_sample_is_kept():
    thinned = kept(pieces(10, SURE), most=4 * 12)
    found = thinned.fit()
    assert found == kept([(SURE[::8], TARGET[::8])]).fit()
    assert found.samples == 8


def test_what_is_kept_is_no_view_of_the_batch():
    preds = SURE.log_softmax(1)
    held = kept([(preds, TARGET)])
    expected = held.fit()
    preds.zero_()
    assert held.fit() == expected


@pytest.mark.parametrize("preds", [SURE[:0], SURE * torch.nan])
def test_nothing_and_nan_have_no_temperature(preds):
    assert kept([(preds, TARGET[: len(preds)])]).fit() is None
    assert Kept().fit() is None


def test_a_probability_of_zero_is_kept_as_it_is():
    probs = torch.eye(4)[TARGET].roll(1, 0)[:8]
    found = kept([(probs, TARGET[:8])], form="probabilities").fit()
    assert pytest.approx(100) == found.T
    assert found.nll == torch.inf
    assert found.nll_at_T < torch.inf
