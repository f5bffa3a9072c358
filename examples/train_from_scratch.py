"""Trains tensor trains from scratch, and shows why not to do it afterwards.

A classifier of BBC News is trained with a dense embedding, and with tensor
trains of 3, 4 and 6 cores instead. The last row decomposes the trained dense
table, to the ranks of the first tensor train. A trained table does not fit into
so few numbers, but training finds a table that does.

    python examples/train_from_scratch.py
"""

import argparse
import functools
import math
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


class Experiment:
    """The articles as ids, and a row of results for each model."""

    def __init__(self, options):
        self.options = options
        splits = load("bbc_news", None, options.seed)
        words = frequent_words(splits.train.texts, 30_000)
        text_to_ids = TextToIds(words, 256)
        self.data = {
            name: (text_to_ids(tf.constant(split.texts)).numpy(), split.labels)
            for name, split in splits.parts()
        }
        self.length = text_to_ids.length
        self.num_labels = len(splits.label_names)
        self.sizes = (text_to_ids.vocabulary_size, options.width)
        self.lines = [
            "| embedding | shape | parameters | compression | .tflite bytes "
            "| test accuracy |",
            "|---|---|---|---|---|---|",
        ]

    def classifier(self, embedding):
        return classifier(embedding, self.length, self.num_labels)

    def trained(self, make_embedding):
        """Returns a trained model over an embedding."""
        keras.utils.set_random_seed(self.options.seed)
        model = self.classifier(make_embedding(*self.sizes, mask_zero=True))
        train(model, self.data, self.options.epochs, batch_size=32)
        return model

    def add_row(self, name, shape, model):
        parameters = model.layers[1].count_params()
        ratio = math.prod(self.sizes) / parameters
        ids, labels = self.data["test"]
        accuracy = (predicted_labels(model, ids) == labels).mean()
        with TemporaryDirectory() as folder:
            written = export_litert(model, Path(folder) / "model.tflite")
        self.lines.append(
            f"| {name} | {shape} | {parameters:,} | {ratio:.0f} | "
            f"{written.bytes:,} | {accuracy:.1%} |"
        )


def tensor_train(num_cores, rank):
    """Returns a function of the sizes that makes an untrained tensor train."""
    return functools.partial(
        TTEmbedding,
        tt_ranks=rank,
        num_cores=num_cores,
        embeddings_stddev=0.05 / 3**0.5,  # as in the dense embedding
    )


def decomposed(experiment, dense):
    """Returns a copy of a trained model with its table decomposed."""
    embedding = TTEmbedding.from_layer(
        dense.layers[1], tt_ranks=experiment.options.rank
    )
    copy = experiment.classifier(embedding)
    for ours, theirs in zip(copy.layers[2:], dense.layers[2:], strict=True):
        ours.set_weights(theirs.get_weights())
    return copy


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
    experiment = Experiment(options)
    dense = experiment.trained(keras.layers.Embedding)
    experiment.add_row("dense", experiment.sizes, dense)
    for num_cores in CORES:
        model = experiment.trained(tensor_train(num_cores, options.rank))
        shape = model.layers[1].tt_shape
        experiment.add_row(f"tensor train, {num_cores} cores", shape, model)
    copy = decomposed(experiment, dense)
    shape = copy.layers[1].tt_shape
    experiment.add_row("the dense one, decomposed", shape, copy)
    print("\n".join(experiment.lines))


if __name__ == "__main__":
    main()
