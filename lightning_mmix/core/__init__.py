"""The plan of a step and its arithmetic, the names of layers, and what a batch holds."""
