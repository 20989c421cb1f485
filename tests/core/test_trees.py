"""Where the tensors of a batch are."""

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from lightning_mmix.core.trees import copied, follow, places, rest

X, Y, W = torch.ones(3, 2), torch.arange(3), torch.ones(3)
Pair = namedtuple("Pair", "left right")


@dataclass
class Data:
    x: torch.Tensor
    y: torch.Tensor


@pytest.mark.parametrize(
    ("batch", "path"),
    [
        ((X, Y), "1"),
        ([X, (Y, None)], "1.0"),
        ({"x": X, "labels": Y}, "labels"),
        ((X, {"labels": Y, "id": "a"}), "1.labels"),
        (UserDict(x=X, y=Y), "y"),
        (Pair(X, [Y]), "right.0"),
        (Data(X, Y), "y"),
        ({"a.b": Y}, "a.b"),
        ((X, Y, Y), "1"),
    ],
)
def test_a_tensor_is_found_at_its_path(batch, path):
    assert places(batch, [Y]) == [path]
    assert follow(batch, path, "target") is Y


def test_places_are_given_in_the_order_of_the_tensors():
    assert places({"a": X, "b": Y, "c": W}, [W, X]) == ["c", "a"]


def test_what_only_an_object_of_its_own_holds_has_no_place():
    assert places((X, SimpleNamespace(label=Y)), [Y, X]) == ["0"]


def test_the_rest_is_what_has_as_many_rows_and_is_not_known():
    batch = {"x": X, "y": Y, "more": [W, torch.ones(2), "text", W], "one": torch.tensor(1.0)}
    found = rest(batch, 3, [Y])
    assert list(found) == ["x", "more.0"]
    assert found["x"] is X
    assert found["more.0"] is W
    assert rest(batch, 3, [X, Y, W]) == {}


@pytest.mark.parametrize(
    "batch", [(X, [Y]), {"x": X, "y": {"a": Y}}, UserDict(x=X, y=[Y]), Pair(X, (Y, range(2)))]
)
def test_a_copy_has_containers_of_its_own_and_the_same_tensors(batch):
    copy = copied(batch)
    assert type(copy) is type(batch)
    assert copy is not batch
    assert places(copy, [X, Y]) == places(batch, [X, Y])
    if isinstance(copy, dict | UserDict):
        del copy["y"]
        assert "y" in batch
