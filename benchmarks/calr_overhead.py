"""What the cyclically annealed learning rate costs: an epoch with and without.

KERAS_BACKEND=jax python benchmarks/calr_overhead.py
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keras_embcomp import CyclicallyAnnealedLearningRate

STEPS, ROUNDS = 2_000, 7


class EpochSeconds(keras.callbacks.Callback):
    """Records the seconds of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


class RateByBatch(keras.callbacks.Callback):
    """The usual way: a hook that assigns the rate before each batch."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = 1e-3


def epoch_seconds(make_callback, steps_per_execution):
    """Returns the median seconds of an epoch, without the first (tracing)."""
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16)])
    model.compile("adam", "mse", steps_per_execution=steps_per_execution)
    x = np.ones((STEPS * 8, 16), "float32")
    timer = EpochSeconds()
    model.fit(
        x,
        x,
        batch_size=8,
        epochs=ROUNDS + 1,
        callbacks=[make_callback(), timer],
        verbose=0,
    )
    return np.median(timer.seconds[1:])


def main():
    callbacks = {
        "no callback": keras.callbacks.Callback,
        "CyclicallyAnnealedLearningRate": CyclicallyAnnealedLearningRate,
        "a rate assigned at each batch": RateByBatch,
    }
    print(f"{keras.backend.backend()}, {STEPS} steps an epoch")
    print("| callback | steps_per_execution | us a step | ratio |")
    print("|---|---|---|---|")
    for steps_per_execution in (1, 20):
        baseline = None
        for name, make_callback in callbacks.items():
            seconds = epoch_seconds(make_callback, steps_per_execution)
            baseline = baseline or seconds
            print(
                f"| {name} | {steps_per_execution} | "
                f"{1e6 * seconds / STEPS:.0f} | {seconds / baseline:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
