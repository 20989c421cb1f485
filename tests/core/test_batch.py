from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from lightning_mmix.core.batch import find_input, find_targets
from lightning_mmix.core.trees import describe

X, Y = torch.ones(3, 2), torch.arange(3)
Named = namedtuple("Named", "image label")
Pair = namedtuple("Pair", "left right")


@dataclass
class Data:
    x: torch.Tensor
    y: torch.Tensor
    name: str = "text"


@pytest.mark.parametrize(
    "batch",
    [
        (X, Y),
        [X, Y],
        Named(X, Y),
        Pair(X, Y),
        Data(X, Y),
        {"image": X, "mask": Y},
        {"inputs": X, "targets": Y, "index": torch.zeros(3)},
        UserDict(pixel_values=X, labels=Y),
    ],
)
def test_input_and_target_are_found_by_themselves(batch):
    assert find_targets(batch)[0] is Y
    assert find_input(batch) is X


@pytest.mark.parametrize(
    ("batch", "path"),
    [
        ((X, X.clone(), Y), 2),
        ((X, X.clone(), Y), -1),
        ((X, {"a": Y}), "1.a"),
        ((X, [X.clone(), Y]), "1.1"),
        ({"deep": {"er": (X, Y)}}, "deep.er.1"),
        ({"a.b": Y}, "a.b"),
        ({0: X, 1: Y}, 1),
        ({0: X, 1: [Y]}, "1.0"),
        (SimpleNamespace(label=Y), "label"),
        ((X, SimpleNamespace(label=Y)), "1.label"),
    ],
)
def test_a_path_leads_to_the_target(batch, path):
    assert find_targets(batch, path)[0] is Y
    assert find_input(batch, path) is Y


def test_several_paths_and_containers_give_several_targets():
    a, b = Y.clone(), Y.clone()
    assert [id(t) for t in find_targets((X, {"a": a, "b": b}), 1)] == [id(a), id(b)]
    assert [id(t) for t in find_targets((X, a, b), [2, 1])] == [id(b), id(a)]
    assert len(find_targets((X, Y), [1, 1])) == 1


def test_a_batch_is_described_in_a_line():
    batch = ({"ids": Y}, Data(X, Y), "text", None)
    assert describe(batch) == (
        "tuple(0: dict(ids: int64 (3,)), 1: Data(x: float32 (3, 2), y: int64 (3,), name: str), "
        "2: str, 3: NoneType)"
    )


@pytest.mark.parametrize("path", [7, "1.b", "x", "1.labels.2", "0.real.7"])
def test_a_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(ValueError, match=f"there is no target={path!r} in the batch, tuple"):
        find_targets((X, {"a": Y}), path)


def test_targets_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"with one B, but got \(3, 2\), \(2,\)"):
        find_targets({"a": X, "b": Y[:2]}, ["a", "b"])
