"""What a batch holds: which of its entries is the target, which the input, and what goes along.

Entries are found by their place and by the words of their names; where two may be meant, it asks.
"""

from lightning_mmix.batches.roles import find_input, find_targets

__all__ = [
    "find_input",
    "find_targets",
]
