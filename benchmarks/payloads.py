"""Gradients to exchange: the shapes of the variables of known networks."""

import math


def _conv(size, channels, filters):
    return [(size, size, channels, filters), (filters,)]


def _dense(inputs, units):
    return [(inputs, units), (units,)]


def _lenet():
    return [
        *_conv(5, 1, 20),
        *_conv(5, 20, 50),
        *_dense(800, 500),
        *_dense(500, 10),
    ]


def _alexnet():
    """Krizhevsky et al., 2012: two groups in conv2, conv4 and conv5."""
    return [
        *_conv(11, 3, 96),
        *_conv(5, 48, 256),
        *_conv(3, 256, 384),
        *_conv(3, 192, 384),
        *_conv(3, 192, 256),
        *_dense(9216, 4096),
        *_dense(4096, 4096),
        *_dense(4096, 1000),
    ]


def _vgg_a():
    """Simonyan and Zisserman, 2014, configuration A."""
    channels = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    shapes = []
    for inputs, filters in zip(channels, channels[1:], strict=False):
        shapes += _conv(3, inputs, filters)
    return [
        *shapes,
        *_dense(25088, 4096),
        *_dense(4096, 4096),
        *_dense(4096, 1000),
    ]


def _resnet50():
    """He et al., 2015: convolutions without bias, gamma and beta after each."""

    def conv(size, inputs, filters):
        return [(size, size, inputs, filters), (filters,), (filters,)]

    shapes = conv(7, 3, 64)
    inputs = 64
    for width, num_blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(num_blocks):
            shapes += conv(1, inputs, width)
            shapes += conv(3, width, width)
            shapes += conv(1, width, 4 * width)
            if block == 0:
                shapes += conv(1, inputs, 4 * width)
            inputs = 4 * width
    return shapes + _dense(2048, 1000)


# Filters of each inception module: 1x1; 1x1 and 3x3; 1x1 and 5x5; pooled 1x1.
_INCEPTION = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def _googlenet():
    """Szegedy et al., 2014, without the auxiliary classifiers."""
    shapes = [*_conv(7, 3, 64), *_conv(1, 64, 64), *_conv(3, 64, 192)]
    inputs = 192
    for one, three_in, three, five_in, five, pooled in _INCEPTION:
        shapes += _conv(1, inputs, one)
        shapes += _conv(1, inputs, three_in) + _conv(3, three_in, three)
        shapes += _conv(1, inputs, five_in) + _conv(5, five_in, five)
        shapes += _conv(1, inputs, pooled)
        inputs = one + three + five + pooled
    return shapes + _dense(inputs, 1000)


# Name -> shapes of all variables, in order.
SHAPES = {
    "lenet": _lenet(),
    "alexnet": _alexnet(),
    "vgg_a": _vgg_a(),
    "resnet50": _resnet50(),
    "googlenet": _googlenet(),
}


def num_elements(name: str) -> int:
    """Elements of all gradients of a network.

    >>> num_elements("lenet")
    431080
    """
    return sum(math.prod(shape) for shape in SHAPES[name])
