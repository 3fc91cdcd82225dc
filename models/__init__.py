"""The networks of the talk, by name, and the data that they learn from."""

from models import data
from models.registry import build, names

__all__ = ["build", "data", "names"]
