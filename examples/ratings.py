"""MovieLens ratings as ids of one joint id space."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from downloads import downloaded

DATASET = "movielens/100k-ratings"


@dataclass
class Ratings:
    """Rows of ids, with a rating for each row.

    The ids of a field start where the field before it ends; 0 is no feature. A
    row is a user, an item, an occupation, then the genres of the item.
    """

    ids: np.ndarray
    ratings: np.ndarray
    num_ids: int

    def __len__(self):
        return len(self.ratings)

    def split(self, parts, seed):
        """Returns random parts; the last one is the rest."""
        order = np.random.default_rng(seed).permutation(len(self))
        ends = (np.cumsum(parts) * len(self)).round().astype(int)
        return [
            Ratings(self.ids[part], self.ratings[part], self.num_ids)
            for part in np.split(order, ends)
        ]


def load(data_dir=None):
    """Returns the `Ratings` of TensorFlow Datasets, or of local files.

    Args:
        data_dir: Folder of the files `ml-100k.inter`, `.item` and `.user`, with
            tabs between columns. `None` downloads `movielens/100k-ratings`.
    """
    read = _downloaded() if data_dir is None else _local(Path(data_dir))
    *single, genres, ratings = zip(*read, strict=True)
    columns = [_numbered([[value] for value in values]) for values in single]
    columns.append(_numbered(genres))
    ids, offset = [], 0
    for column in columns:
        ids.append(np.where(column > 0, column + offset, 0))
        offset += column.max()
    return Ratings(
        np.concatenate(ids, axis=1).astype("int32"),
        np.array(ratings, "float32"),
        int(offset) + 1,
    )


def _numbered(rows):
    """Returns rows of values as rows of numbers from 1, padded with 0."""
    values = sorted({value for row in rows for value in row})
    numbers = {value: i + 1 for i, value in enumerate(values)}
    table = np.zeros((len(rows), max(map(len, rows))), "int64")
    for numbered, row in zip(table, rows, strict=True):
        numbered[: len(row)] = [numbers[value] for value in row]
    return table


def _downloaded():
    dataset = downloaded(DATASET, "train", "--data-dir")
    for row in tfds.as_numpy(dataset):
        yield (
            row["user_id"],
            row["movie_id"],
            row["user_occupation_text"],
            row["movie_genres"].tolist(),
            row["user_rating"],
        )


def _local(folder):
    users = {row["user_id"]: row for row in _rows(folder / "ml-100k.user")}
    items = {row["item_id"]: row for row in _rows(folder / "ml-100k.item")}
    for row in _rows(folder / "ml-100k.inter"):
        user, item = row["user_id"], row["item_id"]
        genres = items[item]["class"].split()
        yield user, item, users[user]["occupation"], genres, row["rating"]


def _rows(path):
    if not path.is_file():
        raise SystemExit(
            f"--data-dir has no file {path}: name a folder that has it, or "
            "leave --data-dir out to download the ratings"
        )
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for row in reader:
            yield {key.split(":")[0]: value for key, value in row.items()}
