"""The search for a target, among the names, types and shapes of what a batch holds."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.batches.names import goes_with, is_mask, kind
from lightning_mmix.core.trees import (
    are_alike,
    are_formed_alike,
    describe,
    entries,
    has_rows,
    places,
    tensors,
)

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
    _refuse_shared(batch, key, targets, apart)
    _refuse_view(batch, key, held[key], apart)
    return list({id(target): target for target in targets}.values())


def is_plain_pair(batch: Any) -> bool:
    """Whether a batch is a pair of tensors that are not alike, as most are: input and target."""
    if type(batch) not in (tuple, list) or len(batch) != 2:
        return False
    first, second = batch
    are_tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
    return are_tensors and (first.dtype != second.dtype or not are_alike(batch))


def _target_key(batch: Any, held: Held) -> Any:
    # a pair is told by its type: three labels in a row are no (x, y, weight)
    if type(batch) in (tuple, list):
        if len(batch) != 2 and are_alike(batch):
            raise _all_alike(batch, "<index or path>")
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
    # what is packed is refused with its lengths
    return [each for each in found if has_rows(each, size) or are_packed(found, found)] or found


def _refuse_shared(batch: Any, key: Any, targets: list[Tensor], apart: list[Any]) -> None:
    own = {id(target) for target in targets}
    if any(id(tensor) in own for tensor in tensors(apart)):
        raise ValueError(
            f"the target stands at two places of the batch, {describe(batch)}; if it is the "
            f"input as well, give the batch a .clone() of it, and say target={key!r}"
        )


def _is_as_long(entry: Any, target: Tensor) -> bool:
    return isinstance(entry, Tensor) and entry.shape[:1] == target.shape[:1]


def _refuse_view(batch: Any, key: Any, entry: Any, apart: list[Any]) -> None:
    is_named = kind(key) != "other"
    if is_named and isinstance(entry, Tensor):
        return
    is_alike = are_formed_alike if is_named else _may_be_view
    if not any(is_alike(other, entry) for other in apart):
        return
    if are_alike(batch):
        raise _all_alike(batch, repr(key))
    raise ValueError(
        f"the entry {key!r} of the batch, {describe(batch)}, looks like another one, as those of "
        "two domains or views do; say which target the loss takes: target="
        f"{_labels_within([*apart, entry], batch)}, or target={key!r} for all of this entry"
    )


def _all_alike(batch: Any, key: str) -> ValueError:
    return ValueError(
        f"the entries of the batch, {describe(batch)}, look alike; if one is the target, as a copy "
        f"of the input is an autoencoder's, say so: target={key}; views of a sample have none: "
        "train them without ManifoldMixup"
    )


def _labels_within(parts: list[Any], batch: Any) -> str:
    """The path of the first target that is found in parts of a batch, as one types it."""
    for part in parts:
        with suppress(ValueError, TypeError):
            return repr(places(batch, search_targets(part, along=False))[0])
    return "<path>"


def _may_be_view(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) == isinstance(other, Tensor):
        return are_alike((one, other)) if isinstance(one, Tensor) else are_formed_alike(one, other)
    # a domain with labels beside one without; token ids may have labels of their shape
    first, second = next(tensors(one), None), next(tensors(other), None)
    if first is None or not first.is_floating_point() or first.dim() < 2:
        return False
    return are_formed_alike(first, second)


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
    is_of_mappings = any(isinstance(part, Mapping) for part in parts) and not any(are_tensors)
    is_of_tensors = len(parts) == size and all(are_tensors)
    if is_of_mappings or (is_of_tensors and not all(has_rows(part, size) for part in parts)):
        raise TypeError(
            f"expected targets of shape (B, ...), but got a {type(found).__name__} of {len(parts)} "
            f"{type(parts[0]).__name__}, one for each sample; stack them to one tensor, or pad "
            "them, as boxes to (B, M, 4); a loss that needs the list can't be mixed"
        )


def are_packed(found: Sequence[Tensor], beside: Sequence[Tensor]) -> bool:
    """Whether targets are integers laid end to end, with how many each sample has beside them."""
    return any(
        int(numbers.sum()) == len(flat)
        for flat in filter(_is_row_of_integers, found)
        for numbers in filter(_is_row_of_integers, beside)
        # labels of all nodes of some graphs are as many as the nodes
        if len(numbers) < len(flat)
        and not any(len(flat) in t.shape for t in beside if t is not flat)
    )


def _is_row_of_integers(tensor: Tensor) -> bool:
    return tensor.dim() == 1 and not tensor.is_floating_point()


def one_of(keys: Sequence[Any], batch: Any, what: str) -> Any:
    """The one key there is of what may be the target or the input; else a ValueError."""
    if len(keys) == 1:
        return keys[0]
    raise _which(keys, batch, what)


def _which(keys: Sequence[Any], batch: Any, what: str) -> ValueError:
    listed = " or ".join(map(str, keys[:4])) + (" or …" if len(keys) > 4 else "")
    problem = f"{listed} may be the" if keys else "there is no recognisable"
    return ValueError(
        f"{problem} {what} in the batch, {describe(batch)}; say where: {what}=<key, index or path>"
    )


def one_tensor(found: Any, batch: Any, what: str) -> Tensor:
    """What was found as target, input or union, if it is a tensor; else a TypeError."""
    if isinstance(found, Tensor):
        return found
    advice = f"say where it is: {what}=<key, index or path>"
    if what != "input" and hasattr(found, "__getitem__"):  # numbers or texts
        advice = "make it one in the collate function, as torch.tensor(values) does of numbers"
    raise TypeError(
        f"expected a tensor as {what}, but got {describe(found, 40)} in the batch, "
        f"{describe(batch)}; {advice}"
    )
