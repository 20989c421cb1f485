"""A run in a process of its own: ``python -m lightning_mmix.compare FOLDER``."""

import sys
from pathlib import Path

from lightning_mmix.compare.runs import main

main(Path(sys.argv[1]))
