"""The command that compares ways to train."""
