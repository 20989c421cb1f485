"""Features that are taken for class scores are doubted; a network of many classes is not."""

import pytest
import torch
from torch import nn

from lightning_mmix.evaluation.attacks import FGSM
from lightning_mmix.evaluation.columns import Columns
from lightning_mmix.evaluation.robustness import evaluate
from lightning_mmix.evaluation.standard import Clean

X = torch.rand(9, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(9) % 3


class Features(nn.Module):
    """Puts out as many columns as it is told, the largest of them one or the class."""

    def __init__(self, width, largest):
        super().__init__()
        self.width, self.largest = width, largest

    def forward(self, x):
        out = x.new_zeros(len(x), self.width) + 0 * x.sum(1, keepdim=True)
        return out.scatter(1, self.largest[: len(x), None], 5.0)


def rows(model, *attacks, y=Y, **kwargs):
    return evaluate(model, [(X, y)], [Clean(), *attacks], progress=False, **kwargs)


def test_features_are_doubted_once_whatever_the_conditions():
    with pytest.warns(UserWarning, match="features") as caught:
        rows(Features(288, torch.full((9,), 7)), FGSM(0.1))
    assert [str(warning.message) for warning in caught] == [
        "the network puts out 288 scores, but the 9 labels are of 3 classes, the last of them 2, "
        "and 0% of the predictions are right; if these are features, say where the class scores "
        "are: Predictor(model, output=<key, index or path>)"
    ]


def test_a_network_of_many_classes_that_is_right_is_not_doubted():
    assert rows(Features(288, Y))[0].accuracy == 1


@pytest.mark.parametrize(("width", "y"), [(11, Y), (288, Y * 36)])
def test_as_many_columns_as_labels_may_name_are_not_doubted(width, y):
    rows(Features(width, torch.full((9,), 7)), y=y)


def test_labels_that_are_left_out_name_no_class():
    y = Y.clone()
    y[0] = 100
    with pytest.warns(UserWarning, match="288 scores, but the 8 labels are of 3 classes, the last"):
        rows(Features(288, torch.full((9,), 7)), y=y, ignore_index=100)


def test_one_score_a_label_and_no_labels_have_no_columns():
    columns = Columns()
    columns.update(torch.zeros(3, 5), torch.zeros(3, 5))
    columns.update(torch.zeros(0, 99), torch.zeros(0))
    columns.doubt(0.0)
