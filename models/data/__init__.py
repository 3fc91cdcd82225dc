"""Data sets in TFDS's prepared format, or images in folders, as batches."""

from models.data.augment import NAMES as AUGMENTATIONS
from models.data.classification import ImageClassification, load
from models.data.prepared import DEFAULT_DATA_DIR, find, prepared_names

__all__ = [
    "AUGMENTATIONS",
    "DEFAULT_DATA_DIR",
    "ImageClassification",
    "find",
    "load",
    "prepared_names",
]
