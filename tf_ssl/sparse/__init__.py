"""Layers that run on sparse kernels."""
