"""A few rows of a batch, and what a thousand places of each tell."""

import pytest
import torch
from torch import nn

from lightning_mmix.core.trees import tensors
from lightning_mmix.cuts.recording import Watch
from lightning_mmix.cuts.rows import Rows, deviation, few_rows, folds


def few(*facts, count=3):
    """Which of seven rows are taken, as told by a float that counts them."""
    return few_rows((torch.arange(7.0), *facts), 7, count)[0].tolist()


def test_the_first_rows_are_taken_where_nothing_tells_them_apart():
    assert few() == [0, 1, 2]
    assert few(torch.full((7,), 4), torch.ones(7, 5, dtype=torch.bool)) == [0, 1, 2]


def test_rows_of_different_lengths_are_preferred():
    lengths = torch.tensor([4, 4, 4, 4, 2, 4, 3])
    assert few(lengths) == [0, 4, 6]
    assert few(lengths, count=4) == [0, 1, 4, 6]
    mask = torch.arange(4) < lengths[:, None]
    assert few(mask) == few(mask * torch.randint(1, 9, (7, 4))) == [0, 4, 6]


def test_tensors_of_other_sizes_stay_as_they_are():
    table, x = torch.ones(3, 7), torch.ones(7, 3)
    assert [tuple(t.shape) for t in tensors(few_rows([table, {"x": x}], 7, 2))] == [(3, 7), (2, 3)]


HIDDEN = [(5,), (5, 3), (5, 5), (5, 4, 3), (5, 5, 700), (5, 7, 11, 101)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("shape", HIDDEN)
def test_rows_tell_if_they_have_moved_on(shape, dtype):
    state = torch.randn(shape, dtype=dtype)
    rows = Rows.of(state, 5)
    assert rows.values[0].numel() <= 5 * 1000
    assert rows.deviation(Rows.of(state.roll(1, 0), 5), 1e-3) == 0
    assert rows.deviation(rows, 1e-3) > 0.9
    along = rows.deviation(Rows.of(state.roll(1, -1 if len(shape) == 1 else 1), 5), 1e-3, dim=1)
    assert along == (0 if shape[1:2] == (5,) else None)


def test_rows_along_another_dimension():
    state = torch.randn(3, 5, 4)
    moved = Rows.of(state.roll(1, 1), 5, dim=1)
    assert Rows.of(state, 5, dim=1).deviation(moved, 1e-3) == 0


def test_rows_that_are_alike_up_to_rounding_do_not_tell():
    state = torch.ones(5, 4) + 1e-6 * torch.randn(5, 4)
    assert Rows.of(state, 5).deviation(Rows.of(state.roll(1, 0), 5), 1e-3) is None
    nothing = Rows.of(torch.full((5, 4), torch.nan), 5)
    assert nothing.deviation(nothing, 1e-3) is None
    assert not nothing.are_shuffled(nothing, 1e-3)
    sparse = Rows.of(torch.eye(5).to_sparse(), 5)
    assert sparse.deviation(sparse, 1e-3) is None


def test_shuffled_rows_are_the_same_rows():
    state = torch.randn(5, 4)
    rows = Rows.of(state, 5)
    assert rows.are_shuffled(Rows.of(state[[3, 1, 0, 4, 2]], 5), 1e-3)
    assert not rows.are_shuffled(Rows.of(state[[3, 1, 0, 4, 4]], 5), 1e-3)
    assert not rows.are_shuffled(Rows.of(state + 0.1, 5), 1e-3)


def test_a_watch_keeps_what_was_put_out_and_leaves_no_hook():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    x = torch.randn(5, 3)
    with Watch(dict(net.named_children()), 5) as watch:
        net(x)
    torch.testing.assert_close(watch.rows["0"][0].values, net[0](x).detach().double())
    assert not any(module._forward_hooks for module in net)


@pytest.mark.parametrize("is_repeated", [True, False])
def test_the_rows_of_an_output_of_several_for_each_sample_are_found(is_repeated):
    x, order = torch.randn(5, 3), torch.arange(5).roll(1)

    def output(x):
        return x.repeat(4, 1) if is_repeated else x.repeat_interleave(4, 0)

    together, apart = folds(output(x), 5)
    found = apart[0] if is_repeated else together[:, 0]
    assert torch.equal(found, x)
    assert deviation([output(x[order])], [output(x)], order) == 0
    assert deviation([output(x)], [output(x)], order) == 1


def test_an_output_that_may_have_the_batch_elsewhere_is_not_folded():
    assert folds(torch.ones(10, 5), 5) is None
    assert folds(torch.ones(5, 10), 5) is None
    assert folds(torch.ones(7, 3), 5) is None
    assert folds(torch.ones(()), 5) is None


def test_rows_differ_by_more_than_rounding():
    x = torch.randn(5, 3)
    x[0, 0] = torch.inf
    rows = Rows.of(x, 5)
    assert not rows.differ(Rows.of(x * (1 + 1e-7), 5))
    assert rows.differ(Rows.of(x + 1e-3, 5))
    assert rows.differ(Rows.of(x[:, :2], 5))
