"""The entry: what is typed behind ``lightning-mmix``, handed to the command that does it."""

import sys
from argparse import ArgumentError
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from lightning_mmix.cli.pages import COMMANDS, page
from lightning_mmix.problems import nearest, told

_HELP = {"-h", "--help"}


def main(args: Sequence[str] | None = None) -> None:
    """Run ``lightning-mmix COMMAND --config …``; see ``lightning-mmix --help``.

    The current folder is put in front of the path, so that a config can name what lies there.

    Args:
        args: What stands behind the command; None for the command line's own.

    Raises:
        SystemExit: With one line on stderr, if it fails.

    Example:
        >>> import contextlib
        >>> with contextlib.redirect_stderr(sys.stdout), contextlib.suppress(SystemExit):
        ...     main(["layrs"])
        lightning-mmix: there is no command 'layrs'; did you mean 'layers'?
    """
    given = list(sys.argv[1:] if args is None else args)
    if not given or given[0] in _HELP:
        sys.stdout.write(page())
    elif given[0] == "--version":
        sys.stdout.write(f"lightning-mmix {version('lightning-mmix')}\n")
    elif given[0] in COMMANDS and given[0] != "compare" and _HELP & set(given):
        sys.stdout.write(page(given[0]))
    else:
        _run(given)


def _run(given: list[str]) -> None:
    command, *rest = given
    shows = "--traceback" in given
    with told("lightning-mmix"):
        if command not in COMMANDS and command[:1] != "-":
            raise ArgumentError(
                None, f"there is no command {command!r}{nearest(command, COMMANDS) or _listed()}"
            )
    _find_here()
    if command == "compare":
        from lightning_mmix.compare.command import compare  # noqa: PLC0415 - of one command

        compare(rest)
        return
    with told(f"lightning-mmix {command}"):
        if find_spec("jsonargparse") is None:
            raise ImportError(
                "jsonargparse is needed for configs: pip install 'lightning-mmix[cli]', or pip "
                "install '.[cli]' in a clone"
            )
        # also a Ctrl-C amid these imports, of torch and Lightning, is told in a line
        from lightning_mmix.cli.commands import run  # noqa: PLC0415
    run(["--help" if arg == "--help-all" else arg for arg in given], shows=shows)


def _find_here() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _listed() -> str:
    return f"; expected one of {', '.join(COMMANDS)}"
