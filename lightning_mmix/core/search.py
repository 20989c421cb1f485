"""The search for a target, among the names, types and shapes of what a batch holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.names import goes_with, is_mask, kind
from lightning_mmix.core.trees import describe, entries, has_rows, tensors

Held = dict[Any, Any]  # what a batch holds, by key


def search_targets(batch: Any, *, along: bool) -> list[Tensor]:
    """The tensors at the target's place, and those of other entries that go along with it.

    Args:
        batch: What the data loader yields.
        along: Whether to return those others.

    Returns:
        The batch's own tensors, the target first.

    Raises:
        ValueError: If none is recognised, or what is found may be something else.
        TypeError: If what is found is no tensor, or one for each sample.
    """
    if is_plain_pair(batch):
        return [batch[1]]
    held = dict(entries(batch))
    key = _target_key(batch, held)
    targets = _tensors_in(held[key], batch, held)
    others = [other for other in held if other != key and goes_with(other, key)]
    apart = [entry for other, entry in held.items() if other != key and other not in others]
    if along:
        targets += [held[other] for other in others if _is_as_long(held[other], targets[0])]
    # of a target that was named a gate sees if the network takes it
    _refuse_shared(batch, targets, apart)
    _refuse_view(batch, key, held[key], apart)
    return list({id(target): target for target in targets}.values())


def is_plain_pair(batch: Any) -> bool:
    """Whether a batch is a pair of tensors that are not alike, as most are: input and target."""
    if type(batch) not in (tuple, list) or len(batch) != 2:
        return False
    first, second = batch
    are_tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
    return are_tensors and (first.dtype != second.dtype or first.shape != second.shape)


def _target_key(batch: Any, held: Held) -> Any:
    # a pair is told by its type: three labels in a row are no (x, y, weight)
    if type(batch) in (tuple, list):
        return one_of([1] if len(batch) == 2 else [], batch, "target")
    named = [key for key in held if kind(key) == "target"]
    likely = [key for key in named if not _is_text(held[key])]
    if len(likely) > 1:
        size = _rows(held)
        likely = [key for key in likely if has_rows(held[key], size)] or likely
    if not likely and _is_pair(batch, held):
        likely = [*held][1:]
    return one_of(likely or _doubtful(batch, held) or named, batch, "target")


def _is_pair(batch: Any, held: Held) -> bool:
    if not isinstance(batch, tuple | list) or len(held) != 2:
        return False
    first, second = map(kind, held)
    return first in ("other", "input") and second == "other"


def _doubtful(batch: Any, held: Held) -> list[Any]:
    """The mask, or what measures a target, if nothing else can be the target."""
    size = _rows(held)
    kinds = {key: kind(key) for key, entry in held.items() if has_rows(entry, size)}
    doubtful = [key for key in kinds if kinds[key] in ("mask", "measure")]
    unknown = [key for key in kinds if kinds[key] == "other"]
    if len(doubtful) == 1 and not unknown and not _may_pad(doubtful[0], held):
        return doubtful
    if doubtful:
        raise _which([*doubtful, *unknown], batch, "target")
    return []


def _may_pad(key: Any, held: Held) -> bool:
    """Whether this may be a mask that says which parts of the input are padding."""
    mask = held[key]
    if not is_mask(key) or not isinstance(mask, Tensor):
        return is_mask(key)
    if mask.dtype == torch.bool and len(list(tensors(held))) > 2:
        return True
    inputs = tensors([entry for other, entry in held.items() if kind(other) == "input"])
    sizes = [value.shape[-2:] for value in inputs if value.dim() > 3]
    return mask.dim() == 2 or (mask.dim() > 2 and mask.shape[-2:] not in sizes)


def _rows(held: Held) -> int | None:
    inputs = [entry for key, entry in held.items() if kind(key) == "input"]
    return next((len(each) for each in tensors([*inputs, held]) if each.dim()), None)


def _is_text(entry: Any) -> bool:
    if isinstance(entry, list | tuple):
        return all(part is None or isinstance(part, str) for part in entry)
    return entry is None or isinstance(entry, str | int | float)


def _tensors_in(entry: Any, batch: Any, held: Held) -> list[Tensor]:
    if isinstance(entry, Tensor):
        return [entry]
    size = _rows(held)
    refuse_one_each(entry, size)
    parts = sorted(entries(entry), key=lambda part: kind(part[0]) != "target")
    found = list(tensors([part for _, part in parts])) or [one_tensor(entry, batch, "target")]
    return [each for each in found if has_rows(each, size)] or found


def _refuse_shared(batch: Any, targets: list[Tensor], apart: list[Any]) -> None:
    own = {id(target) for target in targets}
    if any(id(tensor) in own for tensor in tensors(apart)):
        raise ValueError(
            f"the target stands at two places of the batch, {describe(batch)}; if it is the "
            "input as well, give the batch a .clone() of it"
        )


def _is_as_long(entry: Any, target: Tensor) -> bool:
    return isinstance(entry, Tensor) and entry.shape[:1] == target.shape[:1]


def _refuse_view(batch: Any, key: Any, entry: Any, apart: list[Any]) -> None:
    is_named = kind(key) != "other"
    if is_named and isinstance(entry, Tensor):
        return
    is_alike = _is_formed_alike if is_named else _may_be_view
    if any(is_alike(other, entry) for other in apart):
        raise ValueError(
            f"the entry {key!r} of the batch, {describe(batch)}, looks like another one, so it may "
            "be a view or a domain of its own rather than the target; if it is the target, say "
            f"so: target={key!r}"
        )


def _may_be_view(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape
    if not isinstance(one, Tensor) and not isinstance(other, Tensor):
        return _is_formed_alike(one, other)
    # a domain with labels beside one without; token ids may have labels of their shape
    first, second = next(tensors(one), None), next(tensors(other), None)
    if first is None or not first.is_floating_point() or first.dim() < 2:
        return False
    return _is_formed_alike(first, second)


def _is_formed_alike(one: Any, other: Any) -> bool:
    """Whether two trees hold the same but for the number of rows."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape[1:] == other.shape[1:]
    own, others = entries(one), entries(other)
    are_same = type(one) is type(other) and [key for key, _ in own] == [key for key, _ in others]
    pairs = zip(own, others, strict=False)
    return are_same and all(_is_formed_alike(a, b) for (_, a), (_, b) in pairs)


def refuse_one_each(found: Any, size: int | None = None) -> None:
    """Refuse a list of what each sample has.

    Args:
        found: What stands at the target's place.
        size: B, if a list of B tensors that don't all have B rows is to be refused, too.

    Raises:
        TypeError: If it is one.
    """
    parts = found if isinstance(found, tuple | list) else ()
    are_tensors = [isinstance(part, Tensor) for part in parts]
    if any(isinstance(part, Mapping) for part in parts) and not any(are_tensors):
        what = "mapping"
    elif len(parts) == size and all(are_tensors) and not all(has_rows(p, size) for p in parts):
        what = "tensor"
    else:
        return
    raise TypeError(
        f"expected targets of shape (B, ...), but got {describe(found)}, a {what} for each "
        "sample; stack them"
    )


def one_of(keys: Sequence[Any], batch: Any, what: str) -> Any:
    """The one key there is of what may be the target or the input; else a ValueError."""
    if len(keys) == 1:
        return keys[0]
    raise _which(keys, batch, what)


def _which(keys: Sequence[Any], batch: Any, what: str) -> ValueError:
    listed = " or ".join(map(str, keys))
    problem = f"{listed} may be the" if keys else "there is no recognisable"
    return ValueError(
        f"{problem} {what} in the batch, {describe(batch)}; say which: {what}=<key, index or path>"
    )


def one_tensor(found: Any, batch: Any, what: str) -> Tensor:
    """What was found as target or input, if it is a tensor; else a TypeError."""
    if isinstance(found, Tensor):
        return found
    raise TypeError(
        f"expected a tensor as {what}, but got {describe(found)} in the batch, {describe(batch)}; "
        f"say where it is: {what}=<key, index or path>"
    )
