"""Which targets are found by themselves, and where it is asked."""

from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch

from lightning_mmix.batches.roles import find_input, find_targets
from lightning_mmix.core.trees import describe

B, T = 3, 5
X, IDS, IMAGE = torch.ones(B, 4), torch.ones(B, T).long(), torch.ones(B, 2, 6, 7)
SHAPES = {  # by the name of an entry; of others (B,)
    "x": X, "features": X, "source": X, "target_image": IMAGE.clone(), "image": IMAGE,
    "pixel_values": IMAGE, "input_ids": IDS, "attention_mask": IDS > 0, "tokens": IDS,
    "past_target": X, "past_observed_values": X.clone(), "audio": IMAGE[..., 0],
}  # fmt: skip


def batch_of(names, **given):
    made = {name: SHAPES.get(name, torch.arange(B) % 2).clone() for name in names.split()}
    return {**made, **given}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("x class_id", "class_id"),
        ("x mask class_id", "class_id"),
        ("image gt", "gt"),
        ("image groundTruth image_id", "groundTruth"),
        ("input_ids attention_mask label_ids", "label_ids"),
        ("input_ids attention_mask token_type_ids labels idx", "labels"),
        ("image category num_objects logits", "category"),
        ("image label mask weight lengths boxes z", "label"),
        ("source source_label", "source_label"),
        ("image target_image", "target_image"),
        ("encoder_target decoder_target", "decoder_target"),
        ("decoder_input_ids input_ids labels", "labels"),
        # what goes along comes along
        ("audio audio_len target target_len", "target target_len"),
        ("tokens labels labels_padding_mask y_weight", "labels labels_padding_mask y_weight"),
        ("input_ids labels loss_mask", "labels loss_mask"),
        ("x y sample_weight class_weight", "y sample_weight"),
        ("past_target past_is_pad future_target future_is_pad", "future_target future_is_pad"),
        (
            "past_target future_time_feat future_observed_values future_values",
            "future_values future_observed_values",
        ),
        # if there is no other
        ("image target_len", "target_len"),
        ("x mask", "mask"),
    ],
)
def test_a_target_is_found_by_the_words_of_its_name(names, found):
    for batch in (batch_of(names), UserDict(batch_of(names))):
        targets = find_targets(batch)
        assert [id(t) for t in targets] == [id(batch[name]) for name in found.split()]


def test_what_goes_along_is_left_out_where_it_is_not_asked_for():
    batch = batch_of("x y y_len sample_weight")
    assert [id(t) for t in find_targets(batch, along=False)] == [id(batch["y"])]


@pytest.mark.parametrize(
    ("names", "candidates"),
    [
        ("image gt_label gt_mask", "gt_label or gt_mask"),
        ("input_ids labels next_sentence_label", "labels or next_sentence_label"),
        ("image coarse_label fine_label", "coarse_label or fine_label"),
        ("source source_label target", "source_label or target"),
        ("x label teacher_labels", "label or teacher_labels"),
        ("x mask score", "mask or score"),
        ("x target_len score", "target_len or score"),
        ("x mask target_len", "mask or target_len"),
        ("x mask a b c d", "mask or a or b or c or …"),
    ],
)
def test_two_that_may_be_the_target_are_asked_about(names, candidates):
    with pytest.raises(ValueError, match=f"^{candidates} may be the target .*; say where: target="):
        find_targets(batch_of(names))


@pytest.mark.parametrize("names", ["z", "x z", "x num_classes", "x y_pred", "id z"])
def test_where_no_name_says_target_none_is_found(names):
    with pytest.raises(ValueError, match=r"^there is no recognisable target in the batch, dict"):
        find_targets(batch_of(names))


@pytest.mark.parametrize(
    "mask", [torch.ones(B, 6, 7), torch.ones(B, 1, 6, 7), torch.ones(B, 6, 7) > 0, torch.ones(B)]
)
@pytest.mark.parametrize("name", ["mask", "seg_mask", "target_mask"])
def test_a_mask_of_the_size_of_an_image_is_the_target_if_it_is_alone(name, mask):
    assert find_targets({"image": IMAGE, name: mask})[0] is mask


@pytest.mark.parametrize(
    "batch",
    [
        {"x": torch.ones(B, T, 4), "mask": torch.ones(B, T)},
        {"x": torch.ones(B, T, 4), "mask": torch.ones(B, T, T)},
        {"image": IMAGE, "mask": torch.ones(B, 1, T, T)},
        {"image": IMAGE, "mask": torch.ones(B, 7)},
        {"image": IMAGE, "mask": torch.ones(B, 6, 7) > 0, "id": torch.arange(B)},
        {"image": IMAGE, "mask": [torch.ones(B, 6, 7)] * B},
        {"tokens": IDS, "target_mask": torch.ones(B, T)},
    ],
)
def test_a_mask_that_may_say_what_is_padding_is_asked_about(batch):
    with pytest.raises(ValueError, match=r"^(target_)?mask may be the target in the batch, dict"):
        find_targets(batch)
    assert find_targets(batch, "mask" if "mask" in batch else "target_mask")


def test_a_mask_of_classes_may_have_an_id_beside_it():
    mask = torch.ones(B, 6, 7)
    assert find_targets({"image": IMAGE, "mask": mask, "id": torch.arange(B)})[0] is mask


@pytest.mark.parametrize("other", ["cat", ["cat", "dog", None], None, 3, torch.arange(7)])
def test_what_holds_nothing_of_each_sample_is_no_other_target(other):
    batch = batch_of("x label", category=other)
    assert find_targets(batch)[0] is batch["label"]


def test_what_can_be_no_partners_is_left_alone_beside_a_target():
    batch = batch_of("x label", label_weight=torch.ones(7), label_mask=[torch.ones(2)] * B)
    assert len(find_targets(batch)) == 1


Y, W = torch.arange(B), torch.ones(B)

ENTRIES = "0: float32 (3, 4), 1:"
MAKE_ONE = "make it one in the collate function, as torch.tensor(values) does of numbers"
SAY_WHERE = "say where it is: target=<key, index or path>"
ONE_EACH = (
    "one for each sample; stack them to one tensor, or pad them, as boxes to (B, M, 4); a loss "
    "that needs the list can't be mixed"
)


@pytest.mark.parametrize(
    "batch",
    [
        (X, (Y, W)),
        (X, [Y, None, W, "text", 3]),
        (X, {"label": Y, "id": W}),
        (X, {"id": W, "label": Y}),
        (X, (Y, {"id": W, "step": torch.tensor(3), "table": torch.ones(7)})),
        ([X, X.clone()], (Y, W)),
        {"image": X, "labels": {"fine_label": Y, "coarse": W}},
        {"table": torch.ones(7), "image": X, "labels": [Y, None, W, torch.ones(7)]},
    ],
)
def test_all_that_stands_at_its_place_is_the_target(batch):
    assert [id(t) for t in find_targets(batch)] == [id(Y), id(W)]


def test_a_target_beside_none_is_alone():
    assert [id(t) for t in find_targets((X, (Y, None)))] == [id(Y)]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ([{"labels": Y}] * B, f"got a list of 3 dict, {ONE_EACH}"),
        ([{"labels": 1}] * B, f"got a list of 3 dict, {ONE_EACH}"),
        (tuple(torch.ones(n, 4) for n in (B, 2, 1)), f"got a tuple of 3 Tensor, {ONE_EACH}"),
        ([torch.tensor(n) for n in range(B)], f"got a list of 3 Tensor, {ONE_EACH}"),
    ],
)
def test_a_list_of_what_each_sample_has_is_refused(place, message):
    for batch, *paths in ((X, place),), ({"x": X, "labels": place},), ((X, place), 1):
        with pytest.raises(TypeError) as refused:
            find_targets(batch, *paths)
        assert str(refused.value) == f"expected targets of shape (B, ...), but {message}"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ([1, 2, 3], f"list of 3 int in the batch, tuple({ENTRIES} list of 3 int); {MAKE_ONE}"),
        (
            (0.5, 1.5),
            f"tuple of 2 float in the batch, tuple({ENTRIES} tuple of 2 float); {MAKE_ONE}",
        ),
        (["cat"], f"list of 1 str in the batch, tuple({ENTRIES} list of 1 str); {MAKE_ONE}"),
        (
            np.arange(B),
            f"ndarray int64 (3,) in the batch, tuple({ENTRIES} ndarray int64 (3,)); {MAKE_ONE}",
        ),
        (None, f"NoneType in the batch, tuple({ENTRIES} NoneType); {SAY_WHERE}"),
        ({"a": 3}, f"dict(a: int) in the batch, tuple({ENTRIES} dict(a: int)); {MAKE_ONE}"),
    ],
)
def test_a_place_without_a_tensor_is_refused(place, message):
    for paths in (None, 1):
        with pytest.raises(TypeError) as refused:
            find_targets((X, place), paths)
        assert str(refused.value) == f"expected a tensor as target, but got {message}"
    with pytest.raises(TypeError, match="expected a tensor as target"):
        find_targets({"x": X, "labels": place})


def test_tensors_at_its_place_that_are_all_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"but got \(7,\), \(2,\), not of one B;"):
        find_targets((X, (torch.ones(7), torch.ones(2))))
    with pytest.raises(ValueError, match=r"but got \(3,\), \(7,\), not of one B;"):
        find_targets((X, (Y, torch.ones(7))), 1)


FLAT, LENGTHS = torch.ones(9).long(), torch.tensor([4, 2, 3])


@pytest.mark.parametrize(
    ("batch", "paths", "shapes"),
    [
        ((X, (FLAT, LENGTHS)), None, "(9,), (3,)"),
        ((X, FLAT, LENGTHS), [1, 2], "(9,), (3,)"),
        ((X, FLAT, LENGTHS), 1, "(9,)"),
        ({"audio": X, "audio_len": Y, "target": FLAT, "target_len": LENGTHS}, None, "(9,)"),
    ],
)
def test_targets_end_to_end_are_refused(batch, paths, shapes):
    with pytest.raises(ValueError, match="laid end to end") as refused:
        find_targets(batch, paths)
    assert str(refused.value) == (
        f"expected targets of shape (B, ...), but got {shapes}, laid end to end with their "
        "lengths; pad them to (B, T) in the collate function"
    )


@pytest.mark.parametrize(
    ("batch", "target"),
    [
        (
            {"image": IMAGE, "node_features": torch.ones(9, 4), "y": FLAT, "num_nodes": LENGTHS},
            FLAT,
        ),
        ({"edge_index": torch.ones(2, 9), "x": X, "y": FLAT, "num_edges": LENGTHS}, FLAT),
        ({"x": X, "y": FLAT, "num_edges": LENGTHS + 1}, FLAT),
        ({"x": X, "y": FLAT.float(), "num_edges": LENGTHS}, None),
    ],
)
def test_labels_of_parts_that_are_as_many_as_something_else_are_targets(batch, target):
    assert find_targets(batch)[0] is (batch["y"] if target is None else target)


Pair, Masked, Domains = (
    namedtuple("Pair", "left right"),
    namedtuple("Masked", "tokens mask"),
    namedtuple("Domains", "source target"),
)
XY, OTHER = (X, Y), (torch.ones(2, 4), torch.arange(2))


@pytest.mark.parametrize(
    ("batch", "key"),
    [
        ((X, X.clone()), 1),
        ([X, X.clone()], 1),
        (Pair(X, X.clone()), "right"),
        ((Y, Y.clone()), 1),
        (((X, X.clone()), (X.clone(), X.clone())), 1),
        ([X, X.clone(), X.clone()], None),
        (((X, X.clone()),), None),
    ],
)
def test_of_tensors_that_are_alike_the_target_is_asked_about(batch, key):
    with pytest.raises(ValueError, match="look alike") as refused:
        find_targets(batch)
    assert str(refused.value) == (
        f"the entries of the batch, {describe(batch)}, look alike; if one is the target, as a "
        "copy of the input is an autoencoder's, say so: "
        f"target={'<index or path>' if key is None else repr(key)}; views of a sample have none: "
        "train them without ManifoldMixup"
    )
    assert find_targets(batch, key or "0")


@pytest.mark.parametrize(
    ("batch", "key", "path"),
    [
        ((XY, OTHER), 1, "0.1"),
        ([{"a": X, "b": Y}, {"a": X + 1, "b": Y + 1}], 1, None),
        ([{"x": X, "y": Y}, {"x": X + 1, "y": Y + 1}], 1, "0.y"),
        ((XY, torch.ones(2, 4)), 1, "0.1"),
        ((X, OTHER), 1, "1.1"),
        ({"source": XY, "target": OTHER}, "target", "source.1"),
        (Domains(XY, OTHER), "target", "source.1"),
    ],
)
def test_of_domains_that_look_alike_the_target_is_asked_about(batch, key, path):
    with pytest.raises(ValueError, match="looks like another one") as refused:
        find_targets(batch)
    assert str(refused.value) == (
        f"the entry {key!r} of the batch, {describe(batch)}, looks like another one, as those of "
        "two domains or views do; say which target the loss takes: target="
        f"{'<path>' if path is None else repr(path)}, or target={key!r} for all of this entry"
    )
    assert find_targets(batch, key)
    assert path is None or len(find_targets(batch, path)) == 1


@pytest.mark.parametrize(
    "batch",
    [
        ((IDS, Y), IDS.clone()),
        ((IDS, Y), W),
        ((W, Y), W.clone()),
        (X, X.double()),
        (X, X[:2].clone()),
        ({"a": X, "b": Y}, {"a": X.clone(), "c": Y.clone()}),
        ({"a": X, "b": Y}, {"a": X.clone(), "b": W}),
        {"image": X, "target": X.clone()},
        {"image": IMAGE, "mask": IMAGE.clone()},
        {"image": X, "target": {"mask": X.clone()}},
        (None, Y),
    ],
)
def test_what_its_form_or_its_name_tells_from_the_input_is_the_target(batch):
    assert find_targets(batch)


@pytest.mark.parametrize(
    ("batch", "key"),
    [
        ((X, X), 1),
        ({"x": Y, "y": Y}, "y"),
        ((X, (Y, X)), 1),
        ({"x": X, "w": W, "y": Y, "sample_weight": W}, "y"),
    ],
)
def test_a_target_at_two_places_is_refused(batch, key):
    with pytest.raises(ValueError, match="at two places") as refused:
        find_targets(batch)
    assert str(refused.value) == (
        f"the target stands at two places of the batch, {describe(batch)}; if it is the input as "
        f"well, give the batch a .clone() of it, and say target={key!r}"
    )


def test_a_pair_of_names_that_tell_is_no_pair_by_position():
    with pytest.raises(ValueError, match=r"^mask may be the target in the batch, Masked"):
        find_targets(Masked(IDS, IDS > 0))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("image mask label", "image"),
        ("x features y", "x"),
        ("img label img_size", "img"),
        ("input_ids attention_mask token_type_ids labels", "input_ids"),
        ("audio audio_len target target_len", "audio"),
        ("past_target past_observed_values future_target", "past_target"),
        ("features label id", "features"),
    ],
)
def test_an_input_is_found_by_the_words_of_its_name(names, found):
    batch = batch_of(names)
    assert find_input(batch) is batch[found]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("image x label", "image or x may be the"),
        ("tokens audio label", "tokens or audio may be the"),
        ("z label attention_mask", "there is no recognisable"),
    ],
)
def test_several_inputs_or_none_are_asked_about(names, problem):
    with pytest.raises(ValueError, match=f"^{problem} input in the batch, .* say where: input="):
        find_input(batch_of(names))
