"""What ended a command, told in one line."""

import re
from argparse import ArgumentError
from pathlib import Path

import pytest
import torch

from lightning_mmix.core.layers import select
from lightning_mmix.problems import SHOW, nearest, sentence_of, told

UNION = """\
Parser key "trainer.callbacks":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'NoneType'>, list[lightning.Callback], <class 'lightning.Callback'>]
  Errors:
    - Expected a <class 'NoneType'>
    - Problem with given class_path 'lightning_mmix.ManifoldMixup':
        {}
    - Not a valid subclass of Callback
      Subclass types expect one of:
      - a class path (str)
      - a dict with class_path entry
  Given value type: <class 'list'>
  Given value: [{{'class_path': 'lightning_mmix.ManifoldMixup'}}]"""
NESTED = """\
Parser key "alpha":
          Does not validate against any of the Union subtypes
          Subtypes: [<class 'float'>, collections.abc.Mapping[int, float]]
          Errors:
            - Expected a <class 'float'>
            - Expected a <class 'collections.abc.Mapping'>
          Given value type: <class 'str'>
          Given value: abc"""
PATH = """\
Parser key "{}":

  - Expected a path but Nope either not accessible or invalid
  - Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning.Logger'>, <class 'bool'>, <class 'NoneType'>]
  Errors:
    - {}
    - Expected a <class 'bool'>
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: Nope"""
LITERAL = """\
Parser key "trainer.precision":
  Does not validate against any of the Union subtypes
  Subtypes: [typing.Literal[64, 32], typing.Literal['64', 'bf16-true'], <class 'NoneType'>]
  Errors:
    - Expected a typing.Literal[64, 32]
    - Expected a typing.Literal['64', 'bf16-true']
    - Expected a <class 'NoneType'>
  Given value type: <class 'str'>
  Given value: 17"""
OPTIONS = {"": ["--seeds", "--out", "--trainer"], "trainer": ["max_epochs", "devices"]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            UNION.format("Option 'alfa' is not accepted"),
            "there is no argument 'alfa' of lightning_mmix.ManifoldMixup; did you mean 'alpha'?",
        ),
        (
            UNION.format("module 'lightning_mmix' has no attribute 'X'"),
            "trainer.callbacks: lightning_mmix.ManifoldMixup: module 'lightning_mmix' has no "
            "attribute 'X'",
        ),
        (
            UNION.format(NESTED),
            "trainer.callbacks: lightning_mmix.ManifoldMixup: alpha: expected float, or "
            "Mapping[int, float], but got 'abc'",
        ),
        (
            PATH.format("trainer.logger", "Expected a dot import path string: Nope"),
            "trainer.logger: expected Logger, bool, or null, but got 'Nope'",
        ),
        (PATH.format("data", "No module named 'nope'"), "data: No module named 'nope'"),
        (LITERAL, "trainer.precision: expected 64, 32, bf16-true, or null, but got '17'"),
        (
            "Parser key \"width\":\n  Expected a <class 'int'>. Got value: x",
            "width: expected int, but got 'x'",
        ),
        (
            "Group 'trainer' does not accept option 'max_epoch'",
            "there is no argument 'max_epoch' of trainer; did you mean 'max_epochs'?",
        ),
        (
            "Subcommand 'fit' does not accept option 'trainer.max_epoch'",
            "there is no argument 'max_epoch' of trainer; did you mean 'max_epochs'?",
        ),
        (
            "Group 'trianer' does not accept option 'max_epochs'",
            "there is no 'trianer'; did you mean 'trainer'?",
        ),
        (
            "Unrecognized arguments: --sead=3",
            "unrecognized arguments: --sead=3; did you mean '--seeds'?",
        ),
        (
            'Problems parsing config: while parsing\nno end\n  in "x", line 2',
            'Problems parsing config: while parsing no end in "x", line 2',
        ),
        ("", ""),
    ],
)
def test_what_a_parser_says_is_told_without_its_dump(text, sentence):
    assert sentence_of(ArgumentError(None, text), OPTIONS) == sentence


def raised(act):
    try:
        act()
    except Exception as error:
        return error


def test_an_error_of_ours_is_told_in_full():
    error = raised(lambda: select(torch.nn.Linear(2, 2), ["nope"]))
    assert sentence_of(error) == str(error)


def user_code():
    torch.zeros(2) @ torch.zeros(3)


def test_an_error_of_others_is_told_by_its_kind_first_line_and_place():
    from torch.utils.data import default_collate  # noqa: PLC0415 - a library that calls user code

    class Bad(dict):
        def __iter__(self):
            user_code()

    error = raised(lambda: default_collate([Bad(a=1), Bad(a=1)]))
    found = sentence_of(error)
    assert re.match(r"RuntimeError: .* \(at test_problems.py:\d+\)$", found)
    assert "\n" not in found


def test_a_long_line_is_cut():
    assert len(sentence_of(RuntimeError("x" * 1000))) == 400


def test_the_nearest_names_are_told():
    assert nearest("alpa", ["alpha", "layers"]) == "; did you mean 'alpha'?"
    assert nearest("zzz", ["alpha"]) == ""


def end_with(error, capsys):
    with pytest.raises(SystemExit) as ended, told("command"):
        raise error
    return ended.value.code, capsys.readouterr().err.splitlines()


def test_a_command_ends_with_a_line_and_the_traceback_of_what_is_not_ours_in_a_file(capsys):
    assert end_with(ArgumentError(None, "no"), capsys) == (2, ["command: no"])
    code, (line, kept) = end_with(ZeroDivisionError("nothing"), capsys)
    assert code == 1
    assert re.match(r"command: ZeroDivisionError: nothing \(at test_problems.py:\d+\)$", line)
    assert "raise error" in Path(kept.removeprefix("its traceback: ")).read_text()


def test_ctrl_c_is_no_error(capsys):
    assert end_with(KeyboardInterrupt(), capsys) == (130, ["command: stopped"])


def test_the_traceback_is_shown_to_who_asks(monkeypatch):
    monkeypatch.setenv(SHOW, "1")
    with pytest.raises(KeyError), told("command"):
        raise KeyError("x")
