"""Layers and operations that move numbers about."""
