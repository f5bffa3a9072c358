"""Compresses both sides of a language model, and serves its next words.

A two-layer LSTM is trained on BBC News, or on Penn Treebank with `--data-dir`.
GroupReduce then compresses its embedding and its softmax, and the model is
trained a little more: once with the compressed tables fixed, as in the paper,
and once as a whole. The example prints the perplexity of each model on unseen
text. The last model is exported for TensorFlow Serving, with a signature
`next_word` that takes texts and returns the words that may follow.

    python examples/language_model.py --output language_model
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from corpora import load
from text_pipeline import TextToIds

from keras_embcomp import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
    export_serving,
)
from keras_embcomp.budgets import (
    group_ranks_by_error,
    growing_groups,
)

LENGTH, DROPOUT, NUM_GROUPS, BATCH_SIZE = 35, 0.2, 5, 32


def language_model(embedding, head, units):
    """Returns a model from ids to the logits of each next id."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = keras.layers.Dropout(DROPOUT)(embedding(ids))
    for _ in range(2):
        x = keras.layers.LSTM(units, return_sequences=True)(x)
        x = keras.layers.Dropout(DROPOUT)(x)
    return keras.Model(ids, head(x))


def compressed(model, counts, ratio):
    """Returns a copy of a model with both tables in groups by frequency."""
    embedding, head = model.layers[1], model.layers[-1]
    sizes = growing_groups(len(counts), NUM_GROUPS)

    def arguments(table):
        ranks = group_ranks_by_error(
            table, sizes, int(table.size / ratio), counts, sort=False
        )
        # Ids are sorted by frequency, except for the first two.
        return {
            "group_sizes": sizes,
            "group_ranks": ranks,
            "frequencies": counts,
            "sort": False,
        }

    table = keras.ops.convert_to_numpy(embedding.embeddings)
    kernel = keras.ops.convert_to_numpy(head.kernel)
    copy = language_model(
        GroupReduceEmbedding.from_layer(embedding, **arguments(table)),
        GroupReduceSoftmax.from_layer(head, **arguments(kernel.T)),
        table.shape[1],
    )
    for ours, theirs in zip(copy.layers, model.layers, strict=True):
        if isinstance(ours, keras.layers.LSTM):
            ours.set_weights(theirs.get_weights())
    return copy


def windows(stream):
    """Returns inputs and targets of shape `(rows, LENGTH)`."""
    rows = (len(stream) - 1) // LENGTH
    cut = rows * LENGTH
    return (
        stream[:cut].reshape(rows, LENGTH),
        stream[1 : cut + 1].reshape(rows, LENGTH),
    )


def train(model, stream, epochs, rate):
    """Trains at a rate that falls to zero."""
    inputs, targets = windows(stream)
    steps = epochs * -(-len(inputs) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        # With momentum, it predicts word frequencies for a long time.
        keras.optimizers.Adam(schedule, beta_1=0.0, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(inputs, targets, BATCH_SIZE, epochs, verbose=2)


def perplexity(model, stream):
    """Returns the perplexity on windows; states are reset for each."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss)
    return np.exp(model.evaluate(*windows(stream), BATCH_SIZE, verbose=0))


def next_word(model, text_to_ids, words, k=5):
    """Returns the function behind the signature `next_word`.

    It takes strings of shape `(batch,)` as `text`, and returns the `k`
    likeliest `words` and their `log_probabilities`, of shape `(batch, k)`.
    """
    head = model.layers[-1]
    body = keras.Model(model.input, head.input)
    names = tf.constant(["[end]", "[unknown]", *words])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def function(text):
        ids = text_to_ids(text)
        last = tf.reduce_sum(tf.cast(ids > 0, "int32"), axis=1) - 1
        hidden = tf.gather(body(ids, training=False), last, batch_dims=1)
        scores, best = head.top_k(hidden, k)
        # Scores and log-probabilities differ by the same number.
        likeliest = head.log_prob(hidden, best[:, 0])[:, None]
        return {
            "words": tf.gather(names, best),
            "log_probabilities": scores - scores[:, :1] + likeliest,
        }

    return function


def parse_options():
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="folder with ptb; default BBC News")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/language_model"),
        help="folder for the models",
    )
    parser.add_argument("--words", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--more-epochs", type=int, default=2)
    parser.add_argument("--ratio", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="fewer words, less text"
    )
    options = parser.parse_args()
    if options.quick:
        options.words, options.units = 1_000, 32
        options.epochs = options.more_epochs = 1
    return options


def models(options, size, training):
    """Yields a name and a model: dense, compressed, and trained further."""
    counts = np.bincount(training, minlength=size)
    keras.utils.set_random_seed(options.seed)
    dense = language_model(
        keras.layers.Embedding(size, options.units, name="words"),
        keras.layers.Dense(size, name="logits"),
        options.units,
    )
    train(dense, training, options.epochs, rate=4e-3)
    yield "dense", dense
    yield "compressed", compressed(dense, counts, options.ratio)
    for name, trainable in (("fixed tables", False), ("all trained", True)):
        model = compressed(dense, counts, options.ratio)
        model.layers[1].trainable = model.layers[-1].trainable = trainable
        train(model, training, options.more_epochs, rate=1e-3)
        yield f"{name}, {options.more_epochs} epochs more", model


def row_of(name, model, test, folder):
    """Saves a model and returns its row of the table."""
    score = perplexity(model, test)
    tables = model.layers[1].count_params() + model.layers[-1].count_params()
    path = folder / f"{name.split(',')[0].replace(' ', '_')}.keras"
    model.save(path)
    return f"| {name} | {tables:,} | {path.stat().st_size:,} | {score:.1f} |"


def serve(model, words, folder):
    """Exports a model, and prints the words that may follow a text."""
    text_to_ids = TextToIds(words, length=64, last=True)
    function = next_word(model, text_to_ids, words)
    served = export_serving(
        model,
        folder,
        preprocess=text_to_ids,
        signatures={"next_word": function},
    )
    text = "the prime minister said that"
    found = function(tf.constant([text]))
    best = zip(found["words"][0], found["log_probabilities"][0], strict=True)
    print(f"{served}: {text} ...")
    for word, log_probability in best:
        print(f"  {word.numpy().decode():<12} {log_probability:.2f}")


def main():
    options = parse_options()
    words, training, test = load(options.data_dir, options.words)
    if options.quick:
        training, test = training[:40_000], test[:5_000]
    print(f"{len(training):,} words to train on, {len(test):,} to test on")
    options.output.mkdir(parents=True, exist_ok=True)
    lines = [
        "| model | numbers in both tables | .keras bytes | perplexity |",
        "|---|---:|---:|---:|",
    ]
    for name, model in models(options, len(words) + 2, training):
        lines.append(row_of(name, model, test, options.output))
    print("\n".join(lines))
    serve(model, words, options.output / "served")


if __name__ == "__main__":
    main()
