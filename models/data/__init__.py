"""Data sets in TFDS's prepared format, cut into batches for every worker."""

from models.data.classification import ImageClassification, load
from models.data.prepared import DEFAULT_DATA_DIR, find, prepared_names

__all__ = [
    "DEFAULT_DATA_DIR",
    "ImageClassification",
    "find",
    "load",
    "prepared_names",
]
