"""What a module predicts of a batch, whatever the batch and the module look like."""

from dataclasses import dataclass

import pytest
import torch
from fitting import Net
from torch import nn
from torch.nn import functional as F

from lightning_mmix.evaluation.predictions import (
    Predictor,
    device_of,
    evaluating,
    on_device_of,
    predictor_of,
)
from lightning_mmix.metrics.samples import samples
from lightning_mmix.metrics.scores import nll_sum

X, Z, Y = torch.randn(7, 4), torch.randn(7, 3), torch.arange(7) % 3


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3)

    def logits(self, x):
        return self.two(self.one(x))


class OfX(Body):
    def forward(self, x):
        return self.logits(x)


class OfTwo(Body):
    def forward(self, x, z):
        return self.logits(x) + z


class Whole(Body):
    def forward(self, batch):
        return self.logits(batch["image"])


class Tupled(Body):
    def forward(self, samples):
        return self.logits(samples[0])


class Named(Body):
    def forward(self, input_ids=None, labels=None):
        assert labels is None
        return {"logits": self.logits(input_ids), "hidden": input_ids}


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


class LikeHF(Body):
    def forward(self, pixel_values, labels=None):
        return Output(self.logits(pixel_values), pixel_values)


class AtDistribution(Body):
    def forward(self, x):
        return torch.distributions.Categorical(logits=self.logits(x).log_softmax(1))


class Listed(Body):
    def forward(self, x):
        return [self.logits(x), x.sum(), {"argmax": x.argmax(1), "attention": x[:2]}]


class Inside(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.loss = OfX(), nn.CrossEntropyLoss()


@dataclass
class Batch:
    image: torch.Tensor
    y: torch.Tensor


BATCHES = [
    (OfX, lambda x, y: (x, y)),
    (OfX, lambda x, y: [x, y]),
    (OfX, lambda x, y: {"image": x, "label": y}),
    (OfX, Batch),
    (OfX, lambda x, y: (x, "meta", y)),
    (OfTwo, lambda x, y: (x, torch.zeros(len(x), 3), y)),
    (Whole, lambda x, y: {"image": x, "label": y}),
    (Tupled, lambda x, y: (x, y)),
    (Named, lambda x, y: {"input_ids": x, "labels": y}),
    (LikeHF, lambda x, y: {"pixel_values": x, "labels": y}),
    (Listed, lambda x, y: (x, y)),
    (Inside, lambda x, y: (x, y)),
]
each = pytest.mark.parametrize(("make", "batch"), BATCHES)


def predictor_for(make, batch):
    where = {"target": 2} if isinstance(batch, tuple) and len(batch) == 3 else {}
    where = {**where, "input": 0} if where else where
    return Predictor(make(), **where)


@each
def test_the_predictions_are_found_and_found_again_for_a_batch_of_another_size(make, batch):
    predictor = predictor_for(make, batch(X, Y))
    network = getattr(predictor.model, "net", predictor.model)
    for rows in (slice(0, 7), slice(2, 5), slice(6, 7)):
        assert torch.equal(predictor(batch(X[rows], Y[rows])), network.logits(X[rows]))


@each
def test_another_input_is_put_in_its_place_and_the_batch_stays(make, batch):
    given = batch(X, Y)
    predictor = predictor_for(make, given)
    expected = predictor(batch(X + 1, Y))
    if make is not Named:  # whose input has no name that says so
        assert torch.equal(predictor(predictor.with_input(given, X + 1)), expected)
        assert predictor.input(given) is X
    assert predictor.target(given) is Y


def test_later_batches_go_the_way_of_the_first():
    class Counted(nn.Module):
        calls = 0

        def forward(self, samples):
            self.calls += 1
            return samples[0]

    predictor = Predictor(Counted())
    predictor((Z, Y))
    tried = predictor.model.calls
    predictor((Z[:2], Y[:2]))
    assert predictor.model.calls == tried + 1 > 2


def test_later_batches_may_fail_in_their_own_words():
    predictor = Predictor(OfX())
    predictor((X, Y))
    with pytest.raises(ValueError, match=r"labels that are whole numbers in \[0, 3\), .* 0 to 3; "):
        predictor((X[:2], torch.tensor([0, 3])))


@pytest.mark.parametrize("head", [nn.Linear(5, 1), nn.Sequential(nn.Linear(5, 1), nn.Flatten(0))])
def test_one_score_a_label_comes_without_a_dimension_for_classes(head):
    model, target = nn.Sequential(nn.Linear(4, 5), head), Y % 2
    found = Predictor(model)((X, target.float()))
    assert torch.equal(found, model(X).flatten())


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_a_segmentation_has_a_prediction_for_each_pixel(classes):
    model, x = nn.Conv2d(2, classes, 1), torch.randn(3, 2, 4, 5)
    target = torch.arange(60).view(3, 4, 5) % max(classes, 2)
    found = Predictor(model)((x, target))
    assert torch.equal(found, model(x) if classes > 1 else model(x)[:, 0])


TOKENS = torch.randn(7, 5, 4)


@pytest.mark.parametrize("length", [1, 3, 4])
def test_the_classes_may_be_last_as_those_of_tokens_are(length):
    predictor = Predictor(nn.Linear(4, 3), ignore_index=-100)
    labels = (torch.arange(35) % 4).where(torch.arange(35) % 4 < 3, -100).view(7, 5)
    for some in (slice(0, 5), slice(0, length)):  # later batches may have as many tokens as classes
        batch = (TOKENS[:, some], labels[:, some])
        by_hand = predictor.model(batch[0]).movedim(-1, 1)
        assert torch.equal(predictor(batch).view(by_hand.shape), by_hand)
        each = F.cross_entropy(by_hand, batch[1], ignore_index=-100, reduction="none")
        torch.testing.assert_close(predictor.losses(batch), each.sum(1))


def test_where_the_classes_may_be_second_or_last_they_are_second():
    predictor, x = Predictor(nn.Linear(4, 3)), TOKENS[:, :3]
    assert torch.equal(predictor((x, torch.arange(21).view(7, 3) % 3)), predictor.model(x))


@pytest.mark.parametrize(
    ("output", "expected"), [("hidden", X), ("logits", Z), (None, Z)]
)  # fmt: skip
def test_the_output_is_taken_from_where_it_is_said_to_be(output, expected):
    class Both(nn.Module):
        def forward(self, x):
            return {"hidden": X, "logits": Z}

    assert torch.equal(Predictor(Both(), output=output)((X, Y)), expected)


def test_logits_of_a_distribution_are_taken():
    predictor = Predictor(AtDistribution())
    torch.testing.assert_close(predictor((X, Y)), predictor.model.logits(X).log_softmax(1))


class Two(nn.Module):
    def forward(self, x):
        return x, Z


class Pooled(nn.Module):
    def forward(self, x):
        return x.mean(0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Two(), r"but more than one of tuple\(0: float32 \(7, 4\), 1: .* say where it is: output="),
        (
            Pooled(),
            r"expected an output that fits the target, int64 \(7,\), but none of float32 \(",
        ),
        (
            nn.Linear(3, 2),
            r"of Linear makes no predictions of the batch, tuple\(0.*RuntimeError: m",
        ),
    ],
)
def test_what_is_no_prediction_of_the_target_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        Predictor(model)((X, Y))


@pytest.mark.parametrize("target", [torch.randn(7) - 5, torch.randn(7, 1) - 5, 20 + Y])
def test_a_regression_is_refused(target):
    with pytest.raises(ValueError, match=r"expected labels that are whole numbers in \[0, 2\)"):
        Predictor(nn.Linear(4, 1))((X, target))


def test_shares_in_place_of_labels_are_refused():
    with pytest.raises(ValueError, match=r"expected labels that are whole .* a regression has no"):
        Predictor(nn.Linear(4, 1)).losses((X, torch.rand(7)))


def test_a_lightning_module_may_have_a_forward_or_one_network():
    class Without(Net):
        forward = nn.Module.forward

    for module in (Net(), Without()):
        assert torch.equal(Predictor(module)((X, Y)), module.net(X))


@pytest.mark.parametrize("form", ["logits", "probabilities"])
def test_the_losses_of_samples_add_up_to_that_of_all_pixels(form):
    x, target = torch.rand(3, 2, 4, 5).softmax(1), torch.arange(60).view(3, 4, 5) % 2
    losses = Predictor(nn.Identity(), form=form).losses((x, target))
    for i in range(3):
        expected = nll_sum(*samples(x[i : i + 1], target[i : i + 1], form))
        torch.testing.assert_close(losses[i], expected)


def test_a_model_evaluates_and_each_of_its_modules_is_then_as_it_was():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()).eval())
    model[1][0].train()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [1, 1, 0, 1, 0]


def test_a_batch_follows_the_parameters_of_its_model():
    assert device_of(nn.Identity()) == torch.device("cpu")
    model = nn.Linear(4, 3, device="meta")
    batch = on_device_of(model, {"x": X, "y": [Y, "meta"]})
    assert {batch["x"].device, batch["y"][0].device, device_of(model)} == {torch.device("meta")}
    assert on_device_of(nn.Linear(4, 3), batch := (X, Y)) is batch


LABELS = "expected labels that are whole numbers in [0, "


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        (
            3,
            [0, 1, 2, 0, -100, 1, 2],
            "3), for predictions of 3 classes, but got int64 (7,) from -100 to 2; if -100 marks "
            "what is not to be scored, give ignore_index=-100",
        ),
        (
            3,
            [0, 1, 2, 3, 4, 5, 9],
            "3), for predictions of 3 classes, but got int64 (7,) from 0 to 9; labels up to 9 need "
            "predictions of 10 classes",
        ),
        (
            1,
            [0, 1, 2, 0, 1, 1, 1],
            "2), for one score a label, but got int64 (7,) from 0 to 2; if 2 marks what is not to "
            "be scored, give ignore_index=2, else labels up to 2 need predictions of 3 classes",
        ),
    ],
)
def test_a_label_out_of_range_is_refused_with_what_to_do(columns, labels, message):
    predictor = Predictor(nn.Linear(4, columns))
    for _ in range(2):
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
            predictor((X, torch.tensor(labels)))
        assert str(error.value) == LABELS + message


def test_a_label_that_is_left_out_may_be_any():
    target = Y.clone()
    target[:2] = 255
    model = OfX()
    predictor = Predictor(model, ignore_index=255)
    assert torch.equal(predictor((X, target)), model(X))
    losses = predictor.losses((X, target))
    assert losses[:2].tolist() == [0, 0]
    torch.testing.assert_close(losses[2:], Predictor(model).losses((X[2:], Y[2:])))


def test_pixels_that_are_left_out_have_no_loss():
    x, target = torch.rand(3, 2, 4, 5), torch.arange(60).view(3, 4, 5) % 2
    target[0, 1], target[2] = -1, -1
    losses = Predictor(nn.Identity(), ignore_index=-1).losses((x, target))
    for i in range(3):
        expected = nll_sum(*samples(x[i : i + 1], target[i : i + 1], ignore_index=-1))
        torch.testing.assert_close(losses[i], expected)


@pytest.mark.parametrize("make", [OfX, Listed, LikeHF, Named])
def test_labels_in_a_column_are_those_in_a_row(make):
    batch = (lambda y: {"input_ids": X, "labels": y}) if make is Named else (lambda y: (X, y))
    predictor = Predictor(make())
    assert torch.equal(predictor(batch(Y[:, None])), predictor.model.logits(X))
    assert torch.equal(predictor.target(batch(Y[:, None])), Y)


def test_masks_with_a_channel_are_those_without():
    target = torch.arange(60).view(3, 1, 4, 5) % 2
    for channels in (1, 2):
        model, x = nn.Conv2d(2, channels, 1), torch.randn(3, 2, 4, 5)
        losses = Predictor(model).losses((x, target))
        torch.testing.assert_close(losses, Predictor(model).losses((x, target[:, 0])))


def test_sequences_of_one_token_are_predicted_too():
    model, x = nn.Conv1d(4, 3, 1), X[:, :, None]
    assert torch.equal(Predictor(model)((x, Y[:, None])), model(x)[:, :, 0])


def test_a_score_that_fits_as_it_is_is_taken_before_what_fits_without_a_dimension():
    class Beside(nn.Module):
        def forward(self, x):
            return x, x[:, :1]

    assert torch.equal(Predictor(Beside())((X, Y[:, None] % 2)), X[:, 0])


def test_a_predictor_is_its_own_and_says_what_it_leaves_out():
    predictor = Predictor(OfX(), ignore_index=-1)
    assert predictor_of(predictor) is predictor_of(predictor, -1) is predictor
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        predictor_of(predictor, 255)
    assert str(error.value) == (
        "expected a Predictor to hold what is not scored, but got ignore_index=255 beside it; give "
        "Predictor(model, ignore_index=255)"
    )


def test_one_hot_labels_are_several_of_each_sample():
    one_hot = torch.eye(3)[Y]
    predictor = Predictor(OfX())
    assert torch.equal(predictor((X, one_hot)), predictor.model.logits(X))
    with pytest.warns(UserWarning, match=r"every row of the labels, float32 \(7, 3\), is one-hot"):
        predictor.tally().update(predictor((X, one_hot)), one_hot)
