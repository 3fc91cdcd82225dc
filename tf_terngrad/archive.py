"""Variables in an npz file: written as they are, read back to the bit.

A file holds groups of variables, such as "trainable" and "optimizer". Within
a group they keep their order and their names.
"""

import itertools
import json
import os
import re

import numpy as np
import tensorflow as tf

from tf_terngrad.exchange import path as path_of

# Keras numbers the layers of a process: dense_3 here may be dense there.
_NUMBER = re.compile(r"_\d+(?=[/_]|$)")


def write(file, groups: dict[str, list]) -> None:
    """Writes variables, and waits until they are on the disk.

    Args:
        file: Path, ending in `.npz`.
        groups: Name of a group -> Keras or TensorFlow variables.
    """
    arrays = {
        f"{group}.{i:05d}": np.asarray(_value(variable))
        for group, variables in groups.items()
        for i, variable in enumerate(variables)
    }
    index = {
        group: [_description(v) for v in variables]
        for group, variables in groups.items()
    }
    with open(file, "wb") as stream:
        np.savez(stream, index=np.array(json.dumps(index)), **arrays)
        stream.flush()
        os.fsync(stream.fileno())


def read(file, groups: dict[str, list]) -> None:
    """Assigns to variables what `write` has written.

    Args:
        file: Path of a file that `write` has written.
        groups: Name of a group -> variables, as for `write`. Groups of the
            file that are not asked for are left out.

    Raises:
        ValueError: The file does not fit the variables; the message names the
            first that differs. Then no variable has changed.
    """
    with np.load(file, allow_pickle=False) as archive:
        index = json.loads(str(archive["index"]))
        for group, variables in groups.items():
            _check(file, index.get(group, []), variables)
        for group, variables in groups.items():
            for i, variable in enumerate(variables):
                array = archive[f"{group}.{i:05d}"]
                # NumPy knows bfloat16 and float8 as bytes only.
                dtype = tf.as_dtype(index[group][i]["dtype"]).as_numpy_dtype
                variable.assign(array.view(dtype))


def _value(variable):
    return getattr(variable, "value", variable).numpy()


def _check(file, stored, variables) -> None:
    wanted = [_description(v) for v in variables]
    for have, want in itertools.zip_longest(stored, wanted):
        if have is None or want is None or not _fits(have, want):
            raise ValueError(
                f"{file} does not fit the model. Expected {_text(want)}. "
                f"Received: {_text(have)}"
            )


def _description(variable) -> dict:
    return {
        "name": path_of(variable),
        "shape": list(variable.shape),
        "dtype": tf.as_dtype(variable.dtype).name,
    }


def _fits(have, want) -> bool:
    a, b = (f"/{_NUMBER.sub('', each['name'])}" for each in (have, want))
    # How many scopes stand before a name depends on who built the optimizer.
    return (
        (a.endswith(b) or b.endswith(a))
        and have["shape"] == want["shape"]
        and have["dtype"] == want["dtype"]
    )


def _text(description) -> str:
    if description is None:
        return "no further variable"
    shape = tuple(description["shape"])
    return (
        f"variable {description['name']} of shape {shape}, "
        f"{description['dtype']}"
    )
