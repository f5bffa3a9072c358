"""A Keras model as a `tf.Module` with one function, named inside and out."""


def traced_module(model, preprocess=None):
    """Returns a `tf.Module` whose function `serve` is the model.

    Its inputs have the names of the model's inputs, or `text` if a module
    comes before it; it returns a dict with the names of the model's outputs.
    Each weight is tracked once.
    """
    import tensorflow as tf

    if preprocess is None:
        specs = [
            tf.TensorSpec(spec.shape, spec.dtype, name=spec.name)
            for spec in model.inputs
        ]
    else:
        specs = [tf.TensorSpec((None,), tf.string, name="text")]

    def serve(*inputs):
        inputs = list(inputs)
        if preprocess is not None:
            inputs = [preprocess(inputs[0])]
        outputs = model(
            inputs[0] if len(inputs) == 1 else inputs, training=False
        )
        return dict(
            zip(model.output_names, tf.nest.flatten(outputs), strict=True)
        )

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.preprocess = preprocess
    module.serve = tf.function(serve, input_signature=specs)
    return module
