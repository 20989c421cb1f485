"""Arguments: what is of another type than expected, or out of range, is refused in a sentence."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor, nn

from lightning_mmix.core.checks import shown
from lightning_mmix.evaluation.predictions import Predictor

Pair = tuple[float, float]
Numbers = float | Sequence[float]


def expect(is_met: bool, expected: str, got: object) -> None:
    """Refuse an argument that is not as expected.

    Raises:
        ValueError: If the expectation is not met.
    """
    if not is_met:
        raise ValueError(f"expected {expected}, but got {shown(got)}")


def conform(values: Any) -> None:
    """Hold the arguments of a dataclass to the types of its fields.

    Numbers of NumPy's become Python's, which neither overflow nor round.

    Raises:
        ValueError: As :func:`expect_types` has it.
    """
    own = {each.name: getattr(values, each.name) for each in fields(values) if each.init}
    expect_types(type(values), own.items())
    for name, value in own.items():
        if isinstance(value, np.generic):
            object.__setattr__(values, name, value.item())


def expect_types(annotated: Callable[..., Any], given: Iterable[tuple[str, object]]) -> None:
    """Refuse arguments that are not of the types that they are annotated with.

    Numbers may be NumPy's, and several of them an array or a tensor. A bool is no number, and a
    float is no whole number. Types of other kinds than ``_KINDS`` and literals are not looked at.

    Args:
        annotated: A class or function.
        given: The names of some of its arguments, with their values.

    Raises:
        ValueError: If one is of another type.
    """
    try:
        hints = get_type_hints(annotated)
    except NameError:  # a type that is imported for type checkers alone
        return
    for name, value in given:
        _expect_type(name, hints[name], value)


def listed(numbers: Any) -> list[Any]:
    """One or several numbers, in an array, a tensor or another sequence, as a list."""
    plain = numbers.tolist() if isinstance(numbers, np.ndarray | Tensor) else numbers
    return list(plain) if isinstance(plain, Sequence) else [plain]


@contextmanager
def naming_predictor(model: nn.Module | Predictor) -> Iterator[None]:
    """Where it is to be said where a batch of a model holds what, say that a Predictor takes it."""
    try:
        yield
    except (TypeError, ValueError) as error:
        told = re.sub(r"\w+=<key, index or path>$", r"Predictor(model, \g<0>)", str(error))
        if isinstance(model, Predictor) or told == str(error):
            raise
        raise type(error)(told) from None


def _expect_type(name: str, hint: Any, value: object) -> None:
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        # an array would compare its entries
        is_one = any(isinstance(value, type(each)) and value == each for each in choices)
        expect(is_one, f"{name} in {choices}", value)
        return
    types = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if all(each in _KINDS for each in types):
        kinds, tests = zip(*(_KINDS[each] for each in types), strict=True)
        expect(any(test(value) for test in tests), f"{' or '.join(kinds)} as {name}", value)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, float | np.floating) or _is_whole(value)


def _are_numbers(values: object) -> bool:
    if not isinstance(values, Sequence | np.ndarray | Tensor) or isinstance(values, bytes):
        return False
    return bool(listed(values)) and all(map(_is_number, listed(values)))


def _are_two(values: object) -> bool:
    return _are_numbers(values) and len(listed(values)) == 2


_KINDS: dict[Any, tuple[str, Callable[[object], bool]]] = {
    bool: ("True or False", _is_bool),
    int: ("a whole number", _is_whole),
    float: ("a number", _is_number),
    NoneType: ("None", lambda value: value is None),
    Pair: ("two numbers", _are_two),
    Sequence[float]: ("a list of numbers", _are_numbers),
}
