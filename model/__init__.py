"""Flamingo: the model."""
