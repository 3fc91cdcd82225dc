"""One composite layer, called on symbolic tensors; see `composites`."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import keras

from tf_ssl.graph.opening.batch import Batch, in_rows
from tf_ssl.graph.opening.comparing import signature
from tf_ssl.graph.opening.nodes import (
    has_open_sizes,
    node_of,
    nodes_of,
    refuse_variables,
    runs_its_graph,
    stand_ins,
)
from tf_ssl.graph.opening.reasons import HINT, CannotOpen, said
from tf_ssl.graph.opening.symbolic import (
    Patches,
    Reads,
    as_called,
    pass_mask_on,
    positional,
    visible,
    with_lengths,
    with_masks,
)
from tf_ssl.graph.sources import Source


@dataclasses.dataclass(eq=False)
class Opened:
    """What a layer did.

    Attributes:
        inputs: KerasTensors that it was called on.
        positions: Which of the tensors among its arguments they stand for.
        outputs: KerasTensors that it returned, in a flat list.
        nodes: Keras' nodes, each after those that it depends on.
        inputs_structure: KerasTensors as the layer is called.
        outputs_structure: As the layer returns them.
        batch: The size that stands for the batch.
        masks: KerasTensors, masks of the arguments that are no arguments
            themselves; the last of `inputs` stand for them.
        trains_otherwise: In training its own code does something else.
    """

    inputs: list
    positions: list
    outputs: list
    nodes: list
    inputs_structure: Any
    outputs_structure: Any
    batch: Batch
    masks: list = dataclasses.field(default_factory=list)
    trains_otherwise: bool = False


class Opener:
    """Opens a layer, and composite layers inside it.

    Args:
        is_known: Function from a layer to whether it needs no opening.
        batch: `Batch` of a size that no size in the layer is a multiple of.
    """

    def __init__(self, is_known, batch):
        self._is_known = is_known
        self._batch = batch
        self._anchor = None
        # While training is tried: what inner layers returned before.
        self._returned: dict[int, list] | None = None
        self._seen: dict[int, list] = {}

    def first_that_works(self, layer, arguments) -> Opened:
        """Opens a layer with its batch left open, or as a size."""
        if not isinstance(layer, keras.Model):
            own = type(layer).call
            if getattr(own, "__module__", "").startswith("keras.src"):
                raise CannotOpen("it is Keras' own, and has no rule")
        if layer.activity_regularizer is not None:
            raise CannotOpen("it has an activity regularizer itself")
        shapes = [
            tuple(x.shape)
            for x in keras.tree.flatten(arguments)
            if isinstance(x, keras.KerasTensor)
        ]
        if not shapes:
            raise CannotOpen("it is called on no tensor")
        for size in (None, self._batch.size):
            try:
                self._batch.is_used |= size is not None
                return self._open_checked(layer, arguments, size)
            except CannotOpen as error:
                reason = str(error)
            except Exception as error:  # whatever the layer's own code raises
                reason = said(error)
            if not any(s and s[0] is None for s in shapes):
                break
        if has_open_sizes(arguments):
            reason += f"; {HINT}"
        raise CannotOpen(reason)

    def _open_checked(self, layer, arguments, size):
        outer, self._seen = self._seen, {}
        try:
            opened = self._open(layer, arguments, size)
            if getattr(layer, "_call_has_training_arg", False):
                opened.trains_otherwise = self._trains_otherwise(
                    layer, arguments, size, opened
                )
            return opened
        finally:
            self._seen = outer

    def _trains_otherwise(self, layer, arguments, size, opened) -> bool:
        args, kwargs = arguments
        if "training" in positional(layer, args):
            return True
        self._returned = {k: list(v) for k, v in self._seen.items()}
        try:
            training = self._open(
                layer, (args, {**kwargs, "training": True}), size
            )
        except Exception:  # whatever the layer's own code raises
            return True
        finally:
            self._returned = None
        if signature(training) != signature(opened):
            return True
        for ours, other in zip(opened.nodes, training.nodes, strict=True):
            # Not False for good where the layer would hand True on.
            if other.arguments.kwargs.get("training"):
                if kwargs.get("training") is None:
                    ours.arguments.kwargs.pop("training", None)
        return False

    def _open(self, layer, arguments, size) -> Opened:
        placeholders, inputs, positions, masks = stand_ins(arguments, size)
        args, kwargs = keras.tree.map_structure(
            lambda x: placeholders.get(id(x), x), arguments
        )
        structure = args[0] if args else None
        reads = Reads()
        before = self._anchor
        self._anchor = next((t for t in inputs if t.shape), inputs[0])
        try:
            with self._symbolic(layer), reads:
                args, kwargs = keras.tree.map_structure(
                    lambda x: as_called(layer, x), (args, kwargs)
                )
                kwargs = with_masks(layer, args, kwargs)
                if getattr(layer, "_call_has_training_arg", False):
                    if "training" not in positional(layer, args):
                        # As within a call that says nothing of it.
                        kwargs = {"training": None, **kwargs}
                outputs = keras.tree.map_structure(
                    self._visible_output, layer.call(*args, **kwargs)
                )
            reads.refuse()
            made = [
                x
                for x in keras.tree.flatten(outputs)
                if isinstance(x, keras.KerasTensor)
            ]
            if not made:
                raise CannotOpen("it returns no tensor")
            found = []
            for node in nodes_of(made, {id(t) for t in inputs}):
                found += self._batch.taken_out(node, self._anchor)
                found.append(node)
        finally:
            self._anchor = before
        return Opened(
            inputs,
            positions,
            made,
            found,
            structure,
            outputs,
            self._batch,
            masks,
        )

    def _source(self, value, dtype=None):
        if self._batch.has_rows(value):
            return in_rows(self._batch.row(value), self._anchor)
        return Source(value, dtype)(self._anchor)

    def _visible_output(self, x):
        is_number = keras.ops.is_tensor(x) and not isinstance(
            x, keras.KerasTensor
        )
        return self._source(x) if is_number else x

    @contextlib.contextmanager
    def _symbolic(self, layer):
        """Makes visible what symbolic tensors do not show; see `composites`."""
        made: dict[int, Any] = {}

        def source(value, dtype=None):
            if id(value) not in made:
                made[id(value)] = (value, self._source(value, dtype))
            return made[id(value)][1]

        def layer_call(call, inner, *args, **kwargs):
            flat = keras.tree.flatten((args, kwargs))
            is_symbolic = any(isinstance(x, keras.KerasTensor) for x in flat)
            if args and not is_symbolic:
                args = keras.tree.map_structure(
                    lambda x: source(x) if keras.ops.is_tensor(x) else x, args
                )
                is_symbolic = True
            if is_symbolic and not inner.built:
                refuse_variables(inner, args, kwargs, call)
            if not is_symbolic or self._is_known(inner):
                outputs = call(inner, *args, **kwargs)
                if isinstance(inner, keras.layers.EinsumDense):
                    return with_lengths(inner, args, outputs)
                return outputs
            return self._inner(inner, args, kwargs, call)

        before = dict(vars(layer))
        shown = {}
        for name, value in before.items():
            # Keras' lists of variables and layers are not what `call` reads.
            if name in _LISTS_OF_KERAS:
                continue
            replaced = visible(layer, value, source)
            if replaced is not None:
                shown[name] = replaced
        try:
            # Not by setattr: Keras tracks what is assigned to a layer.
            layer.__dict__.update(shown)
            with Patches(self._anchor, self._batch, layer_call):
                yield
        finally:
            layer.__dict__.clear()
            layer.__dict__.update(before)

    def _inner(self, layer, args, kwargs, call):
        """The call of a composite layer inside: opened in turn."""
        if self._returned is not None:
            returned = self._returned.get(id(layer))
            if returned:
                return node_of(layer, args, kwargs, *returned.pop(0))
        if isinstance(layer, keras.Model) and runs_its_graph(layer):
            return call(layer, *args, **kwargs)
        try:
            opened = self.first_that_works(layer, (args, kwargs))
        except CannotOpen as error:
            try:
                outputs = call(layer, *args, **kwargs)
            except Exception:  # whatever the layer's own code raises
                raise CannotOpen(f"{layer.name} in it: {error}") from error
            self._seen.setdefault(id(layer), []).append((outputs, None))
            return outputs
        outputs = opened.outputs_structure
        self._seen.setdefault(id(layer), []).append((outputs, opened))
        outputs = node_of(layer, args, kwargs, outputs, opened)
        pass_mask_on(layer, args, kwargs, outputs)
        return outputs


# Attributes of `keras.Layer` that are not the user's.
_LISTS_OF_KERAS = {
    *("_trainable_variables", "_non_trainable_variables", "_layers"),
    *("_metrics", "_seed_generators", "_losses", "_inbound_nodes"),
    *("_outbound_nodes", "_tracker", "_loss_ids", "_functional"),
}
