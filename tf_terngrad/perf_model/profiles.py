"""Numbers that go into the model, each with where it comes from."""

import dataclasses
import json
import pathlib

from tf_terngrad import checks
from tf_terngrad.perf_model.model import Channel, Kernels


@dataclasses.dataclass(frozen=True)
class Model:
    """A network.

    Attributes:
        elements: Trainable parameters.
        num_tensors: Variables that hold them.
        batch_size: Images a worker and step: those of the talk's figure.
    """

    elements: int
    num_tensors: int
    batch_size: int


# Counts are sums over the shapes in benchmarks/payloads.py: AlexNet with two
# groups, VGG configuration A, GoogLeNet without auxiliary classifiers.
MODELS = {
    "alexnet": Model(60_965_224, 16, 128),
    "googlenet": Model(6_998_552, 116, 64),
    "vgg_a": Model(132_863_336, 22, 32),
    "resnet50": Model(25_557_032, 161, 32),  # not in the talk: batch assumed
}

# Titan X (Maxwell), cuDNN v4, forward and backward, ms a batch: Caffe2's
# convnet_benchmarks.py, 2016. There "Inception" is GoogLeNet and "VGG" is A.
_TITAN_X_ALEXNET_MS = 90.1  # of 128
_TITAN_X_GOOGLENET_MS = 233.6  # of 64
_TITAN_X_VGG_A_MS = 551.7  # of 64; the talk's 32 assumed to be half of it
# "GTX 1080 is 1.10x to 1.15x faster than the Titan X" (Maxwell):
# jcjohnson/cnn-benchmarks, 2016. The lower end.
_GTX_1080_OVER_TITAN_X = 1.10
# GTX 1080, cuDNN 5.0, ResNet-50, ms of 16 images: the same benchmarks.
_GTX_1080_RESNET50_MS = 153.90

# One P100 of a DGX-1, synthetic data, images a second: TensorFlow's
# performance guide, May 2017.
_P100_ALEXNET = 2987.0  # batch 512; that of 128 assumed to be as fast
_P100_VGG_16 = 144.0  # batch 32
_P100_INCEPTION_V3 = 142.0  # batch 64
_P100_RESNET50 = 195.0  # batch 32
# Multiply-adds of a forward pass, 1e9: from the papers' shapes.
_VGG_16_GMAC, _VGG_A_GMAC = 15.5, 7.6
_INCEPTION_V3_GMAC, _GOOGLENET_GMAC = 5.7, 1.6

# Images a second of one GPU. The two marked ones are scaled by operations.
IMAGES_PER_S = {
    "gtx1080": {
        "alexnet": 128e3 / _TITAN_X_ALEXNET_MS * _GTX_1080_OVER_TITAN_X,
        "googlenet": 64e3 / _TITAN_X_GOOGLENET_MS * _GTX_1080_OVER_TITAN_X,
        "vgg_a": 64e3 / _TITAN_X_VGG_A_MS * _GTX_1080_OVER_TITAN_X,
        "resnet50": 16e3 / _GTX_1080_RESNET50_MS,
    },
    "p100": {
        "alexnet": _P100_ALEXNET,
        # assumed
        "googlenet": _P100_INCEPTION_V3 * _INCEPTION_V3_GMAC / _GOOGLENET_GMAC,
        # assumed
        "vgg_a": _P100_VGG_16 * _VGG_16_GMAC / _VGG_A_GMAC,
        "resnet50": _P100_RESNET50,
    },
}

# Between nodes: nominal rate. Latencies are assumed: TCP through a switch,
# RDMA.
NETWORKS = {
    "ethernet1g": Channel(50e-6, 1e9 / 8),
    "infiniband100g": Channel(2e-6, 100e9 / 8),
}
# Inside a node, by network, as in the talk: PCI Express 3.0 x16 behind a
# switch, 15.75 GB/s nominal, and NVLink 1.0, 20 GB/s a link. Latencies assumed.
INSIDE = {
    "ethernet1g": Channel(10e-6, 15.75e9),
    "infiniband100g": Channel(5e-6, 20e9),
}
GPUS = {"ethernet1g": "gtx1080", "infiniband100g": "p100"}

# Peak memory bandwidth, bytes a second: NVIDIA's data sheets.
_MEMORY_BYTES_PER_S = {"gtx1080": 320e9, "p100": 732e9}
# Assumed: kernels on a GPU are bound by memory at half of its peak. No GPU
# kernel has been measured.
_PART_OF_PEAK = 0.5
# fp32 values read and written for an element (packed ones count as nothing).
_READS = Kernels(fp32=4, fp16=4, scalers=1, encode=1, decode=1, add=0.1)


@dataclasses.dataclass(frozen=True)
class Profile:
    """How fast one worker computes.

    Attributes:
        name: Of the GPU, or of the file.
        images_per_s: Of one worker alone.
        batch_size: Images a worker and step.
        kernels: Seconds an element.
    """

    name: str
    images_per_s: float
    batch_size: int
    kernels: Kernels

    @property
    def compute_s(self) -> float:
        """t_comp, seconds of one step of one worker alone."""
        return self.batch_size / self.images_per_s


def of_gpu(gpu: str, model: str) -> Profile:
    """The published profile of one GPU.

    Args:
        gpu: "gtx1080" or "p100".
        model: Key of `MODELS`.
    """
    checks.choice("gpu", gpu, IMAGES_PER_S)
    checks.choice("model", model, MODELS)
    second = _PART_OF_PEAK * _MEMORY_BYTES_PER_S[gpu]
    kernels = {
        name: 4.0 * reads / second
        for name, reads in dataclasses.asdict(_READS).items()
    }
    return Profile(
        gpu,
        IMAGES_PER_S[gpu][model],
        MODELS[model].batch_size,
        Kernels(**kernels),
    )


def from_file(path: str) -> Profile:
    """A measured profile.

    Args:
        path: JSON file: {"images_per_s": 410.0, "batch_size": 32,
            "kernels_ns": {"encode": 1.2, ...}}. Kernels in nanoseconds an
            element, named as in `Kernels`; those left out cost nothing.

    Raises:
        ValueError: It says something else.
    """
    given = json.loads(pathlib.Path(path).read_text())
    expected = {"images_per_s", "batch_size", "kernels_ns"}
    if not isinstance(given, dict) or set(given) != expected:
        found = sorted(given) if isinstance(given, dict) else given
        raise ValueError(
            f"Invalid profile {path}. Expected the keys {sorted(expected)}. "
            f"Received: {found}"
        )
    names = {field.name for field in dataclasses.fields(Kernels)}
    unknown = sorted(set(given["kernels_ns"]) - names)
    if unknown:
        raise ValueError(
            f"Invalid kernels_ns in profile {path}. Expected some of "
            f"{sorted(names)}. Received: {unknown}"
        )
    checks.integer("batch_size", given["batch_size"], 1)
    return Profile(
        pathlib.Path(path).name,
        checks.positive_float("images_per_s", given["images_per_s"]),
        given["batch_size"],
        Kernels(**{k: v * 1e-9 for k, v in given["kernels_ns"].items()}),
    )
