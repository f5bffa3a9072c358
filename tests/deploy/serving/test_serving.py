import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_embcomp import LowRankEmbedding, export_serving

pytestmark = pytest.mark.tensorflow_only


class _Letters(tf.Module):
    """Text to ids: the codes of the first four letters."""

    def __init__(self):
        super().__init__()
        self.offset = tf.Variable(1, trainable=False)

    def __call__(self, text):
        codes = tf.strings.unicode_decode(text, "UTF-8") % 40 + self.offset
        return codes.to_tensor(shape=(None, 4))


def classifier(vocabulary=50, rank=3):
    ids = keras.Input((4,), dtype="int32", name="ids")
    x = LowRankEmbedding(vocabulary, 8, rank, mask_zero=True)(ids)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(ids, keras.layers.Dense(3, name="classes")(x))


def served(folder):
    return tf.saved_model.load(str(folder)).signatures["serving_default"]


def test_serves_ids_by_name(tmp_path):
    model = classifier()
    folder = export_serving(model, tmp_path / "model", version=7)
    assert folder == tmp_path / "model" / "7"
    ids = tf.constant([[1, 2, 49, 0]])
    found = served(folder)(ids=ids)["classes"]
    np.testing.assert_allclose(found, model(ids), atol=1e-6)


def test_serves_ids_of_other_integers(tmp_path):
    model = classifier()
    folder = export_serving(model, tmp_path / "model")
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == {"serving_default", "serving_default_int64"}
    ids = np.array([[1, 2, 49, 0]])
    expected = served(folder)(ids=tf.constant(ids, "int32"))
    found = signatures["serving_default_int64"](ids=tf.constant(ids))
    np.testing.assert_array_equal(found["classes"], expected["classes"])


def test_serves_ids_of_both_widths_beside_text(tmp_path):
    model = classifier()
    entry = keras.Input((4,), dtype="int64", name="ids")
    folder = export_serving(
        keras.Model(entry, model(entry)),
        tmp_path / "model",
        preprocess=_Letters(),
    )
    ids = np.array([[1, 2, 49, 0]])
    signatures = tf.saved_model.load(str(folder)).signatures
    for dtype in ("int32", "int64"):
        serve = signatures[f"serving_default_{dtype}"]
        (found,) = serve(ids=tf.constant(ids, dtype)).values()
        np.testing.assert_allclose(found, model(ids), atol=1e-6)
    assert set(signatures) == {
        "serving_default",
        "serving_default_int32",
        "serving_default_int64",
    }


def test_ids_of_64_bits_are_never_cut(tmp_path):
    folder = export_serving(classifier(), tmp_path / "model")
    serve = tf.saved_model.load(str(folder)).signatures["serving_default_int64"]
    for wrong in (2**32 + 5, -(2**32) + 5):
        with pytest.raises(tf.errors.InvalidArgumentError, match="not in"):
            serve(ids=tf.constant([[1, 2, 3, wrong]]))


def test_serves_text_through_its_preprocessing(tmp_path):
    model, letters = classifier(), _Letters()
    folder = export_serving(model, tmp_path / "model", preprocess=letters)
    text = tf.constant(["some", "text"])
    found = served(folder)(text=text)["classes"]
    np.testing.assert_allclose(found, model(letters(text)), atol=1e-6)


@pytest.mark.parametrize("mode", ["int", "tf_idf"])
def test_serves_text_through_a_keras_layer(mode, tmp_path):
    texts = keras.layers.TextVectorization(
        output_mode=mode, output_sequence_length=4 if mode == "int" else None
    )
    texts.adapt(["a good film", "a bad one", "so so"])
    model = classifier()
    if mode == "tf_idf":
        model = keras.Sequential(
            [keras.Input((texts.vocabulary_size(),)), keras.layers.Dense(3)]
        )
    folder = export_serving(model, tmp_path / "model", preprocess=texts)
    text = tf.constant(["a good one", "", "nothing that it knows"])
    (found,) = served(folder)(text=text).values()
    np.testing.assert_allclose(found, model(texts(text)), atol=1e-6)
    assert not list((folder / "assets").iterdir())


def test_what_makes_no_input_of_text_is_refused(tmp_path):
    for wrong in (len, tf.Module()):
        with pytest.raises(ValueError, match="`preprocess` must be a `tf.Mod"):
            export_serving(classifier(), tmp_path / "model", preprocess=wrong)
    short = keras.layers.TextVectorization(output_sequence_length=3)
    short.adapt(["a good film"])
    with pytest.raises(ValueError, match="shape"):
        export_serving(classifier(), tmp_path / "model", preprocess=short)
    assert not list(tmp_path.iterdir())


def test_functions_that_call_python_are_refused(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def length(text):
        return {"length": tf.numpy_function(np.size, [text], "int64")}

    with pytest.raises(ValueError, match="must not call Python functions"):
        export_serving(
            classifier(), tmp_path / "model", signatures={"length": length}
        )
    assert not list(tmp_path.iterdir())


def best_classes(model, letters):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def best(text):
        scores, classes = tf.math.top_k(model(letters(text)), 2)
        names = tf.constant(["a", "b", "c"])
        return {"scores": scores, "names": tf.gather(names, classes)}

    return best


def test_serves_more_signatures(tmp_path):
    model, letters = classifier(), _Letters()
    best = best_classes(model, letters)
    folder = export_serving(
        model,
        tmp_path / "model",
        preprocess=letters,
        signatures={"best": best},
    )
    text = tf.constant(["some", "text"])
    found = tf.saved_model.load(str(folder)).signatures["best"](text=text)
    expected = best(text)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-6)
    np.testing.assert_array_equal(found["names"], expected["names"])
    np.testing.assert_array_equal(expected["names"].shape, (2, 2))


def test_serves_a_signature_of_any_shape(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "text")])
    def length(text):
        return {"length": tf.strings.length(text)}

    folder = export_serving(
        classifier(), tmp_path / "model", signatures={"length": length}
    )
    served_length = tf.saved_model.load(str(folder)).signatures["length"]
    assert int(served_length(text=tf.constant("four"))["length"]) == 4


def test_a_signature_without_its_inputs_is_refused(tmp_path):
    model, letters = classifier(), _Letters()
    best = best_classes(model, letters)
    unnamed = tf.function(
        best.python_function, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    text = tf.TensorSpec([None], tf.string, "text")
    bare = tf.function(tf.strings.length, input_signature=[text])
    with pytest.raises(ValueError, match="`signatures` must return dicts"):
        export_serving(model, tmp_path / "model", signatures={"best": bare})
    for signatures in (
        {"best": best.python_function},
        {"best": unnamed},
        {"serving_default": best},
        {"serving_default_int64": best},
    ):
        with pytest.raises(ValueError, match="`signatures` must map names"):
            export_serving(
                model,
                tmp_path / "model",
                preprocess=letters,
                signatures=signatures,
            )
    assert not list(tmp_path.iterdir())


def test_stores_each_weight_once(tmp_path):
    model = classifier(vocabulary=20_000, rank=8)
    folder = export_serving(model, tmp_path / "model")
    written = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    weights = 4 * model.count_params()
    assert weights < written < weights + 100_000


def test_a_version_is_never_overwritten(tmp_path):
    export_serving(classifier(), tmp_path / "model", version=1)
    with pytest.raises(ValueError, match="`version` must be new. Received: v"):
        export_serving(classifier(), tmp_path / "model", version=1)
    assert [f.name for f in (tmp_path / "model").iterdir()] == ["1"]


def test_takes_the_next_version_by_default(tmp_path):
    model = classifier()
    assert export_serving(model, tmp_path / "model").name == "1"
    (tmp_path / "model" / "009").mkdir()
    (tmp_path / "model" / "notes").mkdir()
    assert export_serving(model, tmp_path / "model").name == "10"
    with pytest.raises(ValueError, match="`version` must be new"):
        export_serving(model, tmp_path / "model", version=9)


@pytest.mark.parametrize("version", [0, -1, "1", 1.5])
def test_wrong_versions_are_refused(tmp_path, version):
    with pytest.raises(
        ValueError, match="`version` must be a positive integer"
    ):
        export_serving(classifier(), tmp_path / "model", version=version)
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "model"
    path.write_text("not a folder")
    for wrong in (path, "/proc/model"):
        with pytest.raises(ValueError, match="`path` must be a writable fold"):
            export_serving(classifier(), wrong)


def test_a_subclassed_model_is_refused(tmp_path):
    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="a subclassed one has no named"):
        export_serving(Subclassed(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_preprocessing_needs_a_model_of_one_input(tmp_path):
    one, two = keras.Input((2,), name="one"), keras.Input((2,), name="two")
    model = keras.Model([one, two], keras.layers.Add()([one, two]))
    with pytest.raises(ValueError, match="one input. Received: a model with 2"):
        export_serving(model, tmp_path / "model", preprocess=_Letters())
    export_serving(model, tmp_path / "model")
