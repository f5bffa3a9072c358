"""Files of LiteRT: what the converter writes, and what it holds."""

import re
import tempfile

from keras_embcomp.deploy.tracing import traced_function

_ACTIVATIONS = ("Relu", "Relu6", "Maximum", "Minimum")
_SAME_NUMBERS = ("Identity", "Reshape", "Transpose")


def converted(models, sizes) -> bytes:
    """Returns a file with a signature for each model of a dict.

    Raises:
        ValueError: if a model needs an operation that is not builtin.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    # Without a module that has the weights the converter writes none.
    module = tf.Module()
    module.functions = {
        name: traced_function(model, **sizes, finish=_keep_activations)
        for name, model in models.items()
    }
    module.weights = [v.value for m in models.values() for v in m.variables]
    functions = [
        function.get_concrete_function()
        for function in module.functions.values()
    ]
    if len(functions) == 1:
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            functions, module
        )
        return _converted(converter, ConverterError)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=module.functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(models)
        )
        return _converted(converter, ConverterError)


def _converted(converter, error_class):
    import tensorflow as tf

    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        return converter.convert()
    except error_class as error:
        raise ValueError(
            "`model` must need builtin LiteRT operations only. "
            f"Received: a model that needs {_needed(str(error))}. "
            f"The converter says: {error}"
        ) from error


def _needed(message):
    if "TensorList" in message:
        return (
            "lists of tensors, as a recurrent layer does unless `batch` is "
            "given or it has `unroll=True`"
        )
    return ", ".join(re.findall(r"(?:Select|Custom) [Oo]ps: (.*)", message))


def _keep_activations():
    """Rewrites what the converter of TensorFlow 2.21 would leave out.

    It drops a ReLU, or a comparison with a number, after a product of two
    matrices of which the second is computed; not after one of tensors of rank
    three.
    """
    import tensorflow as tf

    for op in tf.compat.v1.get_default_graph().get_operations():
        if op.type not in _ACTIVATIONS:
            continue
        product = op.inputs[0].op
        while product.type in _SAME_NUMBERS:
            op, product = product, product.inputs[0].op
        if product.type != "MatMul" or _is_weight(product.inputs[1]):
            continue
        left, right = product.inputs
        again = tf.matmul(
            tf.expand_dims(left, 0),
            tf.expand_dims(right, 0),
            transpose_a=product.get_attr("transpose_a"),
            transpose_b=product.get_attr("transpose_b"),
        )
        op._update_input(0, tf.squeeze(again, 0))


def _is_weight(tensor):
    """Returns whether the converter will know a tensor to be constant."""
    op = tensor.op
    while op.type in _SAME_NUMBERS or (
        op.type == "Cast" and op.inputs[0].dtype.is_floating
    ):
        op = op.inputs[0].op
    return op.type in ("Const", "ReadVariableOp")


def builtin_operations(content: bytes) -> tuple[str, ...]:
    """Returns the names of a flatbuffer's operations, or raises.

    Raises:
        ValueError: if one is custom or Flex, or reads a variable: then the
            weights are not in the file.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if not name.startswith("_")
    }
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    operations = {
        names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    }
    refused = operations & {"CUSTOM", "VAR_HANDLE", "READ_VARIABLE"}
    if refused:
        raise ValueError(
            "`model` must need builtin LiteRT operations only. "
            f"Received: a model that needs {sorted(refused)}"
        )
    return tuple(sorted(operations))
