"""The cyclically annealed learning rate, for `model.fit`."""

import os
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_embcomp._compat import (
    callbacks_beside,
    cycled_rate,
    set_cycled_rate,
)
from keras_embcomp.checks import positive_int, positive_number
from keras_embcomp.training.schedules import (
    annealed_upper_bound,
    triangular_rate,
)

# Callbacks of Keras that assign the rate, which a cycle does not let them.
_SETTERS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


class CyclicallyAnnealedLearningRate(keras.callbacks.Callback):
    """Cycles the learning rate under a bound that decays and restarts.

    Within each cycle the rate climbs from `min_learning_rate` to an upper
    bound in `step_size` iterations, and back in as many. The bound starts at
    `max_learning_rate`, is multiplied by `decay_rate` every `decay_epochs`
    epochs, and goes back to `max_learning_rate` when it would reach
    `min_learning_rate`. With `decay_rate=1` this is the plain triangular
    cyclical rate.

    The rate is computed in the training step from `optimizer.iterations`, so
    it moves in every iteration, with `steps_per_execution` above 1 and under
    `jit_compile` too, and costs no call from Python. Only the bound is
    assigned, once an epoch. A second `fit` starts again from the first bound
    and goes on in the cycle where the optimizer is; to continue a run, give
    `fit` the `initial_epoch` to go on from. `history` shows, as
    `learning_rate`, the rate of the last iteration of each epoch.

    When training ends, the optimizer gets its own rate back; after a `fit` that
    was interrupted, call `on_train_end()` for that. A checkpoint written by a
    callback after this one in the list has the optimizer's own rate too.

    Args:
        max_learning_rate: Number. The first upper bound.
        min_learning_rate: Number above 0, below `max_learning_rate`. The lower
            bound.
        step_size: Integer. Iterations (batches) in half a cycle.
        decay_rate: Number above 0, at most 1, by which the bound is
            multiplied.
        decay_epochs: Integer. Epochs between two decays.
        optimizer: The optimizer to cycle, in a model that trains with several.
            `None` cycles the one of `model.compile`.

    Example:

    >>> schedule = CyclicallyAnnealedLearningRate(1e-3, 1e-6, step_size=1000)
    >>> [round(schedule.upper_bound(epoch), 6) for epoch in range(5)]
    [0.001, 0.0001, 1e-05, 0.001, 0.0001]

    Reference:
    - [Acharya et al., 2019](https://arxiv.org/abs/1811.00641), Algorithm 1.
    """

    def __init__(
        self,
        max_learning_rate: float = 1e-3,
        min_learning_rate: float = 1e-6,
        step_size: int = 1000,
        decay_rate: float = 0.1,
        decay_epochs: int = 1,
        optimizer: Any = None,
    ) -> None:
        super().__init__()
        self.max_learning_rate = positive_number(
            "max_learning_rate", max_learning_rate
        )
        self.min_learning_rate = positive_number(
            "min_learning_rate", min_learning_rate
        )
        if self.min_learning_rate >= self.max_learning_rate:
            raise ValueError(
                "`min_learning_rate` must be below `max_learning_rate`. "
                f"Received: min_learning_rate={min_learning_rate}, "
                f"max_learning_rate={max_learning_rate}"
            )
        self.step_size = positive_int("step_size", step_size)
        self.decay_rate = positive_number("decay_rate", decay_rate)
        if self.decay_rate > 1:
            raise ValueError(
                "`decay_rate` must not exceed 1. "
                f"Received: decay_rate={decay_rate}"
            )
        self.decay_epochs = positive_int("decay_epochs", decay_epochs)
        self._optimizer = optimizer

    def upper_bound(self, epoch: int) -> float:
        """Returns the upper bound in an epoch, counted from 0."""
        return annealed_upper_bound(
            epoch,
            self.max_learning_rate,
            self.min_learning_rate,
            self.decay_rate,
            self.decay_epochs,
        )

    def learning_rate(self, epoch: int, iteration: int) -> float:
        """Returns the rate of an iteration, counted from 1 over all epochs."""
        rate = triangular_rate(
            np.asarray(iteration),
            self.upper_bound(epoch),
            self.min_learning_rate,
            self.step_size,
        )
        return float(rate)

    def plot(
        self, path: str | os.PathLike, epochs: int, steps_per_epoch: int
    ) -> None:
        """Draws the rate of every iteration; needs matplotlib.

        Args:
            path: File to write; the suffix is the format.
            epochs: Integer. Epochs to draw.
            steps_per_epoch: Integer. Iterations in an epoch.
        """
        from matplotlib.figure import Figure

        iterations = np.arange(epochs * steps_per_epoch)
        bounds = np.repeat(
            [self.upper_bound(epoch) for epoch in range(epochs)],
            steps_per_epoch,
        )
        rates = triangular_rate(
            iterations + 1, bounds, self.min_learning_rate, self.step_size
        )
        figure = Figure(figsize=(8, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(iterations / steps_per_epoch, bounds, "--", label="bound")
        axes.plot(iterations / steps_per_epoch, rates, label="rate")
        axes.set(xlabel="epoch", ylabel="learning rate", yscale="log")
        axes.legend()
        figure.savefig(path, dpi=150)

    @property
    def _cycled(self):
        """The optimizer, or the one under its loss scale."""
        optimizer = self._optimizer or self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer)

    def set_model(self, model):
        super().set_model(model)
        for other in callbacks_beside():
            if isinstance(other, _SETTERS):
                raise ValueError(
                    "`callbacks` must hold one that sets the learning rate. "
                    "Received: CyclicallyAnnealedLearningRate and "
                    f"{type(other).__name__}"
                )
        # Here, for `BackupAndRestore` may load a bound into the variable
        # before `on_train_begin` is called.
        optimizer = self._cycled
        if optimizer is None:
            raise ValueError(
                "The model must be compiled with an optimizer, or one be given "
                "as `optimizer`, to be cycled. Received: optimizer=None"
            )
        _put_back(optimizer)  # in case a `fit` was interrupted
        rate = cycled_rate(optimizer)
        if not isinstance(rate, keras.Variable):
            raise ValueError(
                "The optimizer's `learning_rate` must be a number, not a "
                "schedule, to be cycled. Received: "
                f"learning_rate={rate}"
            )
        self._own_rate = float(ops.convert_to_numpy(rate))

    def on_train_begin(self, logs=None):
        optimizer = self._cycled
        _put_back(optimizer)  # in case the list has another such callback
        cycle = _CycleRate(
            cycled_rate(optimizer),
            self._own_rate,
            self.min_learning_rate,
            self.step_size,
            optimizer.gradient_accumulation_steps or 1,
        )
        set_cycled_rate(optimizer, cycle)
        self.model.make_train_function(force=True)

    def on_epoch_begin(self, epoch, logs=None):
        cycle = cycled_rate(self._cycled)
        cycle.upper_bound.assign(self.upper_bound(epoch))
        self._iterations = int(ops.convert_to_numpy(self._cycled.iterations))

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self._cycled
        cycled_rate(optimizer).upper_bound.assign(self._own_rate)
        iterations = int(ops.convert_to_numpy(optimizer.iterations))
        if iterations == self._iterations:
            warnings.warn(
                f"The optimizer that is cycled, {optimizer.name}, made no step "
                f"in epoch {epoch}: give the one that trains the model as "
                "`optimizer`.",
                stacklevel=2,
            )
        if logs is not None:
            logs["learning_rate"] = self.learning_rate(epoch, iterations)

    def on_train_end(self, logs=None):
        _put_back(self._cycled)
        self.model.train_function = None


@keras.saving.register_keras_serializable(package="keras_embcomp")
class _CycleRate(keras.optimizers.schedules.LearningRateSchedule):
    """The triangle under a bound that lives in the optimizer's state.

    The bound is the variable that held the optimizer's own learning rate.
    """

    def __init__(
        self, upper_bound, own_rate, lower_bound, step_size, steps_per_update
    ):
        self.upper_bound = upper_bound
        self.own_rate = own_rate
        self.lower_bound = lower_bound
        self.step_size = step_size
        self.steps_per_update = steps_per_update

    def __call__(self, step):
        iteration = step // self.steps_per_update + 1
        return triangular_rate(
            iteration, self.upper_bound, self.lower_bound, self.step_size
        )

    def get_config(self):
        return {"learning_rate": self.own_rate}

    @classmethod
    def from_config(cls, config):
        # A model saved while it trains is loaded with a plain rate: the
        # schedule is the callback's.
        return config["learning_rate"]


def _put_back(optimizer):
    """Gives a cycled optimizer the variable and the rate it came with."""
    cycle = cycled_rate(optimizer)
    if isinstance(cycle, _CycleRate):
        cycle.upper_bound.assign(cycle.own_rate)
        set_cycled_rate(optimizer, cycle.upper_bound)
