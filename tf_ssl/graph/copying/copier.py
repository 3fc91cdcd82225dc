"""Deep copies of layers with all that they hold, without their configs."""

from __future__ import annotations

import contextlib
import copy

import keras
import tensorflow as tf

# What Keras does not export: where layers note what they hold, and the name
# under which a graph knows a node.
from keras.src.ops.function import make_node_key
from keras.src.utils.tracking import Tracker

from tf_ssl.graph.copying.value_copier import ValueCopier, blank

# Of a model: what compile() and fit() leave. The copy is not compiled.
_COMPILED = {
    "compiled": False,
    "loss": None,
    "train_function": None,
    "test_function": None,
    "predict_function": None,
    "_compile_loss": None,
    "_compile_metrics": None,
    "_loss_tracker": None,
}
_FITTED = (
    "history",
    "optimizer",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
    "_compile_config",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
)
# Of one call, or of the graph that a layer is in.
_OF_CALLS = (
    "_inbound_nodes",
    "_outbound_nodes",
    "_losses",
    "_losses_override",
    "_loss_ids",
)
_DEPENDENCIES = "_self_unconditional_checkpoint_dependencies"
_DEPENDENCY_NAMES = "_self_unconditional_dependency_names"


class Copier(ValueCopier):
    """Copies values; what was copied once is the same copy from then on.

    Variables, layers, metrics, seed generators and whatever holds them are
    copied; functions are where they reach such a thing through a closure, a
    default or `self`. Shared by reference are tensors, initializers, lookup
    tables, optimizers, loaded SavedModels, and what cannot be copied.

    Args:
        memo: id(old) -> new, as that of `copy.deepcopy`: `memo[id(memo)]` keeps
            the old ones alive. What is in it is not copied again.
    """

    def __init__(self, memo: dict | None = None):
        super().__init__(memo)
        self._trackers: list[Tracker] = []

    def __call__(self, value):
        """The copy of a value."""
        if id(value) in self.memo:
            return self.memo[id(value)]
        if isinstance(value, keras.Variable):
            return self._variable(value)
        if isinstance(value, tf.Variable):
            return self._tf_variable(value)
        if isinstance(value, keras.Operation):
            return self._operation(value)
        new = super().__call__(value)
        if isinstance(value, Tracker):
            self._trackers.append(new)
        return new

    def finish(self):
        """Notes in trackers what they now hold; call it after the last copy."""
        for tracker in self._trackers:
            tracker.stored_ids = {
                name: {id(x) for x in store}
                for name, (_, store) in tracker.config.items()
            }
        self._trackers.clear()

    def _variable(self, old):
        new = self._keep(old, blank(type(old)))
        for name, value in vars(old).items():
            vars(new)[name] = self(value)
        return new

    def _tf_variable(self, old):
        strategy = getattr(old, "distribute_strategy", None)
        scope = strategy.scope() if strategy else contextlib.nullcontext()
        with tf.init_scope(), scope:
            new = tf.Variable(
                old.read_value(),
                trainable=old.trainable,
                name=old.name.split(":")[0],
                dtype=old.dtype,
                shape=old.shape,
                synchronization=old.synchronization,
                aggregation=old.aggregation,
            )
        return self._keep(old, new)

    def _operation(self, old):
        if isinstance(old, keras.layers.TFSMLayer):
            # The loaded functions read the variables that they came with.
            for variable in old.variables:
                self._keep(variable, variable)
        new = self._keep(old, blank(type(old)))
        attributes = vars(new)
        before = {k: v for k, v in vars(old).items() if k not in _OF_CALLS}
        for name in set(attributes) - set(before):
            del attributes[name]
        for name in _OF_CALLS:
            if name in vars(old):
                attributes[name] = set() if name == "_loss_ids" else []
        gone = set(_OF_CALLS)
        if isinstance(old, keras.Model):
            gone.update(_FITTED, _COMPILED)
            for name in _FITTED:
                before.pop(name, None)
            before.update({k: v for k, v in _COMPILED.items() if k in before})
        _forget_dependencies(before, gone)
        if "_tracker" in before:
            attributes["_tracker"] = self(before["_tracker"])
        if isinstance(old, keras.layers.InputLayer):
            self._node(old._inbound_nodes[0])
        if hasattr(old, "_nodes_by_depth"):
            before["_nodes"] = self._graph(old)
        for name, value in before.items():
            attributes[name] = self(value)
        return new

    def _graph(self, function):
        """Copies the nodes of a graph of layers; returns their keys."""
        keys = set()
        # Inputs first: no copy has to look back along the graph.
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                new = self._node(node)
                position = new.operation._inbound_nodes.index(new)
                keys.add(make_node_key(new.operation, position))
        return keys

    def _node(self, old):
        operation = self(old.operation)
        if id(old) in self.memo:  # that of an input layer
            return self.memo[id(old)]
        args, kwargs = old.arguments.convert(self)
        outputs = [self._keras_tensor(x) for x in old.outputs]
        return self._keep(
            old,
            type(old)(
                operation=operation,
                call_args=args,
                call_kwargs=kwargs,
                outputs=outputs,
            ),
        )

    def _keras_tensor(self, old):
        new = self._keep(old, copy.copy(old))
        for name in ("_keras_history", "_keras_mask"):  # of the old graph
            vars(new).pop(name, None)
        return new


def _forget_dependencies(attributes: dict, gone: set):
    """Less what TensorFlow would save of attributes that are gone."""
    if _DEPENDENCIES in attributes:
        attributes[_DEPENDENCIES] = [
            x for x in attributes[_DEPENDENCIES] if x.name not in gone
        ]
        attributes[_DEPENDENCY_NAMES] = {
            k: v
            for k, v in attributes[_DEPENDENCY_NAMES].items()
            if k not in gone
        }
