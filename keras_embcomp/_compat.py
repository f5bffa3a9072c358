"""Every private name of Keras, TensorFlow and LiteRT that the package needs.

Each function says why no public name does. `tests/test_compat.py` has a test
for each, which fails by name when a release moves it.

What older versions lack is here too, with the version that has it. The oldest
ones that the tests ran on are Keras 3.10 and TensorFlow 2.18.
"""

import contextlib
import functools
import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import ops
from keras.src import api_export, dtype_policies
from keras.src.backend import get_keras_mask as get_mask
from keras.src.backend import set_keras_mask as set_mask
from keras.src.backend.common import global_state
from keras.src.models import Functional
from keras.src.ops.function import map_graph
from keras.src.ops.node import KerasHistory
from keras.src.saving.object_registration import GLOBAL_CUSTOM_NAMES

from keras_embcomp._types import Tensor

__all__ = [
    "KERAS_MODES",
    "Functional",
    "Int4QuantizationConfig",
    "as_if_float",
    "call_arguments",
    "callbacks_beside",
    "check_can_quantize",
    "children",
    "converter_error",
    "cycled_rate",
    "every_layer",
    "follow_layers",
    "follow_nodes",
    "get_mask",
    "given_to",
    "has_layout",
    "in_xla_context",
    "int4_block_size",
    "is_reversible",
    "litert_schema",
    "log_sum_exp",
    "mark_quantized",
    "needs_keras",
    "numpy_for_tf2onnx",
    "outputs_of",
    "own_variables",
    "producer",
    "producer_name",
    "quantization_config",
    "read_newer_files",
    "rebuilt",
    "register_as",
    "register_policy_of_keras",
    "replace_input",
    "retrack",
    "reversible_embedding",
    "set_cycled_rate",
    "set_mask",
    "source_policy",
    "unallocated",
    "unlocked",
    "view",
]

# `get_mask`, `set_mask`: Keras carries a mask as an attribute of a tensor. A
# layer that is called in two directions cannot say its mask by
# `compute_mask`, which does not know the direction.
#
# `Functional`: the public `keras.Model` does not tell a functional model from
# a subclassed one.


# Keras 3.11 to 3.13 know 4 bits, but with one scale for a whole row: neither
# their dtype policies nor their configs have blocks. Keras 3.10 knows 8 bits
# only. There the package has the policy and the config of Keras 3.14 itself.
_HAS_BLOCKS = hasattr(keras.dtype_policies, "Int4DTypePolicy")
KERAS_MODES = ("int8", "int4") if _HAS_BLOCKS else ("int8",)


class _Int4QuantizationConfig:
    """The part of Keras' config for 4 bits that layers of ours read."""

    mode = "int4"

    def __init__(self, block_size: int | None = 128) -> None:
        if block_size is not None and (block_size < -1 or block_size == 0):
            raise ValueError(
                "`block_size` must be None, -1, or a positive integer. "
                f"Received: block_size={block_size}"
            )
        self.block_size = block_size


Int4QuantizationConfig: Any = (
    keras.quantizers.Int4QuantizationConfig
    if _HAS_BLOCKS
    else _Int4QuantizationConfig
)


def needs_keras(feature: str, version: str) -> NotImplementedError:
    """Returns the error for what an older Keras does not have."""
    return NotImplementedError(
        f"{feature} needs Keras {version} or later. "
        f"Received: Keras {keras.__version__}"
    )


def reversible_embedding() -> type[keras.Layer]:
    """Returns `keras.layers.ReversibleEmbedding`, which Keras 3.12 brought."""
    if not hasattr(keras.layers, "ReversibleEmbedding"):
        raise needs_keras("A dense `ReversibleEmbedding`", "3.12")
    return keras.layers.ReversibleEmbedding


def is_reversible(layer: Any) -> bool:
    """Returns whether a layer is a `ReversibleEmbedding` of Keras."""
    cls = getattr(keras.layers, "ReversibleEmbedding", None)
    return cls is not None and isinstance(layer, cls)


def view(tensor: Tensor, dtype: str) -> Tensor:
    """Returns `ops.view` between dtypes of one size; Keras 3.10 has none."""
    if hasattr(ops, "view"):
        return ops.view(tensor, dtype)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.bitcast(tensor, dtype)
    if backend == "torch":
        import torch

        return tensor.view(getattr(torch, dtype))
    return tensor.view(dtype)


def log_sum_exp(tensor: Tensor, axis: int) -> Tensor:
    """Returns `ops.logsumexp` over an axis.

    Keras 3.10 fails with a symbolic tensor and an integer.
    """
    try:
        return ops.logsumexp(tensor, axis=axis)
    except TypeError:
        return ops.logsumexp(tensor, axis=(axis,))


def int4_block_size(layer: keras.Layer) -> int | None:
    """Returns the block of int4 that a layer's dtype policy names.

    The policy's class is not public.
    """
    if _HAS_BLOCKS:
        from keras.src.quantizers.quantization_config import (
            get_block_size_for_layer,
        )

        return get_block_size_for_layer(layer, None)
    policy = layer.dtype_policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy[layer.path]
    block = getattr(policy, "block_size", None)
    return None if block == -1 else block


def quantization_config(mode: str, config: Any) -> Any:
    """Returns the config that `layer.quantize(mode, config)` would use.

    `fake_quantize` takes the same arguments, and shall refuse the same.
    """
    if _HAS_BLOCKS:
        from keras.src.quantizers.quantization_config import (
            validate_and_resolve_config,
        )

        return validate_and_resolve_config(mode, config)
    found = getattr(config, "mode", mode)
    if found != mode:
        raise ValueError(
            f"Contradictory arguments: mode='{mode}' but config.mode='{found}'"
        )
    # Keras 3.13 gives a config without a block to each layer of a model.
    plain = config is None or (
        type(config).__name__ == "Int4QuantizationConfig"
        and not hasattr(config, "block_size")
        and config.weight_quantizer is None
    )
    if mode == "int4" and plain:
        return Int4QuantizationConfig()
    return config


def check_can_quantize(layer: keras.Layer, mode: str) -> None:
    """Raises what `layer.quantize` raises for a layer that is not ready."""
    layer._check_quantize_args(mode, layer.compute_dtype)


def mark_quantized(layer: keras.Layer) -> None:
    """Tells Keras that a layer is quantized, so that it is not once more.

    Keras sets the flag in the `quantize` of its own layers only.
    """
    layer._is_quantized = True


@contextlib.contextmanager
def unlocked(layer: keras.Layer) -> Iterator[None]:
    """Lets a built layer add weights within, as `enable_lora` of Keras does."""
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


@contextlib.contextmanager
def rebuilt(layer: keras.Layer, weights: Any = None) -> Iterator[None]:
    """Takes weights, or all, of a built layer off; lets it add some within.

    Keras has no public way to change the weights of a built layer.
    """
    for weight in layer.weights if weights is None else weights:
        layer._untrack_variable(weight)
    with unlocked(layer):
        yield


def every_layer(model: keras.Layer) -> list[keras.Layer]:
    """Returns a layer and all layers in it, in Keras' order.

    `keras.Model.layers` does not look into layers.
    """
    found = list(model._flatten_layers())
    for layer in list(found):
        for unseen in _untracked(layer):
            found.extend(unseen._flatten_layers())
    return found


def _untracked(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the preprocessor of a task that Keras does not know of.

    On PyTorch, keras-hub sets the attributes of its tasks past Keras.
    """
    preprocessor = getattr(layer, "preprocessor", None)
    if not isinstance(preprocessor, keras.Layer):
        return []
    tracked = layer._flatten_layers(include_self=False, recursive=False)
    known = any(preprocessor is held for held in tracked)
    return [] if known else [preprocessor]


def children(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers that a layer holds itself, in Keras' order.

    `keras.Model.layers` leaves out those of other layers, and keras-hub's
    preprocessors. Inputs are left out here, and the graph of a `Sequential`:
    they are there only once it is built.
    """
    graph = getattr(layer, "_functional", None)
    tracked = [
        held
        for held in layer._flatten_layers(include_self=False, recursive=False)
        if held is not graph and not isinstance(held, keras.layers.InputLayer)
    ]
    return tracked + _untracked(layer)


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the variables of a layer that belong to none of its layers.

    The public `variables` has those of the layers in it too.
    """
    found = [*layer._trainable_variables, *layer._non_trainable_variables]
    return found + [seed.state for seed in layer._seed_generators]


def retrack(owner: keras.Layer, old: keras.Layer, new: keras.Layer) -> bool:
    """Tracks a layer in the place of another, though the owner is built.

    A built layer of Keras is locked. Returns whether it tracked the old one.
    """
    tracker = owner._tracker
    if not tracker.is_in_store("layers", old):
        return False
    if tracker.is_in_store("layers", new):
        tracker.untrack(old)
    else:
        tracker.replace_tracked_value("layers", old, new)
    return True


def follow_nodes(graph: Any, old: keras.Layer, new: keras.Layer) -> bool:
    """Gives a functional model's calls of a layer to another one.

    Keras has no public way to change the layers of a graph. A node is a call;
    a symbolic tensor knows the call that made it. Returns whether the graph
    called the old layer.
    """
    if not any(operation is old for operation in graph._operations):
        return False
    for node in old._inbound_nodes:
        node.operation = new
        index = len(new._inbound_nodes)
        new._inbound_nodes.append(node)
        for place, tensor in enumerate(node.outputs):
            tensor._keras_history = KerasHistory(new, index, place)
    old._inbound_nodes = []
    for node in old._outbound_nodes:
        if node not in new._outbound_nodes:
            new._outbound_nodes.append(node)
    mapped = map_graph(graph._inputs, graph._outputs)
    names = ("_nodes", "_nodes_by_depth", "_operations", "_operations_by_depth")
    vars(graph).update(zip(names, mapped, strict=True))
    retrack(graph, old, new)
    return True


def follow_layers(owner: keras.Layer) -> None:
    """Tells the backend which layers an owner has now.

    TensorFlow and PyTorch keep lists of their own, of which no public name
    lets an entry be replaced.
    """
    if hasattr(owner, "_torch_params"):
        owner._track_variables()
    references = vars(owner).get("_self_unconditional_checkpoint_dependencies")
    for reference in list(references or ()):
        held = vars(owner).get(reference.name)
        if isinstance(held, keras.Layer) and held is not reference.ref:
            owner._track_trackable(held, reference.name, overwrite=True)


def register_as(cls: type, name: str) -> None:
    """Makes Keras write a registered name into the config of a class.

    `register_keras_serializable` would read the config with that class too.
    """
    GLOBAL_CUSTOM_NAMES[cls] = name


def register_policy_of_keras(cls: type) -> None:
    """Makes an older Keras take a dtype policy of ours for one that it lacks.

    So files of a newer Keras load, and files that are written are the same.
    """
    path = f"keras.dtype_policies.{cls.__name__}"
    api_export.register_internal_serializable([path], cls)
    dtype_policies.ALL_OBJECTS_DICT[cls.__name__] = cls


# Arguments that older versions of Keras lack, with the values that change
# nothing. Newer versions write them into each file.
_QUANTIZED = {"quantization_config": None}
_GATE, _WINDOW = {"use_gate": False}, {"sliding_window": None}
_LOOKUP = {"salt": None, "oov_method": "floormod"}
_LATER: tuple[tuple[Any, dict[str, Any]], ...] = (
    (keras.layers.Dense, _QUANTIZED),
    (keras.layers.EinsumDense, _QUANTIZED),
    (keras.layers.EinsumDense, {"gptq_unpacked_column_size": None}),
    (keras.layers.Embedding, _QUANTIZED),
    (keras.layers.MultiHeadAttention, _GATE),
    (keras.layers.MultiHeadAttention, _WINDOW),
    (keras.layers.GroupQueryAttention, _GATE),
    (keras.layers.GroupQueryAttention, _WINDOW),
    (keras.layers.IntegerLookup, _LOOKUP),
    (keras.layers.StringLookup, _LOOKUP),
    (
        keras.layers.BatchNormalization,
        {"renorm": False, "renorm_clipping": None, "renorm_momentum": 0.99},
    ),
    (
        keras.initializers.VarianceScaling,
        {"input_axes": None, "output_axes": None},
    ),
)


def read_newer_files(classes: Any = _LATER) -> None:
    """Lets an older Keras load files that a newer one wrote.

    It refuses arguments that it does not know, also where they change nothing.
    Those are dropped from configs; others it still refuses. Keras has no
    public way: `custom_objects` are not asked for layers of its own. A class
    that knows one of the arguments is left as it is.
    """
    for cls, later in classes:
        if later.keys().isdisjoint(inspect.signature(cls.__init__).parameters):
            cls.from_config = _without(later, cls.from_config.__func__)


def _without(later, of_keras):
    """Returns a `from_config` that drops arguments that change nothing."""

    @functools.wraps(of_keras)
    def from_config(cls, config):
        kept = {
            name: value
            for name, value in config.items()
            if name not in later or value != later[name]
        }
        return of_keras(cls, kept)

    return classmethod(from_config)


def call_arguments(layer: keras.Layer) -> Iterator[tuple[tuple, dict]]:
    """Yields the arguments of each call of a layer in functional models."""
    for node in layer._inbound_nodes:
        yield node.arguments.args, node.arguments.kwargs


def outputs_of(model: keras.Model) -> Any:
    """Returns the outputs of a functional model in their structure.

    The public `output` of a model is flat, without the keys of a dictionary.
    """
    graph = getattr(model, "_functional", None) or model
    return graph._outputs_struct


def producer(tensor: Any) -> Any:
    """Returns the layer or operation that made a tensor of a model."""
    return tensor._keras_history.operation


def given_to(tensor: Any) -> Any:
    """Returns the first tensor in the call that made a tensor of a model."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index].input_tensors[0]


def producer_name(tensor: Any) -> str:
    """Returns the name of the layer that made a tensor of a model."""
    return tensor._keras_history.operation.name


def source_policy(policy: Any) -> Any:
    """Returns the float policy under a quantized one, or the policy itself."""
    return getattr(policy, "_source_name", None) or policy


def cycled_rate(optimizer: Any) -> Any:
    """Returns what an optimizer keeps for a rate: a variable or a schedule.

    The public `learning_rate` is a number or a variable, never a schedule.
    """
    return optimizer._learning_rate


def set_cycled_rate(optimizer: Any, rate: Any) -> None:
    """Sets a rate and leaves the optimizer's list of variables as it is.

    The setter of `learning_rate` drops the variable, and a checkpoint must
    have the same variables with and without the callback.
    """
    optimizer._learning_rate = rate


def callbacks_beside() -> list[Any]:
    """Returns the callbacks of the `fit` that calls a callback.

    Keras tells a callback nothing of the others, and one may not work beside
    it. The list that calls is found on the stack; in a loop without one there
    are none.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return list(caller.callbacks)
        frame = frame.f_back
    return []


def has_layout(variable: Any) -> bool:
    """Returns whether a variable was given a layout of its own."""
    return getattr(variable, "_layout", None) is not None


def in_xla_context() -> bool:
    """Returns whether TensorFlow traces a function for XLA.

    Functions that are called by a compiled one are traced without its flags.
    """
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    return (
        not tf.executing_eagerly()
        and control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        )
    )


def converter_error() -> type[Exception]:
    """Returns the class of what the converter to LiteRT raises."""
    from tensorflow.lite.python.convert_phase import ConverterError

    return ConverterError


def litert_schema() -> Any:
    """Returns the module with the schema of LiteRT files.

    The converter cannot store tables of 4 bits, so files are edited.
    """
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def numpy_for_tf2onnx() -> None:
    """Lets tf2onnx 1.17 run on NumPy 2, as `model.export` of Keras does.

    It asks for a name that NumPy no longer has.
    """
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`")
        patch_tf2onnx()


def replace_input(operation: Any, index: int, tensor: Tensor) -> None:
    """Gives an operation of a TensorFlow graph another input."""
    operation._update_input(index, tensor)


@contextlib.contextmanager
def as_if_float(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Within it, quantized layers have the float policy that they came from.

    keras-hub puts the policies of quantized layers into the config of a
    backbone, from which it would make dense layers that are quantized. Keras
    also takes the names off policies that it writes so.
    """
    quantized = [x for x in layers if x.quantization_mode is not None]
    policies = [layer._dtype_policy for layer in quantized]
    for layer, policy in zip(quantized, policies, strict=True):
        layer._dtype_policy = keras.dtype_policies.get(source_policy(policy))
    try:
        yield
    finally:
        for layer, policy in zip(quantized, policies, strict=True):
            layer._dtype_policy = policy


@contextlib.contextmanager
def unallocated() -> Iterator[None]:
    """Variables that are made within have a shape and take no memory.

    `keras.StatelessScope` is public. The list of variables that the end of the
    next scope fills is not, and they must not stay on it.
    """
    name = "uninitialized_variables"
    before = list(global_state.get_global_attribute(name) or [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, before)
