"""Classification of images of a domain without labels."""

from __future__ import annotations

from models import adaptation, data
from models.data.domain_pairs import DomainPairs
from models.data.shift import Textured
from models.run.tasks.images import Images

SHIFTS = ("none", "textured")


def define_flags(add) -> None:
    """Defines the flags of `Adaptation`; `add` as in `train_flags`."""
    add.text(
        "target_dataset",
        None,
        "Unsupervised domain adaptation: images of another domain, whose "
        "labels are used for tests alone. As --dataset. Default: none.",
    )
    add.text("target_data_dir", None, "Of it. Default: --data_dir.")
    add.choice(
        "target_shift",
        "none",
        SHIFTS,
        "textured: the target's images are put on textures, as in MNIST-M.",
    )
    add.number(
        "divergence",
        1.0,
        "Weight of the divergence between features of both domains, >= 0.",
        0.0,
    )
    add.number(
        "entropy",
        0.1,
        "Weight of the entropy of predictions for the target, >= 0.",
        0.0,
    )


class Adaptation(Images):
    """Labels of a source, images of a target, tests on the target.

    Args:
      options: train.py's flags, with `target_dataset`.

    Raises:
      ValueError: see `Images`; both domains have other shapes or classes; a
        shift of images that are normalized.
      FileNotFoundError: see `Images`.
    """

    def __init__(self, options):
        super().__init__(options)
        size = options.image_size
        target = data.load(
            options.target_dataset,
            options.target_data_dir or options.data_dir,
            (size, size) if size else None,
            augment=options.augment,
        )
        if options.target_shift == "textured":
            if options.augment != "none":
                raise ValueError(
                    "--target_shift=textured needs images in [0, 1]: "
                    f"--augment=none. Received: --augment={options.augment}"
                )
            target = Textured(target)
        self.data = DomainPairs(self.data, target)
        self._network = None

    def build_model(self):
        self._network = super().build_model()
        return adaptation.adapt(
            self._network, self.options.divergence, self.options.entropy
        )

    def network(self, model):
        return self._network

    def test(self, model, batch_size=None):
        pairs, self.data = self.data, self.data.target
        try:
            return super().test(model, batch_size)
        finally:
            self.data = pairs

    def sample(self, batch_size=None):
        return super().sample(batch_size)["target"]
