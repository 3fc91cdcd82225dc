"""Layers like others, with all that they hold."""
