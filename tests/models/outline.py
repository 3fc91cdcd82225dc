"""Builds networks without their weights, which for VGG-A are half a GB."""

import math

import keras


def outline(build, **options):
    """Builds a model whose variables have shapes and no values."""
    with keras.StatelessScope(initialize_variables=False):
        return build(**options)


def num_elements(variables):
    """Elements of all variables together."""
    return sum(math.prod(variable.shape) for variable in variables)


def statistics(model):
    """The moving statistics of batch normalization."""
    return [v for v in model.non_trainable_variables if "moving_" in v.path]
