"""Classification of images."""

from __future__ import annotations

import keras

from models import data, registry
from models.run.tasks.task import Task


class Images(Task):
    """Images with labels.

    Args:
      options: train.py's flags.

    Raises:
      ValueError: see `models.data.load`.
      FileNotFoundError: likewise.
    """

    columns = (
        ("loss", "{:.4f}"),
        ("accuracy", "{:.4f}"),
        ("val_loss", "{:.4f}"),
        ("val_accuracy", "{:.4f}"),
    )

    def __init__(self, options):
        size = options.image_size
        images = data.load(
            options.dataset,
            options.data_dir,
            (size, size) if size else None,
            augment=options.augment,
        )
        super().__init__(options, images)

    def build_model(self):
        return registry.build(
            self.options.model,
            input_shape=self.data.image_shape,
            num_classes=self.data.num_classes,
            seed=self.options.seed,
            **self.given(),
        )

    def objective(self):
        return {
            "loss": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True
            ),
            "metrics": ["accuracy"],
        }

    def test(self, model, batch_size=None):
        model.compile(**self.objective(), jit_compile=False)
        result = model.evaluate(
            self.data.test(batch_size or self.test_batch),
            verbose=0,
            return_dict=True,
        )
        return result, (
            f"data        {self.data.name}, {self.data.num_test:,} test "
            "images\n"
            f"test loss   {result['loss']:.4f}\n"
            f"test error  {1 - result['accuracy']:.2%}\n"
            f"accuracy    {result['accuracy']:.2%}"
        )

    def sample(self, batch_size=None):
        images, _ = next(iter(self.data.test(batch_size or self.test_batch)))
        return images

    def __str__(self):
        return (
            f"{self.data.name}, {self.data.num_train:,} training and "
            f"{self.data.num_test:,} test images"
        )
