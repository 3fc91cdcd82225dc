"""Optimizers that add a penalty over structures."""
