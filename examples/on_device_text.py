"""Ships a classifier that takes text as one LiteRT file, tokenizer and all.

The articles of BBC News are split into word pieces. A classifier is trained
with a dense embedding, and one with a tensor train instead. Each is written to
two files: one takes ids, for every runtime; the other takes text, for runtimes
with the operations of TensorFlow Text. The files that take text are run on the
test articles.

    python examples/on_device_text.py

The example writes the files, the pieces and the labels to a folder.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from ai_edge_litert.interpreter import InterpreterWithCustomOps
from artefacts import new_folder, predicted_labels
from sentence_classification import classifier, train, write_lines
from tensorflow_text.tools.wordpiece_vocab import (
    wordpiece_tokenizer_learner_lib as learner,
)
from text_datasets import load
from text_pipeline import split_words

from keras_embcomp import TTEmbedding, export_litert

RESERVED = ["[PAD]", "[UNK]"]


class TextToPieces(tf.Module):
    """Maps strings to int32 ids of their first `length` word pieces.

    It folds letters to lower case and removes their accents. LiteRT has all of
    its operations.
    """

    def __init__(self, pieces, length):
        super().__init__(name="text_to_pieces")
        self.length = length
        self._tokenizer = tf_text.FastBertTokenizer(
            pieces,
            token_out_type=tf.int32,
            lower_case_nfd_strip_accents=True,
        )

    def __call__(self, texts):
        ids = self._tokenizer.tokenize(texts)
        return ids.to_tensor(0, shape=(None, self.length))


def learned_pieces(texts, size):
    """Returns about `size` word pieces of texts, the reserved ones first."""
    words, _, counts = tf.unique_with_counts(split_words(texts).flat_values)
    words = [word.decode() for word in words.numpy()]
    return learner.learn(
        list(zip(words, counts.numpy().tolist(), strict=True)),
        vocab_size=size,
        reserved_tokens=RESERVED,
        upper_thresh=10_000_000,
        lower_thresh=2,
        num_iterations=2,
        max_input_tokens=-1,
    )


def accuracy_of(file, splits):
    """Returns the test accuracy of a file that takes text."""
    interpreter = InterpreterWithCustomOps(
        model_path=str(file),
        custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
    )
    runner = interpreter.get_signature_runner("serving_default")
    texts = np.array(splits.test.texts)
    labels = predicted_labels(
        lambda batch: runner(text=batch)["probabilities"], texts
    )
    return (labels == splits.test.labels).mean()


def run(options, folder):
    """Trains both models, and writes and runs their files."""
    keras.utils.set_random_seed(options.seed)
    splits = load("bbc_news", None, options.seed)
    pieces = learned_pieces(splits.train.texts, options.pieces)
    text_to_pieces = TextToPieces(pieces, options.length)
    data = {
        name: (text_to_pieces(tf.constant(split.texts)).numpy(), split.labels)
        for name, split in splits.parts()
    }
    sizes = len(pieces), options.width
    stddev = 0.05 / 3**0.5  # as in the dense embedding
    embeddings = {
        "dense": keras.layers.Embedding(*sizes, mask_zero=True),
        "tensor train": TTEmbedding(
            *sizes, tt_ranks=16, embeddings_stddev=stddev, mask_zero=True
        ),
    }
    lines = [
        "| embedding | parameters | file for ids | file for text | accuracy |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, embedding in embeddings.items():
        model = classifier(embedding, options.length, len(splits.label_names))
        train(model, data, options.epochs, batch_size=32)
        stem = name.replace(" ", "_")
        for_ids = export_litert(model, folder / f"{stem}_ids.tflite")
        for_text = export_litert(
            model, folder / f"{stem}_text.tflite", preprocess=text_to_pieces
        )
        lines.append(
            f"| {name} | {embedding.count_params():,} | {for_ids.bytes:,} | "
            f"{for_text.bytes:,} | {accuracy_of(for_text.path, splits):.1%} |"
        )
    write_lines(folder / "pieces.txt", pieces)
    write_lines(folder / "labels.txt", splits.label_names)
    print(f"{len(pieces):,} pieces; files in bytes")
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pieces", type=int, default=8_000)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(tempfile.gettempdir()) / "on_device_text",
        help="new folder for the files",
    )
    parser.add_argument(
        "--quick", action="store_true", help="narrower model, fewer epochs"
    )
    options = parser.parse_args()
    if options.quick:
        options.pieces, options.width, options.epochs = 1_000, 64, 3
    with new_folder(options.output) as folder:
        run(options, folder)


if __name__ == "__main__":
    main()
