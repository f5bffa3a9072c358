"""Penn Treebank as streams of ids, and the LSTM that models them."""

import collections
import gzip
from pathlib import Path

import keras
import numpy as np

LENGTH, BATCH_SIZE = 35, 32


def load(data_dir):
    """Returns the words by falling frequency, and the ids of each part."""
    folder = Path(data_dir) / "ptb"
    if not folder.is_dir():
        raise SystemExit(
            f"No Penn Treebank in {folder}: pass --data-dir. TensorFlow "
            "Datasets has no copy; its lm1b is the larger set of the papers."
        )
    texts = []
    for part in ("train", "valid", "test"):
        with gzip.open(folder / f"ptb.{part}.txt.gz", "rt") as file:
            texts.append(file.read().replace("\n", " <eos> "))
    counts = collections.Counter(texts[0].split())
    words = [word for word, _ in counts.most_common()]
    ids = {word: i for i, word in enumerate(words)}
    parts = [
        np.array([ids[word] for word in text.split()], "int32")
        for text in texts
    ]
    return words, parts


def windows(stream):
    """Returns inputs, targets and weights, each of shape `(rows, LENGTH)`.

    Row `i` of a batch continues row `i` of the batch before it. The padding of
    the last batch has weight 0.
    """
    inputs, targets = stream[:-1], stream[1:]
    steps = -(-len(inputs) // (BATCH_SIZE * LENGTH))
    missing = steps * BATCH_SIZE * LENGTH - len(inputs)

    def arranged(array):
        array = np.pad(array, (0, missing))
        array = array.reshape(BATCH_SIZE, steps, LENGTH)
        return array.transpose(1, 0, 2).reshape(-1, LENGTH)

    weights = np.ones(len(inputs), "float32")
    return arranged(inputs), arranged(targets), arranged(weights)


def language_model(embedding, head, units, dropout):
    """Returns a two-layer LSTM from ids to logits (Zaremba et al., 2014)."""
    ids = keras.Input(batch_shape=(BATCH_SIZE, LENGTH), dtype="int32")
    x = keras.layers.Dropout(dropout)(embedding(ids))
    for _ in range(2):
        lstm = keras.layers.LSTM(units, return_sequences=True, stateful=True)
        x = keras.layers.Dropout(dropout)(lstm(x))
    return keras.Model(ids, head(x))


class FreshStates(keras.callbacks.Callback):
    """Resets the states before every pass over a text."""

    def reset(self, *_):
        for layer in self.model.layers:
            if getattr(layer, "stateful", False):
                layer.reset_state()

    on_epoch_begin = on_test_begin = reset


def fit(model, train, validation, rate, epochs):
    """Trains at a rate that falls to zero; returns perplexities.

    They are measured on the validation text after each epoch. Adam has no
    momentum: with it, training takes far longer to leave the unigram model.
    """
    inputs, targets, weights = windows(train)
    steps = len(inputs) // BATCH_SIZE

    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * steps, warmup_target=rate, warmup_steps=steps // 5
    )
    model.compile(
        keras.optimizers.Adam(schedule, beta_1=0.0, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    perplexities = []
    for _ in range(epochs):
        model.fit(
            inputs,
            targets,
            BATCH_SIZE,
            shuffle=False,
            sample_weight=weights,
            callbacks=[FreshStates()],
            verbose=2,
        )
        perplexities.append(perplexity(model, validation))
    return perplexities


def perplexity(model, text):
    """Returns the perplexity of a compiled model on a text."""
    inputs, targets, weights = windows(text)
    loss = model.evaluate(
        inputs,
        targets,
        BATCH_SIZE,
        sample_weight=weights,
        callbacks=[FreshStates()],
        verbose=0,
    )
    return float(np.exp(loss * weights.size / weights.sum()))
