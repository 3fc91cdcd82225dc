"""What a network is trained for: its data, its loss, what is measured."""

from __future__ import annotations

from models.run.tasks.adaptation import Adaptation
from models.run.tasks.images import Images
from models.run.tasks.task import Task

__all__ = ["Adaptation", "Images", "Task", "open_task"]


def open_task(options) -> Task:
    """Opens the data set that the flags name, for the model that they name.

    Args:
      options: train.py's flags.

    Raises:
      ValueError: no such data set, or none for this model.
      FileNotFoundError: it is not there.
    """
    if options.target_dataset:
        return Adaptation(options)
    return Images(options)
