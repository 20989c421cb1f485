"""Problems: what ended a command, told in one line."""

import inspect
import linecache
import os
import re
import sys
import sysconfig
import tempfile
import traceback
from argparse import ArgumentError
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import FrameType

SHOW = "LIGHTNING_MMIX_TRACEBACK"  # set, in the environment, it shows tracebacks

LIBRARIES = {"lightning_mmix", "torch", "torchmetrics", "lightning", "pytorch_lightning", "numpy"}

_MOST = 400  # characters of a line
_OURS = str(Path(__file__).parent)
_INSTALLED = {"site-packages", "dist-packages"}
_UNION = "Does not validate against any of the Union subtypes"
# what says only that a value is not of the kind that was not meant
_EMPTY = re.compile(
    r"Expected a <|Expected a typing|Expected a collections|Expected a (config )?path|"
    r"Not a valid subclass|Expected a dot import|Expected a dict"
)

Options = Mapping[str, Iterable[str]]


class RemoteTraceback(Exception):  # noqa: N818 - it shows an error of another process
    """The cause of an error that is told of another process.

    Args:
        text: The traceback of that process.
        is_meant: Whether it was raised for the user to read.
    """

    def __init__(self, text: str, *, is_meant: bool) -> None:
        super().__init__(f"\n{text}")
        self.is_meant = is_meant


@contextmanager
def told(command: str, options: Options | None = None, *, shows: bool = False) -> Iterator[None]:
    """End a command with one line on stderr, in place of a traceback.

    The line of an error that is not ours is followed by the name of a file that has its traceback.
    The exit code is 2 where the arguments are at fault, and 1 otherwise.

    Args:
        command: Stands in front of the line.
        options: As for :func:`sentence_of`.
        shows: Whether errors pass, as they do with ``LIGHTNING_MMIX_TRACEBACK`` in the environment.

    Raises:
        SystemExit: In place of any :class:`Exception`, or of a Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"{command}: stopped\n")
        raise SystemExit(130) from None  # as a shell has it
    except Exception as error:
        if shows or os.environ.get(SHOW):
            raise
        lines = [f"{command}: {sentence_of(error, options)}"]
        if not is_meant(error):
            lines.append(f"its traceback: {_kept(error)}")
        sys.stderr.write("\n".join([*lines, ""]))
        raise SystemExit(2 if _is_of_arguments(error) else 1) from None


def sentence_of(error: BaseException, options: Options | None = None) -> str:
    """What an error means, in one line.

    Args:
        error: Any. One of ours is told in full, one of jsonargparse by what it found at fault, and
            any other by its kind, its first line, and the line of the user's code it came from.
        options: The names that are accepted, by the group of arguments they belong to (``""`` for
            those without one), from which the nearest to a misspelt one is told.
    """
    text = str(error)
    if _is_of_arguments(error):
        said = _found_in(text.splitlines(), options or {})
    elif is_meant(error):
        said = " ".join(text.split())
    else:
        first = next(iter(text.strip().splitlines()), "")
        said = f"{type(error).__name__}: {first}".removesuffix(": ")
        if place := place_of(error):
            said = f"{said} (at {place})"
    return said if len(said) <= _MOST else f"{said[: _MOST - 1]}…"


def is_meant(error: BaseException) -> bool:
    """Whether an error was raised for the user to read: by us, or by a parser."""
    if isinstance(error.__cause__, RemoteTraceback):
        return error.__cause__.is_meant
    if _is_of_arguments(error):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not frames[-1].filename.startswith(_OURS):
        return not frames
    line = linecache.getline(frames[-1].filename, frames[-1].lineno or 0)
    return line.lstrip().startswith("raise ")


def place_of(error: BaseException) -> str:
    """Where an error comes from: ``"train.py:31"``, or nothing if that can't be looked up.

    Args:
        error: As it was caught. The innermost line of the user's own code is told, or else that of
            a package, if it is not torch or its kin.
    """
    lines = [
        (Path(frame.f_code.co_filename), line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if library_of(frame) not in LIBRARIES and _is_written(frame.f_code.co_filename, line)
    ]
    own = [(file, line) for file, line in lines if not _INSTALLED & set(file.parts)]
    return "".join(f"{file.name}:{line}" for file, line in (own or lines)[-1:])


def library_of(frame: FrameType) -> str:
    """The name of the package whose code a frame runs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence on a misspelt name, or nothing.

    Example:
        >>> nearest("alfa", ["alpha", "layers"])
        "; did you mean 'alpha'?"
    """
    near = get_close_matches(name, dict.fromkeys(names), 2)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _found_in(lines: list[str], options: Options, owner: str = "") -> str:
    """What a text of jsonargparse comes to, whose nested problems are indented."""
    lines = [line for line in inspect.cleandoc("\n".join(lines)).splitlines() if line.strip()]
    head = lines[0] if lines else ""
    if key := re.match(r'Parser key "(.+?)":\s*(.*)', head):
        rest = [key[2]] if key[2] else lines[1:]
        said = _found_in(rest, options, owner)
        return said if said.startswith("there is no") else f"{key[1]}: {said}"
    marks = [i for i, line in enumerate(lines) if line.lstrip(" -").startswith(_UNION)]
    if marks and lines[marks[0]].startswith("- "):  # beside it: that there is no such file
        lines = [_UNION, *lines[marks[0] + 1 :]]
    if of_class := re.match(r"Problem with given class_path '(.+)':", head):
        said = _found_in(lines[1:], options, of_class[1])
        return said if of_class[1] in said else f"{of_class[1]}: {said}"
    if branches := list(_branches(lines)):
        telling = [branch for branch in branches if not _EMPTY.match(branch[0])]
        if telling:
            return _found_in(telling[0], options, owner)
        return _expected(lines)
    return _leaf(lines, options, owner)


def _branches(lines: list[str]) -> Iterator[list[str]]:
    """The items of the first list in a text, without their dashes."""
    marked = [line for line in lines if line.lstrip().startswith("- ")]
    if not marked:
        return
    depth = min(len(line) - len(line.lstrip()) for line in marked)
    starts = [i for i, line in enumerate(lines) if line[: depth + 2] == f"{' ' * depth}- "]
    for start, end in pairwise([*starts, len(lines)]):
        item = [
            line[depth + 2 :] for line in lines[start:end] if line.startswith(" " * (depth + 2))
        ]
        yield [lines[start][depth + 2 :], *item]


def _expected(lines: list[str]) -> str:
    """What kinds of value were expected, and what came."""
    text = "\n".join(lines)
    kinds = re.search(r"Subtypes: \[(.*)\]", text)
    value = re.search(r"Given value: (.*)", text)
    expected = _plain(kinds[1]) if kinds else "another value"
    return f"expected {expected}, but got {value[1] if value else 'another'!r}"


def _plain(kinds: str) -> str:
    """Types as one says them: ``int, or null``."""
    short = re.sub(r"<class '([^']+)'>", r"\1", kinds)
    short = re.sub(r"typing\.Literal\[([^\]]*)\]", lambda found: found[1].replace("'", ""), short)
    short = re.sub(r"(?<![\w.])(?:\w+\.)+(\w+)", r"\1", short).replace("NoneType", "null")
    names = list(dict.fromkeys(each.strip() for each in re.split(r",\s*(?![^\[]*\])", short)))
    names.sort(key=lambda name: name == "null")
    return ", or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _leaf(lines: list[str], options: Options, owner: str) -> str:
    text = " ".join(line.strip() for line in lines)
    if option := re.match(r"Option '(.+?)' is not accepted", text):
        accepted = _parameters(owner)
        return f"there is no argument {option[1]!r} of {owner}{nearest(option[1], accepted)}"
    if option := re.match(r"(?:Group '(.+?)'|Sub.+) does not accept option '(.+?)'", text):
        group, _, name = f"{option[1] or ''}.{option[2]}".strip(".").rpartition(".")
        if group and options and group not in options:
            return f"there is no {group!r}{nearest(group, _groups(options))}"
        near = nearest(name, options.get(group, ()) if group else _groups(options))
        return f"there is no argument {name!r}{f' of {group}' * bool(group)}{near}"
    if kind := re.match(r"Expected a (.+?)\. Got value: (.*)", text):
        return f"expected {_plain(kind[1])}, but got {kind[2]!r}"
    if unknown := re.match(r"[Uu]nrecognized arguments: (\S+)", text):
        return f"u{text[1:]}" + nearest(unknown[1].split("=")[0], options.get("", ()))
    return text


def _groups(options: Options) -> list[str]:
    return [name.lstrip("-") for name in options.get("", ())]


def _parameters(path: str) -> list[str]:
    """The names of the arguments of a class, as far as they can be asked for."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        return [n for base in kind.__mro__ for n in inspect.signature(base).parameters]
    except (ImportError, AttributeError, TypeError, ValueError):
        return []


def _is_of_arguments(error: BaseException) -> bool:
    return isinstance(error, ArgumentError) or _UNION in str(error)


def _is_written(file: str, line: int) -> bool:
    """Whether a line can be looked up, and is none of Python's own."""
    path, standard = Path(file), Path(sysconfig.get_path("stdlib"))
    is_standard = standard in path.parents and not _INSTALLED & set(path.parts)
    return bool(linecache.getline(file, line)) and not (is_standard or file.startswith("<frozen"))


def _kept(error: BaseException) -> str:
    """A file with the traceback of an error."""
    handle, name = tempfile.mkstemp(".txt", "lightning-mmix-")
    os.close(handle)
    Path(name).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return name
