"""The layers that can be mixed exactly: the cuts of a network."""
