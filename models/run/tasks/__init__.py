"""What a network is trained for: its data, its loss, what is measured."""

from __future__ import annotations

from models import registry
from models.run.tasks.adaptation import Adaptation
from models.run.tasks.answers import Answers
from models.run.tasks.images import Images
from models.run.tasks.next_word import NextWord
from models.run.tasks.task import Task

__all__ = [
    "Adaptation",
    "Answers",
    "Images",
    "NextWord",
    "Task",
    "open_task",
]

# By what models read: the task and the data sets that it takes; None: many.
_TASKS = {
    "images": (Images, None),
    "words": (NextWord, ("words",)),
    "questions": (Answers, ("squad", "cloze")),
}


def open_task(options) -> Task:
    """Opens the data set that the flags name, for the model that they name.

    Args:
      options: train.py's flags.

    Raises:
      ValueError: no such data set, or none for this model.
      FileNotFoundError: it is not there.
    """
    reads = next(r for r in _TASKS if options.model in registry.names(r))
    task, datasets = _TASKS[reads]
    if datasets is not None and options.dataset not in datasets:
        raise ValueError(
            f"Invalid value for flag --dataset. Expected "
            f"{' or '.join(datasets)} for --model={options.model}, which reads "
            f"{reads}. Received: {options.dataset}"
        )
    if options.target_dataset:
        if task is not Images:
            raise ValueError(
                "Flag --target_dataset is for models of images. Received: "
                f"--model={options.model}"
            )
        return Adaptation(options)
    return task(options)
