"""Trees of tensors: batches, arguments and outputs, as nested containers hold them."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import fields, is_dataclass
from functools import reduce
from typing import Any

from torch import Tensor

Path = str | int


def tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested mappings, sequences and dataclasses."""
    if isinstance(tree, Tensor):
        yield tree
    else:
        for _, entry in entries(tree):
            yield from tensors(entry)


def has_rows(tree: Any, size: int | None) -> bool:
    """Whether any tensor in a tree has ``size`` rows."""
    return any(tensor.shape[:1] == (size,) for tensor in tensors(tree))


def mapped(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The tree with ``change`` made to each of its tensors; itself, if that changes nothing."""
    if isinstance(tree, Tensor):
        return change(tree)
    parts = dict(entries(tree))
    changed = {key: mapped(part, change) for key, part in parts.items()}
    if all(changed[key] is parts[key] for key in parts):
        return tree
    return _rebuilt(tree, changed)


def copied(tree: Any) -> Any:
    """The tree with lists, tuples and mappings of its own, and the same tensors."""
    if not isinstance(tree, tuple | list | MutableMapping):
        return tree
    return _rebuilt(tree, {key: copied(part) for key, part in entries(tree)})


def located(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in a tree with their dotted paths, as :func:`follow` takes them."""
    if isinstance(tree, Tensor):
        yield path, tree
    else:
        for key, entry in entries(tree):
            yield from located(entry, f"{path}.{key}" if path else str(key))


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
    return {path: tensor for path, tensor in unknown if tensor.shape[:1] == (size,)}


def entries(tree: Any) -> list[tuple[Any, Any]]:
    """What a mapping, dataclass, namedtuple or sequence holds, by key; of anything else nothing."""
    if type(tree) in (tuple, list):  # most batches
        return list(enumerate(tree))
    if isinstance(tree, Mapping):
        return list(tree.items())
    if is_dataclass(tree) and not isinstance(tree, type):
        return [(field.name, getattr(tree, field.name)) for field in fields(tree)]
    if hasattr(tree, "_fields"):
        return list(zip(tree._fields, tree, strict=True))
    if isinstance(tree, Sequence) and not isinstance(tree, str | bytes):
        return list(enumerate(tree))
    return []


def follow(batch: Any, path: Path, what: str) -> Any:
    """The entry of a batch at a key, an index or a dotted path; ``what`` it is, for an error."""
    for route in ([path], str(path).split(".")):  # a key may itself hold a dot
        try:
            return reduce(_step_into, route, batch)
        except LookupError:  # noqa: PERF203 - two rounds
            continue
    raise ValueError(f"there is no {what}={path!r} in the batch, {describe(batch)}")


def describe(batch: Any) -> str:
    """What a batch holds, in a line: ``tuple(0: float32 (8, 3), 1: int64 (8,))``."""
    if isinstance(batch, Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape)}"
    inside = ", ".join(f"{key}: {describe(entry)}" for key, entry in entries(batch))
    return f"{type(batch).__name__}({inside})" if inside else type(batch).__name__


def _rebuilt(tree: Any, parts: dict[Any, Any]) -> Any:
    if isinstance(tree, tuple | list):
        return getattr(tree, "_make", type(tree))(parts.values())
    rebuilt = copy.copy(tree)
    for key, part in parts.items():
        if isinstance(tree, Mapping):
            rebuilt[key] = part
        else:
            object.__setattr__(rebuilt, key, part)  # a dataclass may be frozen
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
