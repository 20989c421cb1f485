"""The temperature of a fit: fitted on its validation data, kept with the weights, and applied."""
