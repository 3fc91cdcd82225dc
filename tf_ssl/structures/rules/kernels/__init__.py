"""Layers that multiply by kernels."""
