"""Masks of two sequences, of which one may be longer than the other."""

import pytest
import torch

from lightning_mmix.batches.union import united

PARTNER = torch.tensor([2, 0, 1])
LENGTHS = torch.tensor([2, 5, 3])
ROWS = [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
VALID = torch.tensor(ROWS)


def union_of(rows, partner=PARTNER):
    """What is valid in the sample or in its partner, a place at a time."""
    pairs = [(row, rows[j]) for row, j in zip(rows, partner.tolist(), strict=True)]
    return torch.tensor([[int(a or b) for a, b in zip(*pair, strict=True)] for pair in pairs])


def only(batch, path, partner=PARTNER):
    ((lent, data),) = united(batch, path, partner)
    return lent, data


def same(data, expected):
    torch.testing.assert_close(data, expected, rtol=0, atol=0)  # the dtype, too


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_a_mask_becomes_that_of_either_sequence(dtype):
    batch = {"input_ids": VALID, "attention_mask": VALID.to(dtype)}
    lent, data = only(batch, "attention_mask")
    assert lent is batch["attention_mask"]
    same(data, union_of(ROWS).to(dtype))
    same(lent, VALID.to(dtype))  # it is for others to exchange


@pytest.mark.parametrize("name", ["key_padding_mask", "src_key_padding_mask", "pad_mask", "isPad"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_where_true_is_padding_it_is_what_is_padding_in_both(name, dtype):
    _, data = only({name: (VALID == 0).to(dtype)}, name)
    same(data, (union_of(ROWS) == 0).to(dtype))


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS.int()])
def test_a_length_becomes_the_longer_one(lengths):
    _, data = only((VALID, lengths), 1)
    same(data, torch.tensor([3, 5, 5]).to(lengths.dtype))
    same(data, union_of(ROWS).sum(1).to(lengths.dtype))


@pytest.mark.parametrize(
    "mask",
    [lambda rows: rows[:, None, None], lambda rows: rows[:, :, None] * rows[:, None]],
)
def test_a_mask_for_attention_is_united_in_its_own_shape(mask):
    _, data = only([VALID, mask(VALID)], 1)
    for i, j in enumerate(PARTNER.tolist()):
        same(data[i], torch.where(mask(VALID)[i] > 0, 1, mask(VALID)[j]))
    assert data.shape == mask(VALID).shape


def test_gaps_and_padding_on_the_left_are_united_as_they_are():
    rows = [[0, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]]
    same(only({"mask": torch.tensor(rows)}, "mask")[1], union_of(rows))


def test_paths_may_be_several_dotted_and_lead_to_containers():
    batch = ({"mask": VALID > 0, "lengths": LENGTHS}, {"padding": [VALID == 0, VALID == 1]})
    found = united(batch, [1, "0.lengths", "0.mask"], PARTNER)
    names = [batch[1]["padding"][0], batch[1]["padding"][1], LENGTHS, batch[0]["mask"]]
    assert [id(lent) for lent, _ in found] == list(map(id, names))
    same(found[0][1], union_of(ROWS) == 0)  # in a container of padding
    same(found[1][1], ~union_of((VALID == 0).tolist()).bool())
    same(found[3][1], union_of(ROWS) > 0)


def test_what_is_named_twice_or_stands_at_two_places_is_united_once():
    batch = {"mask": VALID, "again": VALID}
    assert len(united(batch, ["mask", "again", "mask"], PARTNER)) == 1
    assert united(batch, [], PARTNER) == []


def test_who_is_their_own_partner_keeps_their_mask():
    same(only({"mask": VALID}, "mask", torch.arange(3))[1], VALID)


@pytest.mark.parametrize(
    ("mask", "is_it"),
    [
        (VALID.T, "int64 (5, 3)"),
        (torch.ones(5, 5) > 0, "bool (5, 5)"),
        (torch.tensor(4), "int64 ()"),
    ],
)
def test_a_mask_without_a_row_for_each_sample_is_refused(mask, is_it):
    with pytest.raises(ValueError, match=r"of shape \(3, ...\)") as refused:
        united({"mask": mask}, "mask", PARTNER)
    assert f"but got {is_it} as union='mask'" in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_a_mask_that_is_added_to_scores_is_refused(dtype):
    with pytest.raises(TypeError, match=r"a boolean or integer mask as union='0\.mask'"):
        united([{"mask": VALID.to(dtype)}], "0.mask", PARTNER)


def test_what_is_missing_or_no_tensor_is_refused():
    batch = {"attention_mask": VALID, "lengths": [2, 5, 3]}
    message = "no union='attn_mask' in .* did you mean 'attention_mask'"
    with pytest.raises(ValueError, match=message):
        united(batch, "attn_mask", PARTNER)
    with pytest.raises(TypeError, match="expected a tensor as union, but got list of 3 int"):
        united(batch, "lengths", PARTNER)
