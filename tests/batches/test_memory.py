import pytest
import torch

from lightning_mmix.batches.memory import TargetMemory
from lightning_mmix.batches.roles import find_targets

X, Y = torch.randn(4, 3), torch.arange(4)
BATCHES = {
    "a pair": (X, Y),
    "a list": [X, Y],
    "three": {"x": X, "labels": Y, "label_mask": Y > 1},
    "another order": {"labels": Y, "x": X},
    "in a pair": (X, {"labels": Y}),
    "of another type": (X, Y.double()),
    "of another length": (X[:3], Y[:3]),
    "with a text": {"x": X, "labels": Y, "text": "four"},
    "one": {"x": X, "labels": Y},
}


@pytest.fixture
def searched(monkeypatch):
    """How many batches were searched."""
    found = []

    def find(batch, paths):
        found.append(batch)
        return find_targets(batch, paths)

    monkeypatch.setattr("lightning_mmix.batches.memory.find_targets", find)
    return found


@pytest.mark.parametrize("first", BATCHES)
@pytest.mark.parametrize("then", BATCHES)
def test_what_is_remembered_is_what_is_found(first, then):
    memory = TargetMemory()
    for batch in (BATCHES[first], BATCHES[then], BATCHES[first]):
        found, expected = memory.find(batch, None), find_targets(batch)
        assert list(map(id, found)) == list(map(id, expected))


def test_batches_of_one_structure_are_searched_once(searched):
    memory = TargetMemory()
    for _ in range(3):
        memory.find((torch.randn(4, 3), torch.arange(4)), None)
        assert len(searched) == 1
    memory.find((torch.randn(4, 2), torch.arange(4)), None)
    assert len(searched) == 2


def test_of_containers_in_containers_nothing_is_remembered(searched):
    memory = TargetMemory()
    for count in (1, 2):
        memory.find((X, {"labels": Y}), None)
        assert len(searched) == count


@pytest.mark.parametrize("batch", [(X, X), {"x": Y, "labels": Y}, {"x": X}])
def test_what_is_refused_is_refused_each_time(batch):
    memory = TargetMemory()
    memory.find((X, Y), None)
    memory.find({"x": X[:, 0], "labels": Y}, None)
    for _ in range(2):
        with pytest.raises((ValueError, TypeError)):
            memory.find(batch, None)


def test_a_tensor_that_stands_at_two_places_is_refused_after_two_that_are_apart():
    memory = TargetMemory()
    memory.find({"x": Y.clone(), "labels": Y}, None)
    with pytest.raises(ValueError, match="stands at two places"):
        memory.find({"x": Y, "labels": Y}, None)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
def test_a_nested_tensor_is_not_taken_for_another():
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    memory = TargetMemory()
    memory.find((X, Y), None)
    with pytest.raises(ValueError, match="nested"):
        memory.find((torch.randn(2, 3), nested), None)


def test_another_place_is_looked_up():
    memory, batch = TargetMemory(), {"labels": Y, "other": Y + 1}
    assert memory.find(batch, "labels")[0] is batch["labels"]
    assert memory.find(batch, "other")[0] is batch["other"]


def test_what_was_named_is_refused_where_it_is_not():
    memory, alike = TargetMemory(), (X, X.clone())
    assert memory.find(alike, 1)[0] is alike[1]
    with pytest.raises(ValueError, match="look alike"):
        memory.find(alike, None)


def test_entries_of_another_type_are_looked_at_anew():
    memory = TargetMemory()
    assert memory.find((X, X.long()), None)[0].dtype == torch.int64
    with pytest.raises(ValueError, match="look alike"):
        memory.find((X, X.clone()), None)
