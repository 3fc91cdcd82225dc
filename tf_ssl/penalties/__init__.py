"""Regularizers that push structures to zero."""
