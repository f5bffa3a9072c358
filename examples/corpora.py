"""Running text as streams of ids, for language models."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import text_datasets
from text_pipeline import PADDING, UNKNOWN, frequent_words, split_words


def load(data_dir=None, most=10_000):
    """Returns words by falling frequency, and two streams of ids.

    The first stream is for training, the second for the test. Like in
    `TextToIds`, word `i` has id `i + 2`; 0 ends a text, 1 is an unknown word.

    Args:
        data_dir: Folder with `ptb`, for Penn Treebank. `None` reads BBC News.
        most: Integer. The largest number of words.
    """
    if data_dir is None:
        splits = text_datasets.load("bbc_news")
        words = frequent_words(splits.train.texts, most)
        texts = [
            [[word.decode("utf-8") for word in row.numpy()] for row in rows]
            for rows in map(
                split_words, (splits.train.texts, splits.test.texts)
            )
        ]
    else:
        texts = [_penn_treebank(data_dir, part) for part in ("train", "test")]
        counts = Counter(word for line in texts[0] for word in line)
        del counts["<unk>"]
        words = [word for word, _ in counts.most_common(most)]
    ids = {word: i + 2 for i, word in enumerate(words)}
    return words, *(_stream(rows, ids) for rows in texts)


def _stream(texts, ids):
    numbers = []
    for text in texts:
        numbers.extend(ids.get(word, UNKNOWN) for word in text)
        numbers.append(PADDING)
    return np.array(numbers, "int32")


def _penn_treebank(data_dir, part):
    path = Path(data_dir) / "ptb" / f"ptb.{part}.txt.gz"
    if not path.is_file():
        raise SystemExit(
            f"--data-dir {data_dir} has no file ptb/{path.name}: name a folder "
            "that has it, or leave it out for BBC News"
        )
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [line.split() for line in lines]
