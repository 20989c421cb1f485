"""The table of all refusals and warnings is true, and complete."""

import ast
import re
import traceback
import warnings
from functools import cache
from pathlib import Path

import pytest
from refusals import TABLE

import lightning_mmix

PACKAGE = Path(lightning_mmix.__file__).parent
TOLD_ELSEWHERE = ("cli", "compare", "faces", "plots", "problems")  # by tests of their own
INNER = ("LookupError", "_Checked", "KeyError", "StopIteration")  # caught by ourselves


@cache
def heard(row):
    """All that is said, and the lines of ours from which errors come."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            row.run()
        except Exception as error:
            return [*(warning.message for warning in caught), error], lines(error)
    return [warning.message for warning in caught], set()


def lines(error):
    """The lines that an error came by, and those by which the errors came that it is told of."""
    if error is None:
        return set()
    own = {(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)}
    return own | lines(error.__context__)


def pattern(says):
    escaped = re.escape(says).replace(re.escape("{line}"), r"\w+\.py:\d+")
    return escaped.replace(re.escape("{number}"), r"[\d.e+-]+")


@pytest.mark.parametrize("row", TABLE, ids=[row.when for row in TABLE])
def test_it_is_said_in_full(row):
    said = [message for message in heard(row)[0] if isinstance(message, row.kind)]
    assert any(re.fullmatch(pattern(row.says), str(message)) for message in said), said


@pytest.mark.parametrize("row", TABLE, ids=[row.when for row in TABLE])
def test_it_is_short(row):
    assert len(row.says) <= 400
    assert not row.says.endswith(".")


@pytest.mark.parametrize("row", TABLE, ids=[row.when for row in TABLE])
def test_what_it_quotes_is_told_once(row):
    for said in heard(row)[0]:
        cause = said.__cause__ or (None if said.__suppress_context__ else said.__context__)
        assert cause is None or str(cause).partition("\n")[0] not in str(said)


def raised(path):
    """The statements of a module that raise something new."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func)
            if name not in INNER:
                yield node


def test_no_refusal_is_left_out():
    seen = set().union(*(heard(row)[1] for row in TABLE))
    left_out = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") not in TOLD_ELSEWHERE
        for node in raised(path)
        if all((str(path), line) not in seen for line in range(node.lineno, node.end_lineno + 1))
    ]
    assert left_out == []
