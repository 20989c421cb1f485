"""The schedule knows how strongly and how often batches are mixed, and until when."""

import pytest

from lightning_mmix.engine.schedule import Schedule


def test_a_number_holds_in_every_epoch():
    assert [Schedule(0.3, 0.7).at(epoch, None, None) for epoch in (0, 9)] == [(0.3, 0.7)] * 2


def test_a_mapping_holds_from_each_of_its_epochs_on():
    schedule = Schedule({3: 0.0, 0: 1.0, 1: 2.0}, {0: 0.5, 2: 1.0})
    found = [schedule.at(epoch, None, None) for epoch in range(5)]
    assert found == [(1.0, 0.5), (2.0, 0.5), (2.0, 1.0), (0.0, 1.0), (0.0, 1.0)]


@pytest.mark.parametrize(("done", "prob"), [(0.0, 0.5), (0.799, 0.5), (0.8, 0.0), (1.0, 0.0)])
def test_nothing_is_mixed_after_the_stop(done, prob):
    assert Schedule(1.0, 0.5, stop=0.8).at(0, done, None) == (1.0, prob)


@pytest.mark.parametrize(
    ("done", "gap", "prob"),
    [
        (0.5, -0.1, 0.5),  # the last part has not begun
        (0.6, None, 0.5),  # there was no validation in it
        (0.6, float("nan"), 0.5),  # or it had no samples
        (0.6, 0.1, 0.5),
        (0.6, 0.0, 0.0),
        (0.6, -0.1, 0.0),
        (0.9, 0.1, 0.0),  # it has stopped
    ],
)
def test_a_network_settles_while_it_is_over_confident_alone(done, gap, prob):
    assert Schedule(1.0, 0.5, stop=0.9, settle=0.4).at(0, done, gap) == (1.0, prob)


HALF = "mixed until 50% of the training"
OVER = "nothing is mixed any more, after 50% of the training"


@pytest.mark.parametrize(
    ("done", "prob", "told"),
    [(0.0, 1, HALF), (0.499, 1, HALF), (0.5, 0, OVER), (None, 1, "mixed throughout")],
)
def test_as_it_comes_the_first_half_is_mixed_if_there_is_one(done, prob, told):
    schedule = Schedule()
    assert schedule.at(3, done, None) == (1.0, prob)
    assert schedule.told(done) == told


@pytest.mark.parametrize(
    "kwargs", [{"stop": 1.0}, {"settle": 0.3}, {"prob": {0: 1.0}}, {"alpha": {0: 1.0}}]
)
def test_who_says_when_to_mix_has_the_whole_training(kwargs):
    schedule = Schedule(**kwargs)
    assert schedule.at(3, 0.9, None) == (1.0, 1.0)
    assert "until" not in schedule.told(0.9)


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"stop": 0.8}, "mixed until 80% of the training"),
        ({"stop": 1.0}, ""),
        ({"prob": {0: 1.0}}, "mixed throughout"),
        ({"settle": 0.4}, "mixed to the end, from 60% on only while over-confident"),
        (
            {"stop": 0.9, "settle": 0.4},
            "mixed until 90% of the training, from 60% on only while over-confident",
        ),
    ],
)
def test_it_is_told_until_when_batches_are_mixed(kwargs, told):
    assert Schedule(**kwargs).told(0.0) == told


def test_a_schedule_that_needs_no_length_asks_for_none():
    assert not Schedule({0: 1.0, 5: 0.0}, 0.5).needs_length
    assert not Schedule(stop=1.0).needs_length
    assert Schedule(stop=0.5).needs_length
    assert Schedule(settle=0.5).needs_length


@pytest.mark.parametrize("kwargs", [{"alpha": 0}, {"prob": 0}, {"stop": 0}, {"alpha": {0: 0.0}}])
def test_a_schedule_that_never_mixes_says_so(kwargs):
    assert Schedule(**kwargs).never_mixes


def test_a_schedule_that_begins_later_does_mix():
    assert not Schedule(alpha={0: 0.0, 9: 1.0}).never_mixes
