"""Fine-tunes a student's compressed tables together with all of the student."""

import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import every_layer
from keras_embcomp._types import Tensor
from keras_embcomp.checks import finite_table
from keras_embcomp.layers.base import Compressed, CompressedEmbedding
from keras_embcomp.layers.from_keras import dense_parts, embedding_parts


class EmbeddingDistiller(keras.Model):
    """Trains a student whose tables are to stay near those of a teacher.

    The loss is `alpha * reconstruction + (1 - alpha) * task`. The task's loss
    is what `compile` asks for. The reconstruction is the mean over the whole
    vocabulary of the distances, not squared, between a layer's rows and the
    teacher's, summed over the compressed layers. All weights of the student are
    trained, the teacher's tables are not. Both parts are logged, as `task_loss`
    and `reconstruction_loss`.

    A step costs what the layers take to give all of their rows, besides one of
    the student. Afterwards `student` is the model to save and to export: it has
    nothing of the teacher.

    Args:
        student: A built Keras model with compressed layers, once or nested.
        teacher: Where the tables come from: a built Keras model whose layers
            have the names of the student's compressed ones, as `from_layer`
            keeps them; or a dictionary of arrays of shape `(vocabulary, width)`
            by name; or one array if the student has one compressed layer. A
            layer that a dictionary does not name is not held to any table.
        alpha: Number from 0 to 1. Weight of the reconstruction.
        output_loss: A `keras.distillation.DistillationLoss`, such as
            `keras.distillation.LogitsDistillation()` for models that return
            logits, between the outputs of a teacher that is a model and the
            student's. The teacher is frozen then.
        output_weight: Number from 0 to 1. Weight of `output_loss` in the task's
            loss; the labels' loss has the rest.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Example:

    >>> student = keras.Sequential([
    ...     keras.Input((3,), dtype="int32"),
    ...     DistilledEmbedding(1_000, 64, rank=8, name="words"),
    ...     keras.layers.Flatten(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> table = np.random.normal(size=(1_000, 64))
    >>> distiller = EmbeddingDistiller(student, {"words": table})
    >>> distiller.compile("adam", "mse")
    >>> x, y = np.zeros((32, 3), "int32"), np.zeros((32, 2))
    >>> history = distiller.fit(x, y, verbose=0).history
    >>> sorted(history)
    ['loss', 'reconstruction_loss', 'task_loss']

    Reference:
    - [Lioutas et al., 2020](https://arxiv.org/abs/1910.06720), Eq. 5 and 6
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: Any,
        alpha: float = 0.01,
        output_loss: Any = None,
        output_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        if not isinstance(student, keras.Model) or not student.built:
            raise ValueError(
                "`student` must be a built Keras model. Received: "
                f"student={student!r}"
            )
        # Losses are scaled if those of the student would be.
        super().__init__(**{"dtype": student.dtype_policy, **kwargs})
        # Float ids must reach the student as they are.
        self.autocast = False
        self.alpha = _share("alpha", alpha)
        self.output_weight = _share("output_weight", output_weight)
        if output_loss is not None:
            _check_output_loss(output_loss, teacher)
            output_loss = of_probabilities(output_loss)
        self.student = student
        self.output_loss = output_loss
        layers = _compressed_layers(student)
        tables = _tables_of(teacher, layers)
        if not tables:
            raise ValueError(
                "`teacher` must hold a table. Received: an empty dictionary"
            )
        self.teacher = None
        if output_loss is not None:
            output_loss.validate_model_compatibility(teacher, student)
            teacher.trainable = False
            self.teacher = teacher
        self.layers_and_tables = [
            (layers[name], self._keep(name, table))
            for name, table in tables.items()
        ]
        self.task_tracker = keras.metrics.Mean("task_loss")
        self.reconstruction_tracker = keras.metrics.Mean("reconstruction_loss")
        self.built = True

    def _keep(self, name, table):
        return self.add_weight(
            name=f"teacher_{name}",
            shape=table.shape,
            dtype="float32",
            initializer=lambda *_, **__: table,
            trainable=False,
            autocast=False,
        )

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)

    @property
    def output_names(self):
        """The names of the student's outputs, for dictionaries of losses."""
        return getattr(self.student, "output_names", None)

    def get_config(self):
        raise NotImplementedError(
            "A distiller is not saved: save its `student`, or its weights with "
            "`save_weights`."
        )

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        task = super().compute_loss(x, y, y_pred, sample_weight, training)
        if self.teacher is not None:
            outputs = ops.stop_gradient(self.teacher(x, training=False))
            imitation = self.output_loss.compute_loss(outputs, y_pred)
            task = (1 - self.output_weight) * task
            task = task + self.output_weight * imitation
        reconstruction = sum(
            mean_distance(layer, table)
            for layer, table in self.layers_and_tables
        )
        self.task_tracker.update_state(task)
        self.reconstruction_tracker.update_state(reconstruction)
        return self.alpha * reconstruction + (1 - self.alpha) * task


def mean_distance(layer: Compressed, table: Tensor) -> Tensor:
    """Returns the mean distance of a layer's rows to those of a table.

    Args:
        layer: A built compressed layer.
        table: Tensor of its `dense_shape`.
    """
    if isinstance(layer, CompressedEmbedding):
        rows = layer.rows(ops.arange(layer.dense_shape[0], dtype="int32"))
    else:
        ones = ops.eye(layer.dense_shape[1], dtype=layer.compute_dtype)
        rows = ops.transpose(layer._logits(ones))
    squares = ops.sum(ops.square(ops.cast(rows, "float32") - table), axis=1)
    # The root has no gradient at 0.
    return ops.mean(ops.sqrt(ops.maximum(squares, 1e-20)))


def _share(name, value):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise ValueError(
            f"`{name}` must be from 0 to 1. Received: {name}={value}"
        )
    return float(value)


def _check_output_loss(output_loss, teacher):
    if not isinstance(teacher, keras.Model):
        raise ValueError(
            "`teacher` must be a model if `output_loss` is given. "
            f"Received: teacher of type {type(teacher).__name__}"
        )
    if getattr(output_loss, "teacher_layer_name", None) or getattr(
        output_loss, "student_layer_name", None
    ):
        raise ValueError(
            "`output_loss` must compare the outputs of the models; for those "
            "of layers, use `keras.distillation.Distiller`. "
            f"Received: output_loss={output_loss!r}"
        )


def of_probabilities(output_loss: Any) -> Any:
    """Returns a loss of logits whose divergence is that of probabilities.

    The `LogitsDistillation` of Keras 3.15 takes the softmax before the class
    `KLDivergence`, but makes a function of the name `"kl_divergence"`, which is
    its default, and gives that the logits themselves.
    """
    distillation = getattr(keras, "distillation", None)
    if type(output_loss) is not getattr(
        distillation, "LogitsDistillation", None
    ):
        return output_loss
    losses = keras.tree.map_structure(
        lambda loss: (
            keras.losses.KLDivergence()
            if loss is keras.losses.kl_divergence
            else loss
        ),
        output_loss.loss,
    )
    return type(output_loss)(output_loss.temperature, losses)


def _compressed_layers(student):
    """Returns the compressed layers of a model by name."""
    every = every_layer(student)
    # A layer that is shared by nested models comes once for each.
    layers = {id(x): x for x in every if isinstance(x, Compressed)}.values()
    if not layers:
        kinds = sorted({type(x).__name__ for x in every})
        raise ValueError(
            "`student` must have a compressed layer. Received: a model with "
            f"layers of types {kinds}"
        )
    named = {layer.name: layer for layer in layers}
    if len(named) < len(layers):
        raise ValueError(
            "The compressed layers of `student` must have different names. "
            f"Received: {sorted(layer.name for layer in layers)}"
        )
    return named


def _tables_of(teacher, layers):
    """Returns the teacher's tables by the names of compressed layers."""
    if isinstance(teacher, keras.Model):
        tables = _tables_of_model(teacher, layers)
    elif isinstance(teacher, dict):
        tables = teacher
    elif len(layers) == 1 and hasattr(teacher, "__array__"):
        tables = {name: teacher for name in layers}
    else:
        raise ValueError(
            "`teacher` must be a model, a dictionary of tables by name, or an "
            "array for a `student` with one compressed layer. Received: "
            f"teacher of type {type(teacher).__name__}, compressed layers "
            f"{sorted(layers)}"
        )
    checked = {}
    for name, table in tables.items():
        if name not in layers:
            raise ValueError(
                "`teacher` must name compressed layers of `student`, which are "
                f"{sorted(layers)}. Received: {name!r}"
            )
        table = finite_table("teacher", table)
        if table.shape != layers[name].dense_shape:
            raise ValueError(
                "A table of `teacher` must have the shape of the layer's. "
                f"Received: a table of shape {table.shape} for {name!r}, "
                f"which has {layers[name].dense_shape}"
            )
        checked[name] = np.array(table, "float32")
    return checked


def _tables_of_model(teacher, layers):
    found = {layer.name: layer for layer in every_layer(teacher)}
    missing = sorted(set(layers) - set(found))
    if missing:
        raise ValueError(
            "`teacher` must have a layer for each compressed layer of "
            f"`student`. Received: none named {missing}; its layers are "
            f"{sorted(found)}"
        )
    tables = {}
    for name, layer in layers.items():
        if isinstance(found[name], Compressed):
            tables[name] = found[name].to_dense()
            continue
        embedding = isinstance(layer, CompressedEmbedding)
        parts = embedding_parts if embedding else dense_parts
        tables[name] = parts(found[name])[0]
    return tables
