"""Unsupervised domain adaptation of any network."""

from __future__ import annotations

import keras

from models.layers.domain_losses import DomainDivergence, PredictionEntropy


def adapt(
    model: keras.Model, divergence: float = 1.0, entropy: float = 0.1
) -> keras.Model:
    """A model that trains another on labels of one domain for two.

    It takes images of a source, with labels, and of a target, without, and
    gives the logits of the source, so that `fit` with a usual loss trains it;
    two losses are added: the divergence between the features of both domains,
    what the last layer reads, and the entropy of the target's predictions.
    Weights are those of `model`, which is what to test and to save.

    Args:
      model: Functional model from images to logits, whose last layer is a
        dense layer.
      divergence: weight of the first loss, >= 0.
      entropy: weight of the second, >= 0.

    Returns:
      A model from `{"source": images, "target": images}`, both
      `[batch, height, width, channels]` of one shape, to logits of the source.

    Raises:
      ValueError: a weight is negative; `model` does not end in a dense layer.

    Departure: the CVPR 2017 paper reduces the divergence of representations
    and adapts the predictions of labels without giving formulas that can be
    followed; both losses here are well-known ones. Statistics of batch
    normalization are of each domain's batch in training and of both in tests.

    Reference:
      Wu et al., A compact DNN: approaching GoogLeNet-level accuracy of
      classification and domain adaptation, CVPR 2017, section 4.
    """
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        raise ValueError(
            "Invalid value for argument model. Expected one whose last layer "
            f"is a Dense layer. Received: {type(last).__name__} {last.name}"
        )
    both = keras.Model(
        model.input, [last.input, model.output], name=f"{model.name}_features"
    )
    shape = model.input.shape[1:]
    source = keras.Input(shape, name="source")
    target = keras.Input(shape, name="target")
    source_features, logits = both(source)
    target_features, target_logits = both(target)
    logits = DomainDivergence(divergence, name="divergence")(
        [source_features, target_features, logits]
    )
    logits = PredictionEntropy(entropy, name="entropy")([target_logits, logits])
    return keras.Model({"source": source, "target": target}, logits)
