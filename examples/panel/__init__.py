"""Manifold Mixup on many public data sets: what it changes, and where it does not help."""
