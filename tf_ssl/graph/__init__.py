"""Models as graphs: opened, copied, compared."""
