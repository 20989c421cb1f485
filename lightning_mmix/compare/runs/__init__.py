"""The runs of a comparison: rehearsed, claimed, and each trained and measured in its own process.

What a process imports before it has to is little: torch and Lightning come with the processes that
``python -m lightning_mmix.compare.runs FOLDER`` starts.
"""
