"""As `tpu_controls.py`, on TensorFlow.

PYTHONPATH=benchmarks KERAS_BACKEND=tensorflow \\
    python tests/support/tpu_controls_tensorflow.py
"""

import json

import accelerator_compile  # first: it sets what JAX reads when it is imported

# isort: split
import tensorflow as tf
from tensorflow_compile import compiled


def outcome(function, *arguments):
    """Returns what is found in a program, or the error of TensorFlow."""
    (chip, *_) = accelerator_compile.chips_of("v5e", 4)
    try:
        text, _ = compiled(function, arguments, chip)
    except ValueError as error:
        return str(error)
    return accelerator_compile.found_in(text)


def main():
    numbers, ids = tf.ones(8), tf.ones(4_096, "int64")
    found = {
        "nothing": outcome(lambda x: tf.sin(x), numbers),
        "callback": outcome(
            lambda x: tf.numpy_function(abs, [x], "float32"), numbers
        ),
        "float64": outcome(lambda x: tf.sin(x), tf.ones(8, "float64")),
        "int64": outcome(lambda ids: ids // 3, ids),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
