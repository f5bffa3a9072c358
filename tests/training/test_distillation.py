"""The distiller: its losses, on any backend, and what is left of a teacher."""

import keras
import numpy as np
import pytest
from cases import EMBEDDINGS, SOFTMAXES, VOCABULARY, WIDTH
from keras import ops

from keras_embcomp import (
    DistilledEmbedding,
    EmbeddingDistiller,
    LowRankEmbedding,
    LowRankSoftmax,
)
from keras_embcomp.training.distillation import mean_distance


def dense_model():
    ids = keras.Input((4,), dtype="int32")
    words = keras.layers.Embedding(30, 8, mask_zero=True, name="words")
    x = keras.layers.GRU(8, name="memory")(words(ids))
    head = keras.layers.Dense(30, name="head")
    return keras.Model(ids, head(x))


def student_of(teacher, rank=3):
    ids = keras.Input((4,), dtype="int32")
    words = LowRankEmbedding.from_layer(teacher.get_layer("words"), rank=rank)
    head = LowRankSoftmax.from_layer(teacher.get_layer("head"), rank=rank)
    x = keras.layers.GRU(8, name="memory")(words(ids))
    return keras.Model(ids, head(x))


def some_data(generator, count=64):
    x = generator.integers(0, 30, (count, 4)).astype("int32")
    return x, generator.integers(0, 30, count)


def distance(layer, table):
    return np.mean(np.linalg.norm(layer.to_dense() - table, axis=1))


@pytest.mark.parametrize("case", EMBEDDINGS + SOFTMAXES, ids=str)
def test_distances_are_those_of_dense_tables(case, generator):
    table = generator.normal(size=(VOCABULARY, WIDTH)).astype("float32")
    layer = case.layer.from_dense(table, **case.growing[-1])
    for weight in layer.trainable_weights:
        noise = 0.1 * generator.normal(size=weight.shape)
        weight.assign_add(noise.astype("float32"))
    np.testing.assert_allclose(
        mean_distance(layer, table), distance(layer, table), rtol=1e-4
    )


def test_a_layer_that_is_exact_has_finite_gradients(generator):
    table = generator.normal(size=(30, 8)).astype("float32")
    student = keras.Sequential(
        [keras.Input((4,), dtype="int32"), LowRankEmbedding(30, 8, 8)]
    )
    student.layers[0].embeddings.assign(table)
    student.layers[0].projection.assign(np.eye(8))
    distiller = EmbeddingDistiller(student, table, alpha=1.0)
    distiller.compile("sgd", "mse")
    x, _ = some_data(generator)
    distiller.fit(x, np.zeros((64, 4, 8)), verbose=0)
    np.testing.assert_allclose(student.layers[0].to_dense(), table, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_weighs_both_parts(alpha, generator):
    teacher = dense_model()
    student = student_of(teacher)
    x, y = some_data(generator)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile("sgd", loss)
    task = student.evaluate(x, y, verbose=0)
    tables = {
        "words": ops.convert_to_numpy(teacher.get_layer("words").embeddings),
        "head": ops.convert_to_numpy(teacher.get_layer("head").kernel).T,
    }
    expected = sum(
        distance(student.get_layer(name), table)
        for name, table in tables.items()
    )
    for source in (teacher, tables):
        distiller = EmbeddingDistiller(student, source, alpha=alpha)
        distiller.compile("sgd", loss, metrics=["accuracy"])
        found = distiller.evaluate(x, y, verbose=0, return_dict=True)
        assert sorted(found) == [
            "accuracy",
            "loss",
            "reconstruction_loss",
            "task_loss",
        ]
        np.testing.assert_allclose(found["task_loss"], task, rtol=1e-5)
        np.testing.assert_allclose(
            found["reconstruction_loss"], expected, rtol=1e-4
        )
        total = alpha * expected + (1 - alpha) * task
        np.testing.assert_allclose(found["loss"], total, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_step_is_one_along_the_gradient_of_the_loss(
    steps, jit_compile, generator
):
    """Against a student that is trained with the loss written out."""
    teacher = dense_model()
    student, same = student_of(teacher), student_of(teacher)
    same.set_weights(student.get_weights())
    table = ops.convert_to_numpy(teacher.get_layer("words").embeddings)
    x, y = some_data(generator)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    distiller = EmbeddingDistiller(student, {"words": table}, alpha=0.25)
    distiller.compile(
        keras.optimizers.SGD(0.1),
        loss,
        steps_per_execution=steps,
        jit_compile=jit_compile,
    )
    distiller.fit(x, y, batch_size=16, shuffle=False, verbose=0)

    words = same.get_layer("words")

    def regularizer(embeddings):
        rows = ops.matmul(embeddings, words.projection) - table
        return ops.mean(ops.sqrt(ops.sum(rows**2, axis=1)))

    class Written(keras.Model):
        def call(self, x):
            return same(x)

        def compute_loss(self, x, y, y_pred, sample_weight, training=True):
            return 0.75 * ops.mean(
                ops.sparse_categorical_crossentropy(y, y_pred, from_logits=True)
            ) + 0.25 * regularizer(words.embeddings)

    written = Written()
    written.same = same
    written.compile(keras.optimizers.SGD(0.1))
    written.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    for found, expected in zip(
        student.get_weights(), same.get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_student_comes_nearer_to_the_teacher(generator):
    table = generator.normal(size=(30, 8)).astype("float32")
    student = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            DistilledEmbedding(30, 8, 6, hidden_dim=16, name="words"),
            keras.layers.Flatten(),
            keras.layers.Dense(30),
        ]
    )
    distiller = EmbeddingDistiller(student, table, alpha=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.Adam(1e-2), loss)
    history = distiller.fit(*some_data(generator), epochs=20, verbose=0)
    losses = history.history["reconstruction_loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_a_layer_that_nested_models_share_counts_once(generator):
    words = LowRankEmbedding(30, 8, 3, name="words")
    inner = keras.Input((4,), dtype="int32")
    part = keras.Model(inner, words(inner))
    ids = keras.Input((4,), dtype="int32")
    model = keras.Model(ids, words(part(ids), reverse=True))
    distiller = EmbeddingDistiller(model, np.zeros((30, 8)), alpha=1.0)
    distiller.compile("sgd", "mse")
    x, _ = some_data(generator)
    found = distiller.evaluate(x, np.zeros((64, 4, 30)), verbose=0)
    expected = distance(words, np.zeros((30, 8)))
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_masks_and_sample_weights_reach_the_loss(generator):
    ids = keras.Input((4,), dtype="int32")
    words = LowRankEmbedding(30, 8, 3, mask_zero=True, name="words")
    model = keras.Model(ids, keras.layers.Dense(5)(words(ids)))
    x, _ = some_data(generator)
    x[:, 2:] = 0
    y = generator.integers(0, 5, (64, 4))
    weights = generator.uniform(size=(64, 4))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    expected = model.evaluate(x, y, sample_weight=weights, verbose=0)
    distiller = EmbeddingDistiller(model, words.to_dense())
    distiller.compile("sgd", loss)
    found = distiller.evaluate(
        x, y, sample_weight=weights, verbose=0, return_dict=True
    )
    np.testing.assert_allclose(found["task_loss"], expected, rtol=1e-5)


def test_the_student_is_saved_without_the_teacher(generator, tmp_path):
    teacher = dense_model()
    student = student_of(teacher)
    distiller = EmbeddingDistiller(student, teacher)
    distiller.compile("adam", "mse")
    x, _ = some_data(generator)
    distiller.fit(x, np.zeros((64, 30)), verbose=0)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded(x), student(x))
    assert (tmp_path / "student.keras").stat().st_size < 40_000


def divergence(logits, others, temperature):
    """Returns the mean divergence of softmaxes, which Keras' default is not."""
    one, other = (
        np.asarray(keras.ops.convert_to_numpy(x), "float64") / temperature
        for x in (logits, others)
    )
    one, other = (
        x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (one, other)
    )
    return np.mean(np.sum(np.exp(one) * (one - other), axis=-1))


def test_a_teachers_outputs_may_be_learned_too(generator):
    teacher = dense_model()
    student = student_of(teacher)
    before = teacher.get_weights()
    x, y = some_data(generator)
    output_loss = keras.distillation.LogitsDistillation(2.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = EmbeddingDistiller(
        student, teacher, output_loss=output_loss, output_weight=0.8
    )
    distiller.compile(keras.optimizers.Adam(1e-2), loss)
    found = distiller.evaluate(x, y, verbose=0, return_dict=True)
    student.compile("sgd", loss)
    labels = student.evaluate(x, y, verbose=0)
    imitation = 4 * divergence(teacher(x), student(x), 2.0)
    np.testing.assert_allclose(
        found["task_loss"], 0.2 * labels + 0.8 * imitation, rtol=1e-4
    )
    distiller.fit(x, y, epochs=3, verbose=0)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_says_what_is_wrong(generator):
    teacher = dense_model()
    student = student_of(teacher)
    table = np.zeros((30, 8))
    for arguments, message in (
        ((teacher, teacher), "must have a compressed layer. Received: a model"),
        ((student, table), "compressed layers ['head', 'words']"),
        ((student, {"word": table}), "are ['head', 'words']. Received: 'word'"),
        (
            (student, {"words": table[1:]}),
            "a table of shape (29, 8) for 'words', which has (30, 8)",
        ),
        ((student, {}), "must hold a table. Received: an empty dictionary"),
        ((student, teacher, "a"), "from 0 to 1. Received: alpha=a"),
        ((student, None), "Received: teacher of type NoneType"),
        ((keras.Sequential(), teacher), "must be a built Keras model"),
        ((student, teacher, 1.5), "from 0 to 1. Received: alpha=1.5"),
    ):
        with pytest.raises(ValueError) as error:
            EmbeddingDistiller(*arguments)
        assert message in str(error.value)
    with pytest.raises(ValueError, match="must be a model if `output_loss`"):
        EmbeddingDistiller(
            student, {}, output_loss=keras.distillation.LogitsDistillation()
        )
    renamed = keras.Sequential([keras.layers.Embedding(30, 8, name="other")])
    with pytest.raises(ValueError, match=r"none named \['head', 'words'\]"):
        EmbeddingDistiller(student, renamed)
    features = keras.distillation.FeatureDistillation(
        loss="mse", teacher_layer_name="memory", student_layer_name="memory"
    )
    with pytest.raises(ValueError, match="must compare the outputs"):
        EmbeddingDistiller(student, teacher, output_loss=features)
    with pytest.raises(NotImplementedError, match="save its `student`"):
        EmbeddingDistiller(student, teacher).get_config()


def test_losses_of_several_outputs_have_their_names(generator):
    ids = keras.Input((4,), dtype="int32")
    words = LowRankEmbedding(30, 8, 3)(ids)
    outputs = [keras.layers.Dense(2, name=name)(words) for name in "ab"]
    student = keras.Model(ids, outputs)
    distiller = EmbeddingDistiller(student, np.zeros((30, 8)))
    distiller.compile("sgd", {"a": "mse", "b": "mae"})
    x, _ = some_data(generator)
    y = {name: np.ones((64, 4, 2)) for name in "ab"}
    found = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert {"a_loss", "b_loss"} < set(found)


def test_float_ids_and_loss_scaling_are_the_students(generator):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        ids = keras.Input((1,))
        student = keras.Model(ids, LowRankEmbedding(5_000, 8, 3)(ids))
    finally:
        keras.config.set_dtype_policy("float32")
    words = student.layers[-1].to_dense()
    distiller = EmbeddingDistiller(student, words)
    found = distiller(np.array([[4_097.0], [4_999.0]], "float32"))
    np.testing.assert_allclose(found[:, 0], words[[4_097, 4_999]], atol=1e-3)
    distiller.compile("adam", "mse")
    assert type(distiller.optimizer).__name__ == "LossScaleOptimizer"
