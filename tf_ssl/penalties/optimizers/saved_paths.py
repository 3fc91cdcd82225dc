"""Variables under the paths that they had when they were saved.

Keras forgets the leading scopes of a path when it loads a model: the kernel
`mlp/conv1/kernel` of a Sequential, or that of an LSTM in a Bidirectional, is
`conv1/kernel` afterwards, perhaps one of several. The order of variables
stays.
"""

from __future__ import annotations

import dataclasses

from tf_ssl.structures.structure import Structure


@dataclasses.dataclass(frozen=True, eq=False)
class _Saved:
    """A variable under another path."""

    path: str
    variable: object

    @property
    def shape(self):
        return self.variable.shape


def bind(config: dict, variables, paths=None) -> Structure:
    """A structure from its configuration, on variables of a loaded model.

    Args:
        config: Of `Structure.get_config`.
        variables: In their order.
        paths: Their paths when the configuration was made; None: not known.

    Raises:
        ValueError: A variable is not there, or there more than once.
    """
    if paths is not None and len(paths) == len(variables):
        if all(map(_agree, paths, (v.path for v in variables))):
            return _bind(config, map(_Saved, paths, variables))
    named = [_Saved(v.path, v) for v in variables]
    known = {v.path for v in variables}
    for path in {part["variable"] for part in config["slices"]} - known:
        named += [_Saved(path, v) for v in variables if _agree(path, v.path)]
    return _bind(config, named)


def _bind(config, named):
    structure = Structure.from_config(config, list(named))
    slices = tuple(
        dataclasses.replace(part, variable=part.variable.variable)
        for part in structure.slices
    )
    return dataclasses.replace(structure, slices=slices)


def _agree(path: str, other: str) -> bool:
    """Whether one path is the end of the other."""
    longer, shorter = sorted((path, other), key=len, reverse=True)
    return f"/{longer}".endswith(f"/{shorter}")
