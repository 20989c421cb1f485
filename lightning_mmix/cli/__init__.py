"""The command line: ``lightning-mmix fit | validate | test | predict | layers | check | compare``.

Nothing large is imported before it is needed, so that pages and mistakes are told at once.
"""

from lightning_mmix.cli import pages
from lightning_mmix.cli.entry import main

COMMANDS = pages.COMMANDS
"""The commands, each with the sentence that ``lightning-mmix --help`` says of it."""

__all__ = ["COMMANDS", "main"]
