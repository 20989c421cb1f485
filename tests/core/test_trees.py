"""Where the tensors of a batch are."""

import warnings
from collections import UserDict, namedtuple
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_mmix.core.trees import (
    copied,
    describe,
    first_size,
    follow,
    has_rows,
    mapped,
    places,
    rest,
    siblings,
    tensors,
)

X, Y, W = torch.ones(3, 2), torch.arange(3), torch.ones(3)
Pair = namedtuple("Pair", "left right")


class Keyed:
    """As graphs of PyTorch Geometric: no mapping, but asked like one."""

    def __init__(self, **held):
        self.held = held

    def keys(self):
        return list(self.held)

    def __getitem__(self, key):
        return self.held[key]

    def __setitem__(self, key, value):
        self.held[key] = value

    def __copy__(self):
        return type(self)(**self.held)


class OfKinds(Keyed):
    """As graphs of several kinds of nodes: keys are those of all, and asking for one makes it."""

    def keys(self):
        return [key for store in self.held.values() for key in store]

    def __getitem__(self, key):
        return self.held.setdefault(key, {})

    def __setitem__(self, key, value):
        raise AttributeError(f"{key!r} is there already")

    def to_dict(self):
        return {kind: dict(store) for kind, store in self.held.items()}


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
        (Keyed(x=X, y=Y), "y"),
        (OfKinds(paper={"x": X, "y": Y}, author={"x": X}), "paper.y"),
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
    "batch",
    [
        (X, [Y]),
        {"x": X, "y": {"a": Y}},
        UserDict(x=X, y=[Y]),
        Keyed(x=X, y=[Y]),
        Pair(X, (Y, range(2))),
    ],
)
def test_a_copy_has_containers_of_its_own_and_the_same_tensors(batch):
    copy = copied(batch)
    assert type(copy) is type(batch)
    assert copy is not batch
    assert places(copy, [X, Y]) == places(batch, [X, Y])
    if isinstance(copy, dict | UserDict | Keyed):
        copy["y"] = None
        assert batch["y"] is not None


def test_what_objects_with_keys_hold_is_changed_in_a_copy():
    graph = Keyed(x=X, y=Y, name="a")
    doubled = mapped(graph, lambda tensor: 2 * tensor)
    assert type(doubled) is Keyed
    assert [doubled["y"].tolist(), graph["y"].tolist(), doubled["name"]] == [
        [0, 2, 4],
        [0, 1, 2],
        "a",
    ]


def test_a_graph_of_several_kinds_stays_as_it_is():
    graph = OfKinds(paper={"y": Y})
    assert list(tensors(graph)) == [Y]
    mapped(graph, lambda tensor: 2 * tensor)
    copied(graph)
    assert list(graph.held) == ["paper"]
    assert graph.held["paper"]["y"] is Y


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is a prototype
    NESTED = torch.nested.as_nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.strided)


@pytest.mark.parametrize(
    ("batch", "described"),
    [
        (Y, "int64 (3,)"),
        ((X, {"y": Y}), "tuple(0: float32 (3, 2), 1: dict(y: int64 (3,)))"),
        ((X, ["a"] * 900), "tuple(0: float32 (3, 2), 1: list of 900 str)"),
        ([1, 2], "list of 2 int"),
        ((), "tuple"),
        ({}, "dict"),
        (None, "NoneType"),
        (X.numpy(), "ndarray float32 (3, 2)"),
        (torch.eye(2).to_sparse(), "sparse_coo float32 (2, 2)"),
        (NESTED, "nested float32"),
        (
            [{"boxes": X, "labels": Y, "area": W, "crowd": Y}] * 99,
            "list(0: dict(boxes: float32 (3, 2), labels: int64 (3,), … 4 in all), … 99 in all)",
        ),
        (
            {f"entry{i}": X for i in range(30)},
            "dict(entry0: float32 (3, 2), entry1: float32 (3, 2), entry2: float32 (3, 2), "
            "entry3: float32 (3, 2), entry4: float32 (3, 2), … 30 in all)",
        ),
    ],
)
def test_a_batch_is_described_in_a_line(batch, described):
    assert describe(batch) == described


def deep(levels, kind):
    tree = Y
    for _ in range(levels):
        tree = kind(tree)
    return tree


class Long(dict):
    """A mapping whose type has a name of 300 characters."""


Long.__name__ = "Long" * 75
ENDLESS = []
ENDLESS += [ENDLESS, ENDLESS, {"again": ENDLESS}]
ODD = {
    "long texts": ["long " * 500] * 900,
    "lists of lists of texts": [[["a"] * 40] * 300],
    "lists of dicts": [{"caption": "a" * 999, "boxes": X}] * 500,
    "hundreds of keys": {f"entry{i}": {f"part{j}": X for j in range(50)} for i in range(300)},
    "long keys": {"key" * 200: X, "other" * 200: Y},
    "keys with lines": {"one\ntwo\n" * 30: X},
    "tensors as keys": {torch.zeros(20, 20): X},
    "deep lists": deep(5_000, lambda tree: [tree]),
    "deep mappings": deep(5_000, lambda tree: {"inside": tree, "beside": X}),
    "sets": {frozenset(range(500)), *map(str, range(500))},
    "a list that holds itself": ENDLESS,
    "long type names": [Long(x=Long(x=X))] * 3,
    "objects of long type names": [type("Of" * 150, (), {})()] * 3,
    "many dimensions": [torch.zeros([1] * 60)] * 9,
    "records": np.zeros(3, [(f"field{i}", "f4") for i in range(200)]),
}


@pytest.mark.parametrize("width", [1, 7, 40, 60, 120])
@pytest.mark.parametrize("tree", ODD.values(), ids=ODD)
def test_a_description_is_cut_whatever_there_is(tree, width):
    for each in (tree, (X, tree), {"a": tree, "b": {"c": tree}}):
        described = describe(each, width)
        assert len(described) <= 2 * width
        assert "\n" not in described


@pytest.mark.parametrize("seed", range(20))
def test_a_description_of_odd_trees_in_odd_trees_is_cut(seed):
    random = Random(seed)
    kinds = [lambda *t: t, lambda *t: [*t] * 9, lambda *t: Keyed(a=t), lambda *t: Data(*t[:1], t)]
    tree, many = Y, [*ODD.values()]
    for _ in range(6):
        tree = random.choice(kinds)(tree, random.choice(many), random.choice(many))
        assert len(describe(tree)) <= 240


def test_what_is_cut_of_a_name_leaves_room_for_what_is_held():
    assert describe({"k" * 99: X}) == f"dict({'k' * 60}: float32 (3, 2))"
    assert describe(Long(x=X)) == f"{'Long' * 15}(x: float32 (3, 2))"
    assert describe(ODD["many dimensions"], 30) == f"list(0: float32 ({'1, ' * 14}…"


def test_a_nested_tensor_has_no_rows():
    assert first_size(NESTED) is first_size(torch.tensor(1.0)) is None
    assert not has_rows([NESTED], 2)
    assert rest({"nested": NESTED, "x": X}, 3, []) == {"x": X}


def test_siblings_stand_in_the_same_sequence():
    assert siblings(([X, W], Y), X) == [W]
    assert siblings((X, Y, "text"), Y) == [X]
    assert siblings({"x": X, "y": Y}, X) == []
    assert siblings({"views": (X, W)}, Y) == []
