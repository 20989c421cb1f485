"""How errors quote values, and other errors."""

import json

import numpy as np
import pytest
import torch
from rich.color import Color
from torch import nn

from lightning_mmix.core.checks import first_line, shown, told_of, with_first_parts
from lightning_mmix.core.plan import Recipe


def caught(run, below=0):
    """What something raises, as seen from so many frames below the one that calls it."""
    try:
        run()
    except Exception as error:
        for _ in range(below):
            error.__traceback__ = error.__traceback__.tb_next
        return error


def of_json():
    json.loads("no")


def of_torch():
    nn.Linear(4, 5)(torch.ones(2, 3))


def by_hand():
    raise ValueError("first\nand second")


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (of_json, "JSONDecodeError at test_checks.py:{}: Expecting value: line 1 column 1 (char"),
        (of_torch, "RuntimeError at test_checks.py:{}: mat1 and mat2 shapes cannot be multi"),
        (by_hand, "ValueError at test_checks.py:{}: first"),
    ],
)
def test_an_error_of_somebody_elses_is_told_with_the_users_line(run, told):
    error = caught(run)
    place = run.__code__.co_firstlineno + 1
    assert first_line(error).startswith(told.format(place))
    assert told_of(error) == first_line(error)


def test_where_no_line_is_the_users_that_of_a_package_is_told_and_none_of_torch():
    by_package, by_torch = caught(lambda: Color.parse("no"), 2), caught(of_torch, 2)
    assert first_line(by_package).startswith("ColorParseError at color.py:")
    assert first_line(by_torch).startswith("RuntimeError: mat1 and mat2")
    assert first_line(caught(lambda: json.loads("no"), 2)).startswith("JSONDecodeError: Expecting")
    nowhere = compile("1 / 0", "<nowhere>", "exec")
    assert first_line(caught(lambda: exec(nowhere, {}), 2)) == "ZeroDivisionError: division by zero"


def test_an_error_of_ours_is_told_in_its_own_words():
    error = caught(lambda: Recipe(-1, ["input"]))
    assert told_of(error) == "expected a finite alpha ≥ 0, but got -1"
    by_python = caught(lambda: Recipe("1", ["input"]))
    assert told_of(by_python).startswith("TypeError at test_checks.py:")


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("auto", "'auto'"),
        (None, "None"),
        (torch.tensor(0.5), "tensor(0.5000)"),
        (torch.ones(3, 40), "float32 (3, 40)"),
        (["a"] * 50, "list of 50 str"),
        ({"a" * 99: 1}, f"dict({'a' * 60}: int)"),
        (np.ones((2, 2)), "ndarray float64 (2, 2)"),
        (object(), "object"),
        (float, "type"),
    ],
)
def test_a_value_is_quoted_as_it_is_written_if_that_is_short(value, quoted):
    assert shown(value) == quoted


def test_a_name_or_glob_is_completed_by_first_parts_alone_the_shortest_first():
    names = ["a.layer.0", "b.c.layer.0", "layer.0", "layer", "a.layer.0.deep"]
    assert with_first_parts("layer.*", names) == ["a.layer.*", "b.c.layer.*"]
    assert with_first_parts("layer.0", ["layer.0"]) == []
    assert with_first_parts("layer.9", names) == []
