"""A trained network under conditions, and between its samples."""
