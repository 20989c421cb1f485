"""What a mix, and what one is drawn from, are refused for, and how errors quote others."""

import contextlib
import difflib
import math
import traceback
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.trees import describe
from lightning_mmix.problems import library_of, place_of

_OWN = (ValueError, UserWarning)  # and what else comes from our lines is Python's


def check(hidden: Tensor, lam: Tensor | float, partner: Tensor) -> None:
    """Refuse what can't be mixed, by dtype and shape.

    Args:
        hidden: The hidden state.
        lam: λ.
        partner: π.

    Raises:
        TypeError: If the hidden state is integer, boolean, sparse or nested.
        ValueError: If a shape does not fit, or λ requires a gradient.
    """
    if hidden.is_nested or hidden.layout != torch.strided:
        kind = "a nested" if hidden.is_nested else f"a {hidden.layout}"
        raise TypeError(f"expected a dense hidden state, but got {kind} tensor")
    if not (hidden.is_floating_point() or hidden.is_complex()):
        raise TypeError(
            f"expected a floating-point hidden state, but got {hidden.dtype}; "
            "did you mean the layer that embeds it?"
        )
    is_each = isinstance(lam, Tensor) and lam.dim() > 0
    if isinstance(lam, Tensor) and (lam.requires_grad or (is_each and lam.shape != partner.shape)):
        raise ValueError(
            f"expected a 0-d lam, or one for each sample, without gradient, but got shape "
            f"{tuple(lam.shape)}{' with gradient' if lam.requires_grad else ''}"
        )
    if hidden.dim() == 0 or partner.shape != hidden.shape[:1]:
        raise ValueError(
            f"expected a hidden state of shape (B, ...) and a partner of shape (B,), "
            f"but got {tuple(hidden.shape)} and {tuple(partner.shape)}"
        )


def check_values(lam: Tensor | float, partner: Tensor) -> None:
    """Refuse what was made by hand and is out of range.

    Args:
        lam: λ.
        partner: π.

    Raises:
        ValueError: If λ is not in [0, 1], or ``partner`` is no permutation (on the CPU).
    """
    # looking at values on an accelerator, or under a transform, would be a synchronisation
    numbers = [lam] if not isinstance(lam, Tensor) else [0.0]
    if isinstance(lam, Tensor) and _is_readable(lam):
        with contextlib.suppress(RuntimeError):  # within a transform older torch can't read it
            numbers = lam.tolist() if lam.dim() else [lam.item()]
    if wrong := [number for number in numbers if not 0 <= number <= 1]:
        raise ValueError(f"expected lam in [0, 1], but got {wrong[0]}")
    size = len(partner)
    everyone = torch.arange(size, dtype=partner.dtype, device="cpu")
    if _is_readable(partner) and not torch.equal(partner.sort().values, everyone):
        raise ValueError(
            f"expected a permutation of range({size}) as partner, but got {partner.tolist()}"
        )


def _is_readable(tensor: Tensor) -> bool:
    is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return tensor.device.type == "cpu" and not is_wrapped


def shown(value: Any, width: int = 60) -> str:
    """A value as an error quotes it: as it is written, or else what it is."""
    written = repr(value)
    is_short = len(written) <= width and "\n" not in written
    return written if is_short and written[0] != "<" else describe(value, width)


def told_of(error: Exception) -> str:
    """An error as another one quotes it: in our own words, or the first of somebody else's.

    It takes the place of the traceback, so that of somebody else's the line is told.

    Args:
        error: As it was caught.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    is_ours = bool(frames) and library_of(frames[-1]) == "lightning_mmix"
    return str(error) if is_ours and isinstance(error, _OWN) else first_line(error)


def first_line(error: Exception) -> str:
    """What an error of somebody else's says, in short, and where it comes from.

    Args:
        error: As it was caught.
    """
    line, place = str(error).partition("\n")[0], place_of(error)
    place = place and f" at {place}"
    room = max(100 - len(place), 40)
    short = line if len(line) <= room else line[: room - 3] + "..."
    return f"{type(error).__name__}{place}: {short}"


def fits(name: str, pattern: str) -> bool:
    """Whether a dotted name fits a glob, part by part."""
    parts, globs = name.split("."), pattern.split(".")
    return len(parts) == len(globs) and all(map(fnmatchcase, parts, globs))


def with_first_parts(pattern: str, names: Sequence[str]) -> list[str]:
    """A name or glob behind the first parts of dotted names whose other parts fit it.

    Args:
        pattern: Whose first parts were left out.
        names: Of which some may have been meant.

    Returns:
        What may have been meant, the shortest first.

    Example:
        >>> with_first_parts("layer.*", ["bert", "bert.layer.0", "bert.layer.1"])
        ['bert.layer.*']
    """
    count, whole = pattern.count(".") + 1, dict[str, None]()
    for name in names:
        parts = name.split(".")
        if len(parts) > count and fits(".".join(parts[-count:]), pattern):
            whole[".".join([*parts[:-count], pattern])] = None
    return sorted(whole, key=lambda name: name.count("."))


def refuse_unknown(what: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is not among those that are known.

    Args:
        what: The name's argument.
        name: Maybe one of them.
        known: All of them.

    Raises:
        ValueError: If it is none.
    """
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1, cutoff=0) or known
        raise ValueError(f"there is no {what}={name!r}; did you mean {near[0]!r}?")


def refuse_weights(what: str, weights: Mapping[str, Any]) -> None:
    """Refuse weights that are not finite and ≥ 0, or all 0.

    Args:
        what: Of what they are.
        weights: By name.

    Raises:
        ValueError: If they are so.
    """
    for name, weight in weights.items():
        if not (isinstance(weight, Real) and 0 <= float(weight) < math.inf):
            raise ValueError(f"expected a finite weight ≥ 0 for {name!r}, but got {weight!r}")
    if not any(weights.values()):
        raise ValueError(f"expected a {what} with a weight > 0, but got {dict(weights)}")
