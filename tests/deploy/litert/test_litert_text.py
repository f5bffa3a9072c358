"""LiteRT files that take text."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text as tf_text
from ai_edge_litert.interpreter import InterpreterWithCustomOps

from keras_embcomp import TTEmbedding, export_litert

pytestmark = pytest.mark.tensorflow_only

PIECES = ["[PAD]", "[UNK]", "the", "movie", "great", "##s", "!", "naive"]
TEXTS = np.array(["The MOVIES great!", "naïve 東京", ""])


class Pieces(tf.Module):
    """Text to ids of word pieces, in lower case and without accents."""

    def __init__(self, lower=None):
        super().__init__()
        self.lower = lower
        self.tokenizer = tf_text.FastBertTokenizer(
            PIECES,
            token_out_type=tf.int32,
            lower_case_nfd_strip_accents=lower is None,
        )

    def __call__(self, texts):
        if self.lower is not None:
            texts = self.lower(texts)
        ids = self.tokenizer.tokenize(texts)
        return ids.to_tensor(0, shape=(None, 6))


@pytest.fixture
def model():
    ids = keras.Input((6,), dtype="int32", name="ids")
    words = TTEmbedding(len(PIECES), 8, tt_ranks=4)
    pooled = keras.layers.GlobalAveragePooling1D()(words(ids))
    return keras.Model(ids, keras.layers.Dense(2, name="classes")(pooled))


def run(path, texts):
    registered = tf_text.tflite_registrar.SELECT_TFTEXT_OPS
    interpreter = InterpreterWithCustomOps(
        model_path=str(path), custom_op_registerers=registered
    )
    runner = interpreter.get_signature_runner("serving_default")
    return runner(text=texts)["classes"]


@pytest.mark.parametrize("table_format", ["float32", "int8"])
@pytest.mark.parametrize("batch", [None, 1])
def test_text_goes_in_and_classes_come_out(
    model, tmp_path, batch, table_format
):
    path, pieces = tmp_path / "model.tflite", Pieces()
    written = export_litert(
        model, path, table_format, batch=batch, preprocess=pieces
    )
    assert "FastWordpieceTokenizeWithOffsets" in written.operations
    assert written.max_difference < 1e-5
    expected = model(pieces(TEXTS))
    texts = [TEXTS] if batch is None else [TEXTS[i : i + 1] for i in range(3)]
    found = np.concatenate([run(path, some) for some in texts])
    np.testing.assert_allclose(
        found, expected, atol=1e-6 if table_format == "float32" else 2e-2
    )


def test_operations_that_no_runtime_has_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="custom op: StringLower"):
        export_litert(
            model, tmp_path / "m.tflite", preprocess=Pieces(tf.strings.lower)
        )
    with pytest.raises(ValueError, match="must be a `tf.Module` or a Keras"):
        export_litert(model, tmp_path / "m.tflite", preprocess="BERT")
    with pytest.raises(ValueError, match="without `representative_data`"):
        export_litert(
            model,
            tmp_path / "m.tflite",
            "int8",
            representative_data=[np.zeros((1, 6), "int32")],
            preprocess=Pieces(),
        )
    assert not list(tmp_path.iterdir())
