"""``python -m lightning_mmix.compare``: the command."""

import sys

from lightning_mmix.compare.command import compare

if __name__ == "__main__":
    compare(sys.argv[1:])
