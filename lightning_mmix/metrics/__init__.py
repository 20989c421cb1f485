"""Scores of probabilistic predictions and of hidden states, as functions and as torchmetrics."""
