"""Faces: what a package shows, imported when it is asked for, so that a command answers at once."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any


def face(
    package: str, modules: Sequence[str], names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a package that imports its names when asked.

    Args:
        package: Its name.
        modules: The names of its modules, in which the names are looked for in this order.
        names: Its public names.

    Returns:
        Functions, to be set in the package.
    """

    def look(name: str) -> Any:
        if name in names:
            value = _imported(package, modules, name)
            setattr(import_module(package), name, value)  # is not asked for again
            return value
        if name == "__version__":
            with suppress(PackageNotFoundError):  # of a copy that was not installed
                return version(package)
        if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
            return import_module(f"{package}.{name}")
        near = get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")

    return look, lambda: sorted(names)


def _imported(package: str, modules: Sequence[str], name: str) -> Any:
    # before rich.console, after which typing's cache would have a Trainer read one batch as all of
    # them
    import_module("lightning.pytorch")
    found = (import_module(f"{package}.{module}") for module in modules)
    return next(getattr(module, name) for module in found if hasattr(module, name))
