"""What the backend in use is about to do with a call."""

import contextlib
import contextvars

import keras

_exporting = contextvars.ContextVar("exporting", default=False)
_file_tables = contextvars.ContextVar("file_tables", default=None)
_variables = contextvars.ContextVar("variables", default=False)


@contextlib.contextmanager
def for_export(file_tables=None, variables=False):
    """Within it, calls are traced into a file that is to be small.

    Lookups are plain gathers, which refuse negative ids, and nothing is
    computed of weights alone that a converter would store as a constant.

    Args:
        file_tables: What puts tables into the file in a form of its own, with
            methods `rows(table, ids)` and `product(hidden, table)`; `None` if
            they are ordinary weights there.
        variables: Whether weights stay variables there, of which no converter
            computes anything beforehand.
    """
    changed = {
        _exporting: True,
        _file_tables: file_tables,
        _variables: variables,
    }
    tokens = [(name, name.set(value)) for name, value in changed.items()]
    try:
        yield
    finally:
        for name, token in tokens:
            name.reset(token)


def exporting() -> bool:
    """Returns whether a call is being traced into a file."""
    return _exporting.get()


def tables_in_file():
    """Returns the `file_tables` of the file that a call is traced into."""
    return _file_tables.get()


def compiled_by_tensorflow() -> bool:
    """Returns whether TensorFlow traces a call for XLA."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    return (
        not tf.executing_eagerly()
        and control_flow_util.GraphOrParentsInXlaContext(
            tf.compat.v1.get_default_graph()
        )
    )


def unfolded_range(tensor, start, end):
    """Returns `tf.range(start, end)` that no converter knows to be constant.

    What is computed of it is computed in the file, not stored there.

    Args:
        tensor: What the file is given when it runs.
        start: Integer. The first number.
        end: Integer. The number after the last.
    """
    import tensorflow as tf

    first = tf.cast(tf.reshape(tensor, (-1,))[0], "float32")
    zero = tf.cast(first > float("inf"), "int32")
    return tf.reshape(tf.range(start + zero, end + zero), (end - start,))


def unfolded_rows(table, tensor, start=0, end=None):
    """Returns a range of rows that no converter knows to be constant.

    A converter would store what can be computed of them, a cast for one.

    Args:
        table: Tensor of weights.
        tensor: What the file is given when it runs.
        start: Integer. The first row.
        end: Integer. The row after the last; `None` takes all of them.
    """
    import tensorflow as tf

    end = table.shape[0] if end is None else end
    if _variables.get():
        rows = tf.convert_to_tensor(table)
        return rows if end - start == table.shape[0] else rows[start:end]
    return tf.gather(table, unfolded_range(tensor, start, end))


def known_values(tensor):
    """Returns a tensor as an array; `None` where a call is being compiled."""
    backend = keras.backend.backend()
    if isinstance(tensor, keras.KerasTensor):
        return None
    if backend == "jax":
        import jax

        if isinstance(tensor, jax.core.Tracer):
            return None
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.is_tensor(tensor) and not hasattr(tensor, "numpy"):
            return None
    return keras.ops.convert_to_numpy(tensor)
