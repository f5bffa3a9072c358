"""A Keras model as a `tf.Module` with one function, named inside and out."""

from keras_embcomp._compat import every_layer
from keras_embcomp.deploy.verify import call, input_shapes, output_names
from keras_embcomp.layers.execution import for_export


def traced_function(
    model,
    preprocess=None,
    batch=None,
    sequence=None,
    input_names=None,
    file_tables=None,
    finish=None,
    variables=False,
):
    """Returns a `tf.function` that is the model, named inside and out.

    Its inputs have the names of the model's inputs, if not `input_names`, or
    `text` if a module comes before it; it returns a dict with the names of the
    model's outputs.
    Sizes that are given are fixed, as in `input_shapes`; `file_tables` and
    `variables` are for `for_export`. When the model is traced, `finish` is
    called in its graph.
    """
    import tensorflow as tf

    if preprocess is None:
        if input_names is None:
            input_names = [spec.name for spec in model.inputs]
        shapes = input_shapes(model, batch, sequence)
        specs = [
            tf.TensorSpec(shapes[spec.name], spec.dtype, name=name)
            for spec, name in zip(model.inputs, input_names, strict=True)
        ]
    else:
        specs = [tf.TensorSpec((batch,), tf.string, name="text")]
    names = output_names(model)

    def serve(*inputs):
        given = list(inputs)
        if preprocess is not None:
            given = [preprocess(inputs[0])]
        with for_export(file_tables, variables):
            outputs = dict(zip(names, call(model, given), strict=True))
        if finish is not None:
            finish()
        return outputs

    return tf.function(serve, input_signature=specs)


def traced_module(model, signatures, sizes):
    """Returns a `tf.Module` whose function `serve` is the model.

    The function is that of `traced_function`, with sizes that are fixed. Each
    weight is a variable that is tracked once. The dict `extra` of the module
    has the given functions as they are exported.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    # Layers that look words up hold tables, which are no weights.
    module.lookups = [x for x in every_layer(model) if _looks_up(x)]
    module.serve = traced_function(model, **sizes, variables=True)
    module.extra = {
        name: _exported(function) for name, function in signatures.items()
    }
    return module


def _looks_up(layer):
    return getattr(layer, "lookup_table", None) is not None


def _exported(function):
    import tensorflow as tf

    def call(*inputs):
        with for_export(variables=True):
            return function.python_function(*inputs)

    return tf.function(call, input_signature=function.input_signature)
