"""Trains tensor trains from scratch, and shows why not to do it afterwards.

A classifier of BBC News is trained with a dense embedding and with tensor
trains of 3, 4 and 6 cores in its place. The last row decomposes the trained
dense table instead, to the ranks of the first tensor train: what a trained
table holds does not fit into so few numbers, while training finds a table that
does.

    python examples/train_from_scratch.py
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from artefacts import predicted_labels
from sentence_classification import classifier, train
from text_datasets import load
from text_pipeline import TextToIds, frequent_words

from keras_embcomp import TTEmbedding, export_litert

CORES = (3, 4, 6)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="narrower model, fewer epochs"
    )
    options = parser.parse_args()
    if options.quick:
        options.width, options.epochs = 64, 3
    splits = load("bbc_news", None, options.seed)
    words = frequent_words(splits.train.texts, 30_000)
    text_to_ids = TextToIds(words, 256)
    data = {
        name: (text_to_ids(tf.constant(split.texts)).numpy(), split.labels)
        for name, split in splits.parts()
    }
    sizes = (text_to_ids.vocabulary_size, options.width)

    def trained(embedding):
        model = classifier(embedding, text_to_ids.length, 5)
        train(model, data, options.epochs, batch_size=32)
        return model

    lines = [
        "| embedding | shape | parameters | compression | .tflite bytes "
        "| test accuracy |",
        "|---|---|---|---|---|---|",
    ]

    def add_row(name, shape, model):
        embedding = model.layers[1]
        parameters = embedding.count_params()
        ratio = sizes[0] * sizes[1] / parameters
        ids, labels = data["test"]
        accuracy = (predicted_labels(model, ids) == labels).mean()
        with TemporaryDirectory() as folder:
            written = export_litert(model, Path(folder) / "model.tflite")
        lines.append(
            f"| {name} | {shape} | {parameters:,} | {ratio:.0f} | "
            f"{written.bytes:,} | {accuracy:.1%} |"
        )

    keras.utils.set_random_seed(options.seed)
    dense = trained(keras.layers.Embedding(*sizes, mask_zero=True))
    add_row("dense", sizes, dense)
    for num_cores in CORES:
        keras.utils.set_random_seed(options.seed)
        embedding = TTEmbedding(
            *sizes,
            tt_ranks=options.rank,
            num_cores=num_cores,
            embeddings_stddev=0.05 / 3**0.5,  # that of the dense embedding
            mask_zero=True,
        )
        name = f"tensor train, {num_cores} cores"
        add_row(name, embedding.tt_shape, trained(embedding))
    afterwards = TTEmbedding.from_layer(dense.layers[1], tt_ranks=options.rank)
    copy = classifier(afterwards, text_to_ids.length, 5)
    for ours, theirs in zip(copy.layers[2:], dense.layers[2:], strict=True):
        ours.set_weights(theirs.get_weights())
    add_row("the dense one, decomposed", afterwards.tt_shape, copy)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
