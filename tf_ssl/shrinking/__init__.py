"""Smaller models without what is dead."""
