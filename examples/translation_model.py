"""A small Transformer with one table for source, target and output."""

import keras
import keras_hub
import numpy as np
import sacrebleu
import tensorflow as tf
from keras import ops
from translation_data import END, PADDING, START, batches

HEADS, LAYERS, DROPOUT = 4, 2, 0.1


def transformer(tokens, width):
    """Returns a model from `source` and `target` ids to the next ids' logits.

    Args:
        tokens: An embedding of that width that takes `reverse=True`.
        width: Integer. Width of the hidden states; a multiple of `HEADS`.
    """
    source = keras.Input((None,), dtype="int32", name="source")
    encoder = keras.Model(source, _encoded(tokens, source, width), name="enc")

    known = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    encoded = keras.Input((None, width), name="encoded")
    x = _embedded(tokens, target, width)
    for index in range(LAYERS):
        layer = keras_hub.layers.TransformerDecoder(
            4 * width,
            HEADS,
            DROPOUT,
            normalize_first=True,
            name=f"decoder_{index}",
        )
        x = layer(
            x,
            encoded,
            decoder_padding_mask=ops.not_equal(target, PADDING),
            encoder_padding_mask=ops.not_equal(known, PADDING),
        )
    x = keras.layers.LayerNormalization(name="decoded")(x)
    decoder = keras.Model([known, target, encoded], x, name="dec")

    hidden = decoder([source, target, encoder(source)])
    logits = tokens(hidden, reverse=True)
    model = keras.Model({"source": source, "target": target}, logits)
    model.tokens, model.encoder, model.decoder = tokens, encoder, decoder
    return model


def dense_tokens(size, width):
    """Returns a tied table to train from scratch."""
    return keras.layers.ReversibleEmbedding(size, width, name="tokens")


def _embedded(tokens, ids, width):
    x = tokens(ids) * width**0.5
    x = x + keras_hub.layers.SinePositionEncoding()(x)
    return keras.layers.Dropout(DROPOUT)(x)


def _encoded(tokens, source, width):
    x = _embedded(tokens, source, width)
    mask = ops.not_equal(source, PADDING)
    for index in range(LAYERS):
        layer = keras_hub.layers.TransformerEncoder(
            4 * width,
            HEADS,
            DROPOUT,
            normalize_first=True,
            name=f"encoder_{index}",
        )
        x = layer(x, padding_mask=mask)
    return keras.layers.LayerNormalization(name="encoded")(x)


def with_tokens(model, tokens, width):
    """Returns a copy of a transformer with another table for all its ids."""
    copy = transformer(tokens, width)
    for part in ("encoder", "decoder"):
        theirs = getattr(model, part).layers
        for ours, layer in zip(getattr(copy, part).layers, theirs, strict=True):
            if layer is not model.tokens:
                ours.set_weights(layer.get_weights())
    return copy


def smoothed_loss(targets, logits, smoothing=0.1):
    """Returns the cross-entropy with labels smoothed over the vocabulary."""
    totals = ops.logsumexp(logits, axis=-1)
    ids = ops.expand_dims(ops.cast(targets, "int32"), -1)
    own = ops.take_along_axis(logits, ids, axis=-1)[..., 0]
    mean = ops.mean(logits, axis=-1)
    return totals - (1 - smoothing) * own - smoothing * mean


def train(model, data, epochs, rate, batch_size=128, **fit):
    """Trains at a rate that warms up, then falls to zero.

    Args:
        model: A transformer, or a distiller of one.
        data: As `translation_data.arrays` returns it.
        epochs: Integer.
        rate: Number. The highest rate.
        batch_size: Integer. Sentences in a step.
        **fit: Other arguments of `fit`.
    """
    sentences = batches(data, batch_size)
    steps = epochs * int(sentences.cardinality())
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=rate, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.Adam(schedule, beta_2=0.98, global_clipnorm=1.0),
        smoothed_loss,
        jit_compile=False,  # XLA would compile for each length
    )
    # The sentences are shuffled already.
    return model.fit(sentences, epochs=epochs, shuffle=False, **fit)


def translate(model, sources, num_beams=1, batch_size=100):
    """Returns ids of translations, `START` first.

    Args:
        model: A transformer.
        sources: Ids of shape `(sentences, length)`.
        num_beams: Integer. 1 is greedy.
        batch_size: Integer. Sentences at a time.
    """
    length = sources.shape[1] + 1
    sampler = (
        keras_hub.samplers.GreedySampler()
        if num_beams == 1
        else keras_hub.samplers.BeamSampler(num_beams)
    )
    last = np.where(np.arange(model.tokens.input_dim) == PADDING, 0.0, -1e9)
    last = tf.constant(last, "float32")

    def next_id(prompt, cache, index):
        source, encoded = cache
        decoded = model.decoder([source, prompt, encoded], training=False)
        hidden = tf.gather(decoded, index - 1, axis=1)
        logits = model.tokens(hidden, reverse=True)
        before = tf.gather(prompt, index - 1, axis=1)[:, None]
        ended = tf.logical_or(before == END, before == PADDING)
        return tf.where(ended, last, logits), hidden, cache

    @tf.function
    def translated(source):
        cache = (source, model.encoder(source, training=False))
        prompt = tf.pad(
            tf.fill([tf.shape(source)[0], 1], START),
            [[0, 0], [0, length - 1]],
        )
        prompt = tf.ensure_shape(prompt, (None, length))
        return sampler(next_id, prompt, cache, 1, None, [END])

    return np.concatenate(
        [
            translated(tf.constant(sources[start : start + batch_size]))
            for start in range(0, len(sources), batch_size)
        ]
    )


def bleu(model, sources, references, subwords, num_beams=1):
    """Returns the BLEU of translations in percent, without retokenizing."""
    found = subwords.sentences(translate(model, sources, num_beams))
    # Both sides are tokenized alike; `force` silences a warning about it.
    return sacrebleu.corpus_bleu(
        found, [references], tokenize="none", force=True
    ).score
