"""Predictions and labels as rows, against the same by hand, and what is said of others."""

import naive
import pytest
import torch

from lightning_mmix.metrics.samples import counted, fitted, log_probabilities, samples

LOGITS, TARGET = (
    torch.randn(57, 4, generator=torch.Generator().manual_seed(1)),
    torch.arange(57) % 4,
)
FORMS = {"logits": lambda scores: scores, "probabilities": torch.sigmoid}


def binary(*shape):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(shape, generator=generator)
    return scores, torch.randint(2, shape, generator=generator)


def test_logits_and_probabilities_are_told_apart_by_the_caller_alone():
    probs = LOGITS.softmax(1)
    torch.testing.assert_close(log_probabilities(probs, "probabilities"), log_probabilities(LOGITS))
    assert not torch.allclose(log_probabilities(probs), log_probabilities(LOGITS))


def test_further_dimensions_are_samples():
    volume = LOGITS.view(3, 19, 4).movedim(2, 1)
    log_probs, labels = samples(volume, TARGET.view(3, 19))
    torch.testing.assert_close(log_probs, log_probabilities(LOGITS))
    assert torch.equal(labels, TARGET)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_single(dtype):
    expected = log_probabilities(LOGITS.to(dtype).float())
    torch.testing.assert_close(log_probabilities(LOGITS.to(dtype)), expected, rtol=0, atol=0)
    assert log_probabilities(LOGITS.double()).dtype == torch.float64


@pytest.mark.parametrize("shape", [(12,), (12, 1), (6, 2), (3, 2, 2), ()])
@pytest.mark.parametrize("form", FORMS)
def test_one_score_a_label_is_the_two_class_form(shape, form):
    scores, target = binary(*shape)
    preds = FORMS[form](scores)
    log_probs, labels = samples(preds, target, form)
    expected = log_probabilities(naive.two_classes(preds, form), form)
    torch.testing.assert_close(log_probs, expected)
    assert labels.tolist() == target.flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool])
def test_labels_of_any_dtype_are_whole_numbers(dtype):
    scores, target = binary(12)
    log_probs, labels = samples(scores, target.to(dtype))
    assert torch.equal(labels, target)
    assert torch.equal(log_probs, samples(scores, target)[0])


def test_a_binary_logit_far_off_loses_no_digit():
    log_probs = log_probabilities(torch.tensor([1000.0, -1000.0, 30.0]), binary=True)
    assert log_probs[:2].tolist() == [[-1000, 0], [0, -1000]]
    assert float(log_probs[2, 1]) == pytest.approx(-9.357623e-14)


def test_logits_that_are_called_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"expected probabilities in \[0, 1\], but got -"):
        log_probabilities(LOGITS, "probabilities")


@pytest.mark.parametrize("void", [-100, -1, 2, 255])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.float32])
def test_samples_of_an_ignored_label_are_as_if_they_had_not_been_there(void, dtype):
    target = torch.where(torch.arange(57) % 3 == 0, void, TARGET).to(dtype)
    kept = [i for i, label in enumerate(target.tolist()) if label != void]
    log_probs, labels = samples(LOGITS, target, ignore_index=void)
    assert torch.equal(log_probs, samples(LOGITS[kept], TARGET[kept])[0])
    assert labels.tolist() == TARGET[kept].tolist()
    assert counted(target, void).nonzero()[:, 0].tolist() == kept


@pytest.mark.parametrize("shape", [(6,), (6, 1), (2, 3)])
def test_ignored_pixels_of_one_score_a_label_are_left_out(shape):
    scores, target = binary(*shape)
    target.view(-1)[2] = 255
    log_probs, labels = samples(scores, target, ignore_index=255)
    rest = [0, 1, 3, 4, 5]
    expected = samples(scores.flatten()[rest], target.flatten()[rest])
    assert torch.equal(log_probs, expected[0])
    assert torch.equal(labels, expected[1])


def test_eight_bits_of_a_label_are_not_taken_for_a_negative_one():
    target = torch.tensor([0, 156, 255], dtype=torch.uint8)  # -100 and -1 modulo 256
    assert len(samples(torch.zeros(3, 256), target, ignore_index=-100)[1]) == 3
    assert counted(target, -1).tolist() == [True, True, True]
    assert counted(target, 255).tolist() == [True, True, False]


def test_no_batch_is_altered_and_an_ignored_row_has_no_gradient():
    logits, target = LOGITS.clone(), TARGET.clone()
    logits[3], target[3] = torch.nan, -1
    before = target.clone()
    logits.requires_grad_()
    log_probs, labels = samples(logits, target, ignore_index=-1)
    log_probs.gather(1, labels[:, None]).sum().backward()
    assert torch.equal(target, before)
    assert logits.grad[3].tolist() == [0, 0, 0, 0]
    assert logits.grad.isfinite().all()


def test_probabilities_of_ignored_rows_may_be_anything():
    probs = torch.tensor([[0.5, 0.5], [7.0, -3.0]])
    log_probs, _ = samples(probs, torch.tensor([1, -1]), "probabilities", -1)
    assert torch.equal(log_probs, torch.tensor([[0.5, 0.5]]).log())


@pytest.mark.parametrize(
    ("preds", "target", "expected"),
    [
        ((5, 3), (5, 1), (5, 3, 1)),
        ((5, 3, 1, 1), (5,), (5, 3)),
        ((5, 3, 2, 4), (5, 1, 2, 4), (5, 3, 1, 2, 4)),
        ((5, 1), (5,), (5,)),
        ((5,), (5, 1), (5, 1)),
        ((5, 1, 2), (5, 2), (5, 2)),
        ((5, 2, 1), (5, 2), (5, 2)),
        ((5, 3, 1), (5, 1), (5, 3, 1)),
        ((1, 3), (1, 1), (1, 3, 1)),
    ],
)
def test_dimensions_of_size_one_do_not_count(preds, target, expected):
    scores = torch.randn(preds)
    found = fitted(scores, torch.zeros(target))
    assert found.shape == expected
    assert torch.equal(found.flatten(), scores.flatten())


@pytest.mark.parametrize("preds", [LOGITS, LOGITS[:, :, None]])
def test_labels_in_a_column_are_those_in_a_row(preds):
    for ours, theirs in zip(samples(preds, TARGET[:, None]), samples(LOGITS, TARGET), strict=True):
        assert torch.equal(ours, theirs)


def said(*args, **kwargs):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        samples(*args, **kwargs)
    return str(error.value)


SHAPES = (
    "expected a target of shape (N, ...) and preds of shape (N, C, ...), or (N, ...) for two "
    "classes, but got "
)
LAST = "with the classes last, give preds.movedim(-1, 1)"


@pytest.mark.parametrize(
    ("preds", "target", "end"),
    [
        ((5, 3), (4,), "(4,) and (5, 3)"),
        ((5, 3), (5, 2), "(5, 2) and (5, 3)"),
        ((5,), (4, 1), "(4, 1) and (5,)"),
        ((5, 3), (), "() and (5, 3)"),
        ((5, 3, 2), (5, 3), "(5, 3) and (5, 3, 2); " + LAST),
    ],
)
def test_shapes_that_do_not_fit_are_refused(preds, target, end):
    assert said(torch.zeros(preds), torch.zeros(target).long()) == SHAPES + end


OF_FOUR = "expected labels that are whole numbers in [0, 4), for predictions of 4 classes, but got "


@pytest.mark.parametrize(
    ("labels", "end"),
    [
        (
            [0, -100, 3],
            "from -100 to 3; if -100 marks what is not to be scored, give ignore_index=-100",
        ),
        (
            [0, 255, 3],
            "from 0 to 255; if 255 marks what is not to be scored, give ignore_index=255, else "
            "labels up to 255 need predictions of 256 classes",
        ),
        ([4, 7, 3], "from 3 to 7; labels up to 7 need predictions of 8 classes"),
        (
            [0, -1, -2],
            "from -2 to 0; if they mark what is not to be scored, make them one, and give "
            "ignore_index",
        ),
    ],
)
def test_a_label_out_of_range_is_refused_with_what_to_do(labels, end):
    assert said(LOGITS[:3], torch.tensor(labels)) == f"{OF_FOUR}int64 (3,) {end}"


def test_another_label_than_the_ignored_one_is_refused():
    assert said(LOGITS[:3], torch.tensor([0, -100, -1]), ignore_index=-100) == (
        "expected labels that are whole numbers in [0, 4) or ignore_index=-100, for predictions of "
        "4 classes, but got int64 (3,) from -1 to 0; if -1 marks what is not to be scored, give "
        "ignore_index=-1"
    )


def test_more_than_two_classes_of_one_score_are_refused():
    assert said(LOGITS[:3, :1], torch.tensor([0, 1, 2])) == (
        "expected labels that are whole numbers in [0, 2), for one score a label, but got int64 "
        "(3,) from 0 to 2; if 2 marks what is not to be scored, give ignore_index=2, else labels "
        "up to 2 need predictions of 3 classes"
    )


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_numbers_of_a_regression_are_refused(value):
    message = said(LOGITS[:3], torch.tensor([1, value, 2]))
    assert message.startswith(OF_FOUR + "float32 (3,) from ")
    assert message.endswith("; a regression has no such scores")


def test_soft_labels_are_refused_with_what_gives_labels():
    assert said(LOGITS[:2, :2], torch.tensor([[0.25, 0.75], [0.5, 0.5]])) == (
        "expected labels that are whole numbers in [0, 2), for one score a label, but got float32 "
        "(2, 2) from 0.25 to 0.75; if they are shares of classes, give target.argmax(1)"
    )


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_predictions_without_classes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected preds of shape \(N, C, ...\) with C ≥ 2"):
        log_probabilities(torch.ones(shape))


def test_a_form_that_is_none_is_refused():
    with pytest.raises(ValueError, match="form 'logits' or 'probabilities', but got 'probs'"):
        samples(LOGITS, TARGET, "probs")


def test_labels_that_are_not_to_be_looked_at_are_not():
    assert samples(LOGITS[:2], torch.tensor([0, 9]), look=False)[1].tolist() == [0, 9]
