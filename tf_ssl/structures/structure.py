"""A structure: units that a network can lose, with every weight of theirs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tf_ssl.structures import compact_units

ROLES = ("out", "norm", "in", "stat")


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """The weights of one variable that belong to units of one structure.

    Attributes:
        variable: `keras.Variable`.
        role: "out" weights and biases that produce the unit, "norm" trainable
            scale and shift, "in" weights that read it, "stat" moving
            statistics, which are removed with it but never counted or zeroed.
        units: Integer array of the variable's rank that broadcasts to its
            shape: the unit that a weight belongs to, -1 for none. A filter of
            `Conv2D` is `[[[[0, 1, 2, ...]]]]` on the kernel, a unit of `LSTM`
            `[[0, ..., H - 1] * 4]`.
    """

    variable: Any
    role: str
    units: np.ndarray

    def __post_init__(self):
        if self.role not in ROLES:
            raise ValueError(
                "Invalid value for argument role. Expected one of "
                f"{set(ROLES)}. Received: role={self.role!r}"
            )
        shape = tuple(self.variable.shape)
        if self.units.ndim != len(shape) or any(
            n not in (1, size)
            for n, size in zip(self.units.shape, shape, strict=False)
        ):
            raise ValueError(
                "Invalid value for argument units. Expected an array that "
                f"broadcasts to the shape {shape} of {self.variable.path}. "
                f"Received: shape {self.units.shape}"
            )

    @property
    def is_bias(self) -> bool:
        """Whether it is added to what makes the unit, and no kernel.

        Biases of a GRU (`[2, 3 units]`) and of heads have two axes.
        """
        return self.role == "out" and (
            self.units.ndim == 1 or self.variable.path.endswith("bias")
        )

    @property
    def layer(self) -> str:
        """Name of the layer that has the variable, by its path."""
        *scopes, _ = self.variable.path.split("/")
        if len(scopes) > 1 and scopes[-1].endswith("cell"):
            scopes.pop()  # of a recurrent layer
        return scopes[-1] if scopes else self.variable.path

    def __repr__(self):
        shape = list(self.units.shape)
        return f"<Slice {self.variable.path}, {self.role}, units {shape}>"

    def index(self, units: int | Sequence[int] | np.ndarray) -> tuple:
        """Where the weights of units are, one entry an axis, as for NumPy.

        Args:
            units: Of the structure.

        Returns:
            For each axis `slice(None)` or an integer array; the arrays belong
            together, as in NumPy's advanced indexing.
        """
        found = np.nonzero(self.mask(units))
        if self.units.size == 1 and found[0].size:
            return (slice(None),) * self.units.ndim
        return tuple(
            slice(None) if n == 1 and self.units.size > 1 else positions
            for positions, n in zip(found, self.units.shape, strict=True)
        )

    def mask(self, units) -> np.ndarray:
        """True at the weights of units; broadcasts to the variable's shape."""
        return np.isin(self.units, np.atleast_1d(units))

    def zero(self, units: int | Sequence[int] | np.ndarray) -> None:
        """Sets the weights of units to zero."""
        value = np.array(keras.ops.convert_to_numpy(self.variable))
        value[np.broadcast_to(self.mask(units), value.shape)] = 0
        self.variable.assign(value)


def squares(slices: Iterable[Slice], size: int, double_count=False, read=None):
    """Sum of squares of each unit's weights over slices, in float64.

    Args:
        slices: Of one structure.
        size: Number of its units.
        double_count: A weight that two slices give to one unit counts twice.
        read: Function from a variable to its value; default: its own.

    Returns:
        `[size]`.
    """
    read = read or keras.ops.convert_to_numpy
    total = np.zeros(size)
    of_variable: dict[int, list[Slice]] = {}
    for part in slices:
        of_variable.setdefault(id(part.variable), []).append(part)
    for parts in of_variable.values():
        square = np.square(np.asarray(read(parts[0].variable), np.float64))
        for i, part in enumerate(parts):
            new = square
            if parts[:i] and not double_count:
                again = [
                    _same(part, other, square.shape) for other in parts[:i]
                ]
                new = np.where(np.any(again, axis=0), 0.0, square)
            axes = tuple(a for a, n in enumerate(part.units.shape) if n == 1)
            sums = new.sum(axis=axes, keepdims=True)
            owned = part.units >= 0
            sums = np.broadcast_to(sums, part.units.shape)
            total += np.bincount(
                part.units[owned], weights=sums[owned], minlength=size
            )
    return total


def _same(first, second, shape):
    """Weights that two slices give to the same unit."""
    units = np.broadcast_to(first.units, shape)
    return units == np.broadcast_to(second.units, shape)


def _equal(first, second):
    """Whether two slices are the same weights of the same units."""
    return first.variable is second.variable and np.array_equal(
        first.units, second.units
    )


@dataclasses.dataclass(eq=False)
class Structure:
    """Units of a network, for example the filters of a layer.

    Attributes:
        name: Begins with the name of the layer that produces the units, such as
            `"conv1/filters"`.
        size: Number of units.
        slices: `Slice`s: every weight of every unit.
        kind: "filters", "units", "heads", "embedding", "input", "block" or
            "groups".
        roles: Roles that `norms` counts by default.
        is_dead: Function from a threshold to a boolean array `[size]`.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    kind: str = "units"
    roles: tuple[str, ...] = ("out",)
    is_dead: Callable[[float], np.ndarray] | None = None

    def of(self, roles: Iterable[str] | None = None) -> list[Slice]:
        """The slices with these roles; None: those that `norms` counts."""
        roles = self.roles if roles is None else tuple(roles)
        for role in roles:
            if role not in ROLES:
                raise ValueError(
                    "Invalid value for argument roles. Expected some of "
                    f"{set(ROLES)}. Received: {role!r}"
                )
        return [part for part in self.slices if part.role in roles]

    def counted(self, roles: Iterable[str] | None = None) -> list[Slice]:
        """The slices with these roles that `norms` and penalties count.

        Where "in" counts, a unit goes when nothing reads it: its biases, which
        may begin far from zero (a forget gate's 1, a transform gate's -2), do
        not count then, as in ISS. A weight that makes a unit and reads it, as a
        tied embedding does, counts once.
        """
        roles = self.roles if roles is None else roles
        parts = self.of(roles)
        if "in" not in roles:
            return parts
        found: list[Slice] = []
        for part in parts:
            if part.is_bias or any(_equal(part, other) for other in found):
                continue
            found.append(part)
        return found

    def norms(self, roles=None, double_count: bool = False) -> np.ndarray:
        """Euclidean norm of each unit's weights, `[size]`, float64.

        Args:
            roles: Some of "out", "norm", "in", see `counted`; None:
                `self.roles`.
            double_count: A weight that belongs to a unit twice, such as the
                diagonal of a recurrent kernel, counts twice (ISS, ICLR 2018).
        """
        return np.sqrt(squares(self.counted(roles), self.size, double_count))

    def zero(self, units) -> None:
        """Sets all weights of units to zero, but for moving statistics."""
        for part in self.of(("out", "norm", "in")):
            part.zero(units)

    def dead(self, threshold: float = 0.0) -> np.ndarray:
        """Units that the network does not need, boolean `[size]`.

        A unit is dead if every weight that reads it is zero, or if it is
        constant by its out and norm weights. Units whose slices have a norm of
        at most `threshold` count as zero.
        """
        if self.is_dead is None:
            return self.norms() <= threshold
        return self.is_dead(threshold)

    @property
    def weights_per_unit(self) -> float:
        """Weights that make, scale and read a unit, on average."""
        total, found = 0.0, []
        for part in self.of(("out", "norm", "in")):
            if not any(_equal(part, other) for other in found):
                found.append(part)
                share = np.count_nonzero(part.units >= 0) / part.units.size
                total += share * math.prod(part.variable.shape)
        return total / max(self.size, 1)

    def _columns(self) -> list[str]:
        """What its line says."""
        columns = [
            self.name,
            self.kind,
            f"{self.size:,} units of {self.weights_per_unit:,.0f} weights",
        ]
        for role, verb in (("out", "made by"), ("in", "read by")):
            layers = dict.fromkeys(s.layer for s in self.of((role,)))
            if layers:
                columns.append(f"{verb} {_shorten(list(layers))}")
        return columns

    def __repr__(self):
        return f"<Structure {', '.join(self._columns())}>"

    def get_config(self) -> dict:
        """JSON-able: the variables by their paths."""
        return {
            "name": self.name,
            "size": self.size,
            "kind": self.kind,
            "roles": list(self.roles),
            "slices": [
                {
                    "variable": part.variable.path,
                    "role": part.role,
                    "units": compact_units.encode(part.units),
                }
                for part in self.slices
            ],
        }

    @classmethod
    def from_config(cls, config: dict, variables) -> Structure:
        """Binds a config to variables.

        Args:
            config: Of `get_config`, also as saved when it listed all units.
            variables: Those of the model.

        Raises:
            ValueError: A path is not, or not only once, among theirs.
        """
        of_path: dict[str, list] = {}
        for variable in variables:
            of_path.setdefault(variable.path, []).append(variable)
        parts = []
        for part in config["slices"]:
            found = of_path.get(part["variable"], [])
            if len(found) != 1:
                raise ValueError(
                    f"Structure {config['name']} has weights in the variable "
                    f"{part['variable']}. Expected one variable of that path. "
                    f"Received: {len(found)}"
                )
            units = compact_units.decode(part["units"])
            parts.append(Slice(found[0], part["role"], units))
        return cls(
            config["name"],
            config["size"],
            tuple(parts),
            config["kind"],
            tuple(config["roles"]),
        )


def _shorten(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"


class Structures(list):
    """`Structure`s of a model.

    Printed, it is one line a structure. A slice of it is a `Structures`, too.

    Args:
        structures: `Structure`s.
        skipped: (name, reason) of what was left whole.
        dead_of_all: Function from a threshold to a dict from names to boolean
            arrays `[size]`, which finds the dead units of all structures at
            once; None: each is asked.
    """

    def __init__(self, structures=(), skipped=(), dead_of_all=None):
        super().__init__(structures)
        self.skipped = list(skipped)
        self.dead_of_all = dead_of_all

    def __getitem__(self, key):
        if isinstance(key, str):
            for structure in self:
                if structure.name == key:
                    return structure
            layer = key.rpartition("/")[0]
            reasons = [
                f" {name} was left whole: {reason}."
                for name, reason in self.skipped
                if name in (key, layer)
            ]
            raise KeyError(
                f"No structure {key!r}.{''.join(reasons)} Names: "
                f"{', '.join(s.name for s in self) or 'none'}"
            )
        if isinstance(key, slice):
            part = super().__getitem__(key)
            return Structures(part, self.skipped, self.dead_of_all)
        return super().__getitem__(key)

    def dead(self, threshold: float = 0.0) -> dict[str, np.ndarray]:
        """Units that the network does not need: name -> boolean `[size]`.

        As `Structure.dead` of each, from one look at the model.

        Args:
            threshold: Units whose slices have a norm of at most this count as
                zero.
        """
        if self.dead_of_all is None:
            return {s.name: s.dead(threshold) for s in self}
        dead = self.dead_of_all(threshold)
        return {s.name: dead[s.name] for s in self}

    def __repr__(self):
        rows = [structure._columns() for structure in self]
        widths = [
            max((len(row[i]) for row in rows if i < len(row)), default=0)
            for i in range(max(map(len, rows), default=0))
        ]
        lines = [
            "  ".join(
                text.ljust(width)
                for text, width in zip(row, widths, strict=False)
            ).rstrip()
            for row in rows
        ]
        if self.skipped:
            lines.append(f"{len(self.skipped)} left whole: see .skipped")
        return "\n".join(lines) or "no structures"
