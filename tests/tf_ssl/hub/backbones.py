"""Small random backbones of KerasHub, one of each family.

Nothing is downloaded: the weights are random. Two layers, 32 to 64 wide, tokens
of 16 steps, images of 32 or 64 pixels, so that building and calling one takes
about a second. Sizes that units come in differ (hidden, inner, heads, of a
head), so that a mix-up cannot go unseen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

LENGTH = 16
VOCABULARY = 50


@dataclasses.dataclass(frozen=True)
class Entry:
    """A family.

    Attributes:
        name: Lower case, such as "distil_bert".
        build: Function without arguments; it returns the backbone.
        inputs: Function of a model and a batch size; it returns arrays in the
            structure that the model takes.
        units: How many it has at least, counted by hand: heads (those that
            share a key once) and inner units of transformers, filters that no
            output of the model holds.
        length: Size of the axes of the inputs that the model leaves open; None:
            it leaves none open but the batch.
    """

    name: str
    build: Callable[[], keras.Model]
    inputs: Callable[[keras.Model, int], object]
    units: int
    length: int | None = None


def has_keras_hub() -> bool:
    """Whether keras_hub can be imported."""
    try:
        import keras_hub  # noqa: F401
    except ImportError:
        return False
    return True


def families() -> dict[str, Entry]:
    """Name -> family; those that the installed version has."""
    import keras_hub

    return {
        entry.name: entry
        for class_name, entry in _FAMILIES
        if hasattr(keras_hub.models, class_name)
    }


def _hub(name, **arguments):
    import keras_hub

    return getattr(keras_hub.models, name)(**arguments)


# --- inputs -------------------------------------------------------------------


def tokens(model, batch: int):
    """Ids, segments, masks with zeros at their ends, and sounds, by name."""
    random = np.random.default_rng(1)
    found = {}
    for name, tensor in model.input.items():
        shape = (batch, *(n or LENGTH for n in tensor.shape[1:]))
        if name.endswith("padding_mask"):
            value = np.ones(shape)
            # One example is whole, the others lack some steps.
            for i in range(1, batch):
                value[i, -1 - i % 4 :] = 0
        elif name == "segment_ids":
            value = np.zeros(shape)
            value[:, shape[1] // 2 :] = 1
        elif "token_ids" in name:
            value = random.integers(0, VOCABULARY, shape)
        else:
            value = random.standard_normal(shape)
        found[name] = value.astype(tensor.dtype)
    return found


def images(model, batch: int):
    """Normal noise."""
    random = np.random.default_rng(1)
    sizes = [n or 64 for n in model.inputs[0].shape[1:3]]
    return random.standard_normal((batch, *sizes, 3)).astype("float32")


# --- words and sounds ---------------------------------------------------------

_TRANSFORMER = dict(
    vocabulary_size=VOCABULARY,
    num_layers=2,
    num_heads=4,
    hidden_dim=32,
    intermediate_dim=48,
)


def bert():
    return _hub("BertBackbone", **_TRANSFORMER, max_sequence_length=LENGTH)


def roberta():
    # Its positions begin after the padding's id: two more than steps.
    return _hub(
        "RobertaBackbone", **_TRANSFORMER, max_sequence_length=LENGTH + 2
    )


def distil_bert():
    return _hub(
        "DistilBertBackbone", **_TRANSFORMER, max_sequence_length=LENGTH
    )


def gpt2():
    return _hub("GPT2Backbone", **_TRANSFORMER, max_sequence_length=LENGTH)


def t5():
    return _hub("T5Backbone", **_TRANSFORMER)


def whisper():
    # The encoder halves the length of sounds.
    return _hub(
        "WhisperBackbone",
        **_TRANSFORMER,
        num_mels=20,
        max_encoder_sequence_length=LENGTH,
        max_decoder_sequence_length=LENGTH,
    )


def llama():
    return _hub(
        "LlamaBackbone",
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=32,
        intermediate_dim=48,
    )


def gemma():
    return _hub(
        "GemmaBackbone",
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=1,
        hidden_dim=32,
        intermediate_dim=96,
        head_dim=12,
    )


# --- images, transformers -----------------------------------------------------


def vit():
    return _hub(
        "ViTBackbone",
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=48,
    )


def deit():
    return _hub(
        "DeiTBackbone",
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        intermediate_dim=48,
    )


def mit():
    return _hub(
        "MiTBackbone",
        image_shape=(64, 64, 3),
        layerwise_depths=[2, 2],
        num_layers=2,
        layerwise_num_heads=[2, 4],
        layerwise_sr_ratios=[4, 2],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[16, 32],
    )


def segformer():
    return _hub("SegFormerBackbone", image_encoder=mit(), projection_filters=24)


def swin():
    return _hub(
        "SwinTransformerBackbone",
        image_shape=(32, 32, 3),
        embed_dim=32,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
    )


# --- images, convolutions -----------------------------------------------------


def _resnet(**changes):
    arguments = dict(
        input_conv_filters=[16],
        input_conv_kernel_sizes=[7],
        # The first must be 64.
        stackwise_num_filters=[64, 24, 32],
        stackwise_num_blocks=[2, 2, 2],
        stackwise_num_strides=[1, 2, 2],
        block_type="bottleneck_block",
        image_shape=(64, 64, 3),
    )
    return _hub("ResNetBackbone", **arguments | changes)


def resnet():
    return _resnet()


def resnet_vd():
    return _resnet(
        input_conv_filters=[8, 8, 16],
        input_conv_kernel_sizes=[3, 3, 3],
        block_type="bottleneck_block_vd",
    )


def vgg():
    return _hub(
        "VGGBackbone",
        stackwise_num_repeats=[1, 2, 2],
        stackwise_num_filters=[16, 24, 32],
        image_shape=(64, 64, 3),
    )


def densenet():
    return _hub(
        "DenseNetBackbone",
        stackwise_num_repeats=[2, 3, 2],
        growth_rate=8,
        compression_ratio=0.5,
        image_shape=(64, 64, 3),
    )


def xception():
    return _hub(
        "XceptionBackbone",
        stackwise_conv_filters=[[8, 16], [24, 24], [24, 24, 24], [32, 48]],
        stackwise_pooling=[False, True, False, False],
        image_shape=(64, 64, 3),
    )


def efficientnet():
    return _hub(
        "EfficientNetBackbone",
        stackwise_width_coefficients=[1.0] * 3,
        stackwise_depth_coefficients=[1.0] * 3,
        stackwise_kernel_sizes=[3, 3, 5],
        stackwise_num_repeats=[1, 2, 2],
        stackwise_input_filters=[16, 16, 24],
        stackwise_output_filters=[16, 24, 32],
        stackwise_expansion_ratios=[1, 4, 4],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25, 0.25],
        stackwise_strides=[1, 2, 2],
        stackwise_block_types=["fused", "unfused", "v1"],
        stackwise_force_input_filters=[0] * 3,
        stackwise_nores_option=[False] * 3,
        num_features=64,
        input_shape=(64, 64, 3),
    )


def mobilenet():
    return _hub(
        "MobileNetBackbone",
        stackwise_expansion=[[24, 40], [48, 56]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[16, 16], [24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=64,
        input_activation="hard_swish",
        output_activation="hard_swish",
        input_num_filters=16,
        image_shape=(64, 64, 3),
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=48,
    )


def cspnet():
    return _hub(
        "CSPNetBackbone",
        stem_filters=16,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_strides=2,
        stackwise_depth=[1, 2],
        stackwise_num_filters=[16, 32],
        down_growth=True,
        bottle_ratio=(0.5, 1.0),
        block_ratio=(1.0, 0.5),
        expand_ratio=(2.0, 1.0),
        block_type="dark_block",
        stage_type="csp",
        stem_padding="same",
        image_shape=(64, 64, 3),
    )


def retinanet():
    encoder = _resnet(
        stackwise_num_filters=[64, 24, 32, 40],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
    )
    return _hub(
        "RetinaNetBackbone",
        image_encoder=encoder,
        min_level=3,
        max_level=6,
        use_p5=True,
        image_shape=(64, 64, 3),
    )


def deeplab_v3():
    encoder = _resnet(input_conv_filters=[64], block_type="basic_block")
    return _hub(
        "DeepLabV3Backbone",
        image_encoder=encoder,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[2, 3],
        upsampling_size=4,
        projection_filters=16,
        image_shape=(64, 64, 3),
    )


# Class of keras_hub.models, and the family.
_FAMILIES = (
    ("BertBackbone", Entry("bert", bert, tokens, 104, LENGTH)),
    ("RobertaBackbone", Entry("roberta", roberta, tokens, 104, LENGTH)),
    (
        "DistilBertBackbone",
        Entry("distil_bert", distil_bert, tokens, 104, LENGTH),
    ),
    ("GPT2Backbone", Entry("gpt2", gpt2, tokens, 104, LENGTH)),
    # Heads of all layers of an encoder, or a decoder, share a position bias.
    ("T5Backbone", Entry("t5", t5, tokens, 208, LENGTH)),
    ("WhisperBackbone", Entry("whisper", whisper, tokens, 248, LENGTH)),
    ("LlamaBackbone", Entry("llama", llama, tokens, 100, LENGTH)),
    ("GemmaBackbone", Entry("gemma", gemma, tokens, 96, LENGTH)),
    ("ViTBackbone", Entry("vit", vit, images, 104)),
    ("DeiTBackbone", Entry("deit", deit, images, 104)),
    ("MiTBackbone", Entry("mit", mit, images, 396)),
    ("SegFormerBackbone", Entry("segformer", segformer, images, 444)),
    ("SwinTransformerBackbone", Entry("swin", swin, images, 780)),
    ("ResNetBackbone", Entry("resnet", resnet, images, 848)),
    ("ResNetBackbone", Entry("resnet_vd", resnet_vd, images, 864)),
    ("VGGBackbone", Entry("vgg", vgg, images, 96)),
    ("DenseNetBackbone", Entry("densenet", densenet, images, 368)),
    ("XceptionBackbone", Entry("xception", xception, images, 152)),
    ("EfficientNetBackbone", Entry("efficientnet", efficientnet, images, 464)),
    ("MobileNetBackbone", Entry("mobilenet", mobilenet, images, 168)),
    ("CSPNetBackbone", Entry("cspnet", cspnet, images, 152)),
    ("RetinaNetBackbone", Entry("retinanet", retinanet, images, 848)),
    ("DeepLabV3Backbone", Entry("deeplab_v3", deeplab_v3, images, 1368)),
)
