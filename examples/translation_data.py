"""Pairs of sentences, and subwords that their two languages share."""

import gettext
import gzip
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from downloads import downloaded
from tensorflow_text.tools.wordpiece_vocab import (
    wordpiece_tokenizer_learner_lib as learner,
)
from tqdm import tqdm

DATASET = "ted_hrlr_translate/pt_to_en"
PADDING, UNKNOWN, START, END = range(4)
_RESERVED = ["[PAD]", "[UNK]", "[START]", "[END]"]


@dataclass
class Pairs:
    """Sentences, with spaces between words, and their translations."""

    sources: list
    targets: list

    def __len__(self):
        return len(self.sources)


def load(data_dir=None, dataset=DATASET):
    """Returns the pairs to train on, to validate and to test with.

    Args:
        data_dir: Folder with `multi30k`, English to German. `None` takes
            `dataset`.
        dataset: A translation set of TensorFlow Datasets, downloaded; or
            `"django"`, the German texts of that package's user interface.
    """
    if data_dir is not None:
        return [
            Pairs(*(_lines(data_dir, part, lang) for lang in ("en", "de")))
            for part in ("train", "val", "test_2016_flickr")
        ]
    if dataset == "django":
        return _user_interface()
    splits = downloaded(
        dataset, ["train", "validation", "test"], "--data-dir with multi30k"
    )
    source, target = dataset.rsplit("/", 1)[1].split("_to_")
    return [_of_tensors(split, source, target) for split in splits]


def _lines(data_dir, part, language):
    path = Path(data_dir) / "multi30k" / f"{part}.lc.norm.tok.{language}.gz"
    if not path.is_file():
        raise SystemExit(
            f"--data-dir {data_dir} has no file multi30k/{path.name}: name a "
            f"folder that has it, or leave it out for {DATASET}"
        )
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [" ".join(line.split()) for line in file]


def _of_tensors(split, source, target):
    pairs = Pairs([], [])
    for row in tqdm(split, desc="sentences"):
        pairs.sources.append(" ".join(row[source].numpy().decode().split()))
        pairs.targets.append(" ".join(row[target].numpy().decode().split()))
    return pairs


def _user_interface():
    """Returns English and German messages; every tenth one is for the test."""
    import django

    found = {}
    for path in sorted(Path(django.__file__).parent.rglob("de/**/django.mo")):
        with open(path, "rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog
        for source, target in catalog.items():
            if isinstance(source, str) and source:
                texts = (" ".join(x.lower().split()) for x in (source, target))
                found.setdefault(*texts)
    rows = list(found.items())
    return [
        Pairs(*map(list, zip(*part, strict=True)))
        for part in (
            [row for i, row in enumerate(rows) if i % 10 > 1],
            rows[1::10],
            rows[::10],
        )
    ]


class Subwords:
    """Maps sentences to ids of WordPiece and back.

    Words are split at spaces, so that `sentences` restores a sentence.

    Args:
        pieces: List of strings; the first four are reserved.
    """

    def __init__(self, pieces):
        self.pieces = pieces
        self.tokenizer = tf_text.FastWordpieceTokenizer(
            pieces,
            token_out_type=tf.int32,
            unknown_token="[UNK]",
            no_pretokenization=True,
        )

    @classmethod
    def learned(cls, sentences, size):
        """Learns about `size` pieces, which takes a minute or two."""
        counts = Counter(word for text in sentences for word in text.split())
        return cls(
            learner.learn(
                list(counts.items()),
                vocab_size=size,
                reserved_tokens=_RESERVED,
                upper_thresh=1_000,
                lower_thresh=2,
                num_iterations=2,
                max_input_tokens=-1,
            )
        )

    def ids(self, sentences, length, start=False):
        """Returns ids of shape `(sentences, length)`, each ended by `END`.

        Long sentences are cut, short ones are padded.
        """
        words = tf.strings.split(tf.constant(sentences))
        rows = self.tokenizer.tokenize(words).merge_dims(-2, -1)
        rows = rows[:, : length - 1 - start].numpy()
        ids = np.full((len(sentences), length), PADDING, "int32")
        for line, row in zip(ids, rows, strict=True):
            row = [START, *row, END] if start else [*row, END]
            line[: len(row)] = row
        return ids

    def sentences(self, ids):
        """Returns the sentences of rows of ids, up to `END`."""
        found = []
        for row in np.asarray(ids).tolist():
            row = row[: row.index(END)] if END in row else row
            pieces = [self.pieces[i] for i in row if i not in (PADDING, START)]
            found.append(" ".join(pieces).replace(" ##", ""))
        return found


def arrays(pairs, subwords, length):
    """Returns ids of sources and targets by name, and the next ids."""
    sources = subwords.ids(pairs.sources, length)
    targets = subwords.ids(pairs.targets, length + 1, start=True)
    inputs = {"source": sources, "target": targets[:, :-1]}
    return inputs, targets[:, 1:]


def token_counts(data, size):
    """Returns how often each id occurs in sources and targets."""
    inputs, targets = data
    counts = np.bincount(inputs["source"].ravel(), minlength=size)
    counts += np.bincount(targets.ravel(), minlength=size)
    counts[PADDING] = counts[counts > 0].min()
    return counts


def batches(data, batch_size):
    """Returns batches for `fit`, of sentences of about equal length.

    Their order differs in each epoch, and each is as long as its longest
    sentence. Weights are 0 for padding, and their mean is 1, so that losses
    are comparable.

    Args:
        data: As `arrays` returns it.
        batch_size: Integer. Sentences in a batch, at most.
    """
    inputs, targets = data
    sizes = np.maximum(
        np.sum(inputs["source"] != PADDING, axis=1),
        np.sum(targets != PADDING, axis=1),
    )
    bounds = [targets.shape[1] * part // 6 for part in (3, 4, 5)]

    def cut(inputs, targets, size):
        return {k: ids[:size] for k, ids in inputs.items()}, targets[:size]

    def weighed(inputs, targets):
        known = tf.cast(targets != PADDING, "float32")
        return inputs, targets, known / tf.reduce_mean(known)

    dataset = (
        tf.data.Dataset.from_tensor_slices((inputs, targets, sizes))
        .shuffle(len(sizes))
        .map(cut)
        .bucket_by_sequence_length(
            lambda _, targets: tf.shape(targets)[0],
            bounds,
            [batch_size] * (len(bounds) + 1),
        )
        .map(weighed)
        .prefetch(2)
    )
    places = np.searchsorted(bounds, sizes, side="right")
    count = np.sum(-(-np.bincount(places) // batch_size))
    return dataset.apply(tf.data.experimental.assert_cardinality(count))
