"""Predicts ratings, with one table for users, items, occupations and genres.

The features share one id space, in which items start where users end, and so
on, so that a single layer embeds them all. Three models are trained on
MovieLens 100k: with a dense table, with shared sub-vectors in a tenth of its
bytes, and with a dense table that is ten times narrower.

    python examples/recommender.py --output recommender
    python examples/recommender.py --data-dir ../shared/data/ml-100k
"""

import argparse
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from ratings import DATASET, load

from keras_embcomp import HashedEmbedding

WIDTH, NUM_PARTS, SHRINK, LIKED = 40, 10, 10, 4

# From the number of ids to the table.
TABLES = {
    "dense": lambda size: keras.layers.Embedding(size, WIDTH),
    "hashed, 1/10": lambda size: HashedEmbedding(
        size,
        WIDTH,
        num_subvectors=size * NUM_PARTS // SHRINK,
        num_parts=NUM_PARTS,
    ),
    "dense, 1/10 as wide": lambda size: keras.layers.Embedding(
        size, WIDTH // SHRINK
    ),
}


def rating_model(embedding, num_columns):
    """Returns a model from a row of ids to a rating.

    Genres are averaged; the four vectors go through two dense layers.
    """
    ids = keras.Input((num_columns,), dtype="int32", name="ids")
    vectors = embedding(ids)
    user, item, occupation = (vectors[:, column] for column in range(3))
    genre = keras.layers.GlobalAveragePooling1D()(
        vectors[:, 3:], mask=ids[:, 3:] > 0
    )
    x = keras.layers.Concatenate()([user, item, occupation, genre])
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(32, activation="relu")(x)
    mean = keras.initializers.Constant(3.5)
    return keras.Model(
        ids, keras.layers.Dense(1, bias_initializer=mean, name="rating")(x)
    )


def train(model, parts, epochs):
    """Fits a model, keeps its best epoch, and returns test RMSE and AUC.

    The AUC is the probability that the model rates an item that a user liked
    (4 or 5) higher than an item that a user did not like.
    """
    training, validation, test = parts
    model.compile(keras.optimizers.Adam(2e-3), "mean_squared_error")
    model.fit(
        training.ids,
        training.ratings,
        batch_size=256,
        epochs=epochs,
        validation_data=(validation.ids, validation.ratings),
        callbacks=[
            keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
        ],
        verbose=2,
    )
    predicted = model.predict(test.ids, batch_size=1_024, verbose=0)[:, 0]
    error = np.sqrt(np.mean((predicted - test.ratings) ** 2))
    auc = keras.metrics.AUC(num_thresholds=1_000)
    auc.update_state(test.ratings >= LIKED, np.clip(predicted / 5, 0, 1))
    return float(error), float(auc.result())


def saved_bytes(layer):
    """Returns the size of a layer's weights in a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.npz"
        np.savez(path, *layer.get_weights())
        return path.stat().st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=[DATASET], default=DATASET)
    parser.add_argument("--data-dir", help="folder of the ml-100k files")
    parser.add_argument("--output", type=Path, help="folder for the models")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="one epoch, seed")
    options = parser.parse_args()
    if options.quick:
        options.epochs, options.seeds = 1, options.seeds[:1]
    ratings = load(options.data_dir)
    print(f"{len(ratings):,} ratings, {ratings.num_ids:,} ids")
    lines = ["| table | bytes | RMSE | AUC |", "|---|---:|---:|---:|"]
    for name, table in TABLES.items():
        scores = []
        for seed in options.seeds:
            keras.utils.set_random_seed(seed)
            embedding = table(ratings.num_ids)
            model = rating_model(embedding, ratings.ids.shape[1])
            parts = ratings.split((0.8, 0.1), seed)
            scores.append(train(model, parts, options.epochs))
        error, auc = np.mean(scores, axis=0)
        lines.append(
            f"| {name} | {saved_bytes(embedding):,} | {error:.4f} | {auc:.4f} |"
        )
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            file = re.sub(r"\W+", "_", name) + ".keras"
            model.save(options.output / file)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
