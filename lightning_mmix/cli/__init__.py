"""The command line: ``lightning-mmix fit | validate | test | predict | layers | check | compare``.

Nothing large is imported before it is needed, so that pages and mistakes are told at once.
"""

from lightning_mmix.cli.entry import main
from lightning_mmix.cli.pages import COMMANDS

__all__ = ["COMMANDS", "main"]
