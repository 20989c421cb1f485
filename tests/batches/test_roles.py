from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from lightning_mmix.batches.roles import find_input, find_targets, is_box_table
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


def refusal(batch, *paths):
    with pytest.raises(ValueError, match=r".") as refused:
        find_targets(batch, *paths)
    return str(refused.value)


def test_targets_of_different_lengths_are_refused():
    advice = "not of one B; name those with a row for each sample, and pad or stack what differs"
    assert refusal({"a": X, "b": Y[:2]}, ["a", "b"]) == (
        f"expected targets of shape (B, ...), but got (3, 2), (2,), {advice}"
    )
    rows = [torch.ones(n, 2) for n in (1, 2, 3, 4)]
    assert refusal((rows, rows), 1) == (
        f"expected targets of shape (B, ...), but got (1, 2), (2, 2), (3, 2), …, {advice}"
    )


def test_a_target_without_rows_is_refused():
    for paths in (None, 1, [0, 1]):
        assert refusal((X, torch.tensor(2)), paths) == (
            "expected targets of shape (B, ...), but got int64 (), without rows; give each sample "
            "a value of its own"
        )


TOKENS = torch.ones(3, 5).long()


@pytest.mark.parametrize(
    ("batch", "copied", "key"),
    [
        (X, "return (x, x.clone())", "1"),
        ((X,), "return (x, x.clone())", "1"),
        ([X], "return (x, x.clone())", "1"),
        ([{"x": X}], "return (x, x.clone())", "1"),
        ((TOKENS,), "return (x, x.clone())", "1"),
        ({"x": X}, "set batch['labels'] = batch['x'].clone()", "'labels'"),
        ({"id": Y, "image": X}, "set batch['labels'] = batch['image'].clone()", "'labels'"),
        (
            UserDict(attention_mask=TOKENS > 0, input_ids=TOKENS, loss_mask=TOKENS > 0),
            "set batch['labels'] = batch['input_ids'].clone()",
            "'labels'",
        ),
    ],
)
def test_a_batch_of_inputs_alone_has_no_target_wherever_it_is_said_to_be(batch, copied, key):
    for paths in (None, 0, 1, "x", "input_ids", ["image"]):
        said = refusal(batch, paths)
        assert said == (
            f"the batch, {describe(batch)}, holds no target; an autoencoder's or language model's "
            f"is a copy of its input: {copied} in on_after_batch_transfer, say target={key}, and "
            "take the loss of the copy; GANs and views can't be mixed"
        )
        assert len(said) <= 400


def test_of_two_inputs_one_may_be_the_target_if_it_is_named():
    batch = {"source": X, "image": X.clone()}
    assert refusal(batch).startswith("the batch, dict(source: float32 (3, 2), image: float32")
    assert find_targets(batch, "image")[0] is batch["image"]


def table(*positions, columns=6):
    return torch.cat([torch.tensor(positions)[:, None], torch.rand(len(positions), columns - 1)], 1)


@pytest.mark.parametrize("boxes", [table(0, 0, 2, 3), table(1, 1, columns=5), table(columns=7)])
def test_a_row_for_each_box_is_no_target(boxes):
    images, size = torch.ones(5, 3, 4, 4), tuple(boxes.shape)
    for batch, paths in ((images, boxes), None), ({"image": images, "boxes": boxes}, "boxes"):
        assert refusal(batch, paths) == (
            f"expected targets of shape (B, ...), but got float32 {size} for 5 images, a row a box;"
            " pad them to (B, M, ...), so that each image has its own, or train without "
            "ManifoldMixup"
        )


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (table(0, 1, 2), True),
        (table(0, 1, 2, columns=4).double(), True),
        (table(0, 1, 2, columns=7), True),
        (table(0, 0, 2), False),  # three labels in three samples
        (table(0, 2, 1), False),
        (table(0, 0, 1, 2), True),
        (table(2), True),
        (table(0, 1, 0, 2), False),
        (table(0, 1.5, 2, 2), False),
        (table(-1, 0, 1, 2), False),
        (table(0, 1, 2, 3), False),
        (table(0, 1, 2, columns=3), False),
        (table(0, 1, 2, columns=8), False),
        (table(0, 1, 2).long(), False),
        (table(0, 1, 2)[..., None], False),
    ],
)
def test_a_table_of_boxes_is_told_by_its_first_column(target, expected):
    assert is_box_table(target, 3) == expected


def test_two_rows_may_be_sorted_by_chance():
    assert not is_box_table(table(0, 1), 2)


def test_an_id_beside_the_only_input_is_the_target_if_it_is_named():
    image, label = torch.zeros(4, 3, 8, 8), torch.arange(4)
    assert find_targets({"image": image, "id": label}, "id")[0] is label
    for path in (None, "image", "label"):
        with pytest.raises(ValueError, match="holds no target"):
            find_targets({"image": image, "id": label}, path)


def test_of_several_inputs_any_can_be_named_as_the_target():
    image, text = torch.zeros(4, 3, 8, 8), torch.zeros(4, 7, dtype=torch.long)
    batch = {"image": image, "input_ids": text}
    assert find_targets(batch, "image")[0] is image
    assert find_targets(batch, "input_ids")[0] is text
