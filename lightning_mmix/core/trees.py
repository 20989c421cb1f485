"""Trees of tensors: batches, arguments and outputs, as nested containers hold them."""

import copy
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

Path = str | int


def tensors(tree: Any, levels: float = math.inf) -> Iterator[Tensor]:
    """All tensors in nested mappings, sequences, dataclasses and objects with keys.

    Args:
        tree: Any tree.
        levels: How many levels down they are looked for.
    """
    if isinstance(tree, Tensor):
        yield tree
    elif levels > 0:
        for _, entry in entries(tree):
            yield from tensors(entry, levels - 1)


def has_rows(tree: Any, size: int | None) -> bool:
    """Whether any tensor in a tree has ``size`` rows."""
    return any(first_size(tensor) == size for tensor in tensors(tree))


def first_size(tensor: Tensor) -> int | None:
    """The size of a tensor's first dimension; None if it has none, or no shape, as nested ones."""
    return next(iter(_shape(tensor)), None)


def mapped(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The tree with ``change`` made to each of its tensors; itself, if that changes nothing."""
    if isinstance(tree, Tensor):
        return change(tree)
    parts = dict(entries(tree))
    changed = {key: mapped(part, change) for key, part in parts.items()}
    if all(changed[key] is parts[key] for key in parts):
        return tree
    return _rebuilt(tree, changed)


def converted(tree: Any, dtype: torch.dtype | None) -> Any:
    """The tree with floating-point tensors of this dtype; itself, if they are, or it is None."""
    return mapped(tree, lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf)


def copied(tree: Any) -> Any:
    """The tree with lists, tuples and mappings of its own, and the same tensors."""
    takes_items = is_keyed(tree) and hasattr(type(tree), "__setitem__")
    if not isinstance(tree, tuple | list) and not takes_items:
        return tree
    return _rebuilt(tree, {key: copied(part) for key, part in entries(tree)})


def located(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in a tree with their dotted paths, as :func:`follow` takes them."""
    if isinstance(tree, Tensor):
        yield path, tree
    else:
        for key, entry in entries(tree):
            yield from located(entry, f"{path}.{key}" if path else str(key))


def are_alike(tree: Any) -> bool:
    """Whether a tree holds several tensors, all of one dtype and shape."""
    forms = [(tensor.dtype, _shape(tensor)) for tensor in tensors(tree)]
    return len(forms) > 1 and len(set(forms)) == 1


def are_formed_alike(one: Any, other: Any) -> bool:
    """Whether two trees hold the same but for the number of rows."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and _shape(one)[1:] == _shape(other)[1:]
    own, others = entries(one), entries(other)
    are_same = type(one) is type(other) and [key for key, _ in own] == [key for key, _ in others]
    pairs = zip(own, others, strict=False)
    return are_same and all(are_formed_alike(a, b) for (_, a), (_, b) in pairs)


def siblings(tree: Any, tensor: Tensor) -> list[Tensor]:
    """The other tensors of the sequence in which a tensor stands; none if it is in no sequence."""
    parts = [part for _, part in entries(tree)]
    if isinstance(tree, tuple | list) and any(part is tensor for part in parts):
        return [part for part in parts if isinstance(part, Tensor) and part is not tensor]
    return [found for part in parts for found in siblings(part, tensor)]


def places(batch: Any, found: Iterable[Tensor]) -> list[str]:
    """The dotted paths of these tensors of a batch, of those that its containers hold.

    Example:
        >>> import torch
        >>> x, y = torch.zeros(2, 3), torch.ones(2)
        >>> places((x, {"labels": y}), [y])
        ['1.labels']
    """
    paths = {id(tensor): path for path, tensor in reversed(list(located(batch)))}
    return [paths[id(tensor)] for tensor in found if id(tensor) in paths]


def rest(batch: Any, size: int, known: Iterable[Tensor]) -> dict[str, Tensor]:
    """The tensors of ``size`` rows in a batch that are not known yet, each once, by dotted path."""
    known_ids = {id(tensor) for tensor in known}
    found = {id(tensor): (path, tensor) for path, tensor in reversed(list(located(batch)))}
    unknown = [found[key] for key in reversed(found) if key not in known_ids]
    return {path: tensor for path, tensor in unknown if first_size(tensor) == size}


def is_keyed(tree: Any) -> bool:
    """Whether a tree is a mapping, or is asked like one, as the graphs of PyTorch Geometric are."""
    if isinstance(tree, Mapping):
        return True
    return hasattr(type(tree), "keys") and hasattr(type(tree), "__setitem__")


def entries(tree: Any) -> list[tuple[Any, Any]]:
    """What a tree holds, by key: a mapping, an object with keys, a dataclass or a sequence.

    Of anything else, such as a string or an array, nothing.
    """
    if type(tree) in (tuple, list):  # most batches
        return list(enumerate(tree))
    if is_keyed(tree):
        return list(_mapping(tree).items())
    if is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in fields(tree)]
    if hasattr(tree, "_fields"):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, Sequence) and not isinstance(tree, str | bytes):
        return list(enumerate(tree))
    return []


def follow(batch: Any, path: Path, what: str) -> Any:
    """The entry of a batch, or of an output, at a key, an index or a dotted path.

    Args:
        batch: Any tree.
        path: Where the entry is.
        what: What it is, for an error: ``"target"``, ``"input"`` or ``"output"``.

    Raises:
        ValueError: If there is none.
    """
    for route in ([path], str(path).split(".")):  # a key may itself hold a dot
        try:
            return reduce(_step_into, route, batch)
        except LookupError:  # noqa: PERF203 - two rounds
            continue
    where = "output" if what == "output" else "batch"
    known = [known for known, _ in located(batch)]
    parts = [each for each in known if str(path) in each.replace("_", ".").split(".")]
    near = difflib.get_close_matches(str(path), known, 1) or parts[:1]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"there is no {what}={path!r} in the {where}, {describe(batch)}{hint}")


def describe(batch: Any, width: int = 120) -> str:
    """What a batch holds, in a line: ``tuple(0: float32 (8, 3), 1: int64 (8,))``.

    Args:
        batch: Any tree.
        width: About how many characters there are, and twice as many at most; what has no room is
            left out.
    """
    line = " ".join(_described(batch, width).split())  # a key may have lines
    return line if len(line) <= 2 * width else f"{line[: 2 * width - 1]}…"


def _described(tree: Any, width: int) -> str:
    if isinstance(tree, Tensor | np.ndarray):
        return _values(tree)
    name, held = f"{type(tree).__name__:.60}", entries(tree)
    is_list = isinstance(tree, Sequence) and held
    if is_list and next(tensors(tree, width.bit_length()), None) is None:
        return f"{name} of {len(held)} {type(held[0][1]).__name__:.60}"
    shown: list[str] = []
    room = width
    for key, entry in held[:width]:
        part = f"{key!s:.60}: {_described(entry, width // 2)}"
        room -= len(part) + 2
        if shown and room < 0:
            break
        shown.append(part)
    more = [f"… {len(held)} in all"] if len(shown) < len(held) else []
    return f"{name}({', '.join([*shown, *more])})" if held else name


def _values(values: Tensor | np.ndarray) -> str:
    name = str(values.dtype).removeprefix("torch.")
    if isinstance(values, np.ndarray):
        return f"ndarray {name} {values.shape}"
    if values.layout is not torch.strided:
        name = f"{str(values.layout).removeprefix('torch.')} {name}"
    return f"nested {name}" if values.is_nested else f"{name} {tuple(values.shape)}"


def _shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a tensor, empty for a nested one that has none."""
    return () if tensor.is_nested and tensor.layout is torch.strided else tensor.shape


def _mapping(tree: Any) -> Mapping[Any, Any]:
    if isinstance(tree, Mapping):
        return tree
    if hasattr(tree, "to_dict"):  # a graph of several kinds of nodes has no entry for a key
        held: Mapping[Any, Any] = tree.to_dict()
        return held
    return {key: tree[key] for key in _keys(tree)}


def _keys(tree: Any) -> list[Any]:
    return list(tree.keys() if callable(tree.keys) else tree.keys)


def _rebuilt(tree: Any, parts: dict[Any, Any]) -> Any:
    if isinstance(tree, tuple | list):
        return getattr(tree, "_make", type(tree))(parts.values())
    rebuilt = copy.copy(tree)
    for key, part in parts.items():
        if not is_keyed(tree):
            object.__setattr__(rebuilt, key, part)  # a dataclass may be frozen
        elif key in _keys(tree):
            rebuilt[key] = part
    return rebuilt


def _step_into(tree: Any, key: Path) -> Any:
    held = dict(entries(tree))
    if key in held:
        return held[key]
    index = int(key) if isinstance(key, int) or key.lstrip("-").isdigit() else None
    if index is not None and isinstance(tree, Sequence):
        return tree[index]
    if index in held:
        return held[index]
    if isinstance(key, str) and not isinstance(tree, Tensor) and hasattr(tree, key):
        return getattr(tree, key)
    raise LookupError(key)
