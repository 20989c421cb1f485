"""What Lightning sees: the callback, the mixin, the classifier and the monitor."""
