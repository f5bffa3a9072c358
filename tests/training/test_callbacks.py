"""The rate that the optimizer applies, read off a weight of gradient 1."""

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf

from keras_embcomp import CyclicallyAnnealedLearningRate

STEPS = 17  # in an epoch; divided by no `steps_per_execution` below
SCHEDULE = {
    "max_learning_rate": 0.1,
    "min_learning_rate": 0.004,
    "step_size": 5,
    "decay_rate": 0.4,
    "decay_epochs": 1,
}


def expected_rates(epochs):
    return oracles.cyclically_annealed_rates(
        0.1, 0.004, 0.4, 1, 5, epochs, STEPS
    )


def one_weight_model(optimizer=None, **kwargs):
    """Each step of plain SGD adds the learning rate to the only weight."""
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    model.compile(
        optimizer or keras.optimizers.SGD(0.5),
        loss=lambda y_true, y_pred: -y_pred,
        **kwargs,
    )
    return model


def fit(model, epochs, data=None, **kwargs):
    callback = CyclicallyAnnealedLearningRate(**SCHEDULE)
    extra = kwargs.pop("callbacks", [])
    if data is None:
        data = (np.ones((STEPS, 1)), np.ones(STEPS))
        kwargs["batch_size"] = 1
    else:
        data = (data,)
    return model.fit(
        *data,
        epochs=epochs,
        callbacks=[callback, *extra],
        verbose=0,
        **kwargs,
    )


def needs_steps_and_xla(steps, xla=False):
    if keras.backend.backend() == "torch" and (steps > 1 or xla):
        pytest.skip("Keras on PyTorch has no XLA and runs step by step")


def weight(model):
    return float(model.get_weights()[0][0, 0])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("steps_per_execution", [1, 7])
def test_the_optimizer_applies_the_papers_rates(
    steps_per_execution, jit_compile
):
    needs_steps_and_xla(steps_per_execution, jit_compile)
    model = one_weight_model(
        steps_per_execution=steps_per_execution, jit_compile=jit_compile
    )
    history = fit(model, epochs=5)
    rates = expected_rates(5)
    assert weight(model) == pytest.approx(sum(rates), rel=1e-5)
    # Epoch ends; the bound restarts in the fifth, as 0.1 * 0.4**4 < 0.004.
    assert history.history["learning_rate"] == pytest.approx(
        rates[STEPS - 1 :: STEPS], rel=1e-5
    )


def test_every_iteration_has_its_own_rate():
    class Weights(keras.callbacks.Callback):
        seen = [0.0]

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(weight(self.model))

    model = one_weight_model()
    fit(model, epochs=3, callbacks=[Weights()])
    np.testing.assert_allclose(
        np.diff(Weights.seen), expected_rates(3), rtol=1e-3, atol=1e-6
    )


class _Iterations(keras.callbacks.Callback):
    """Notes `optimizer.iterations` at the start of each epoch."""

    def __init__(self):
        super().__init__()
        self.starts = []

    def on_epoch_begin(self, epoch, logs=None):
        self.starts.append(int(self.model.optimizer.iterations))


@pytest.mark.parametrize("steps_per_execution", [1, 7])
def test_the_dataset_may_be_of_unknown_size(steps_per_execution):
    needs_steps_and_xla(steps_per_execution)
    data = (np.ones((1, 1), "float32"), np.ones((1, 1), "float32"))
    data = tf.data.Dataset.from_tensors(data).repeat(STEPS)
    data = data.filter(lambda x, y: True)
    assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY
    model, iterations = one_weight_model(), _Iterations()
    model.steps_per_execution = steps_per_execution
    with pytest.warns(UserWarning, match="ran out of data|shuffle"):
        fit(model, epochs=3, data=data, callbacks=[iterations])
    # On TensorFlow the step that finds the data at an end counts as an
    # iteration of the optimizer, whose cycle goes on from there.
    for epoch, start in enumerate(iterations.starts):
        assert epoch * STEPS <= start <= epoch * (STEPS + 1)
    callback = CyclicallyAnnealedLearningRate(**SCHEDULE)
    rates = [
        callback.learning_rate(epoch, start + i)
        for epoch, start in enumerate(iterations.starts)
        for i in range(1, STEPS + 1)
    ]
    assert weight(model) == pytest.approx(sum(rates), rel=1e-5)


def test_a_second_fit_restarts_the_bound_and_goes_on_in_the_cycle():
    model = one_weight_model()
    fit(model, epochs=1)
    before = weight(model)
    fit(model, epochs=1)
    callback = CyclicallyAnnealedLearningRate(**SCHEDULE)
    rates = [callback.learning_rate(0, STEPS + i) for i in range(1, STEPS + 1)]
    assert weight(model) - before == pytest.approx(sum(rates), rel=1e-4)


def test_initial_epoch_starts_at_its_bound():
    model = one_weight_model()
    fit(model, epochs=4, initial_epoch=2)
    callback = CyclicallyAnnealedLearningRate(**SCHEDULE)
    rates = [
        callback.learning_rate(2 + i // STEPS, i + 1) for i in range(2 * STEPS)
    ]
    assert weight(model) == pytest.approx(sum(rates), rel=1e-5)


class _Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("first", [True, False])
def test_training_resumes_where_a_backup_left_it(tmp_path, first):
    def callbacks(*more):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        cycle = CyclicallyAnnealedLearningRate(**SCHEDULE)
        return [*([cycle, backup] if first else [backup, cycle]), *more]

    data = np.ones((STEPS, 1)), np.ones(STEPS)
    kwargs = {"batch_size": 1, "verbose": 0, "epochs": 5}
    with pytest.raises(KeyboardInterrupt):
        one_weight_model().fit(
            *data, callbacks=callbacks(_Interrupt()), **kwargs
        )
    model = one_weight_model()
    history = model.fit(*data, callbacks=callbacks(), **kwargs)
    assert len(history.epoch) == 2
    assert float(model.optimizer.learning_rate) == 0.5
    assert weight(model) == pytest.approx(sum(expected_rates(5)), rel=1e-5)


def test_the_optimizer_gets_its_own_rate_back():
    model = one_weight_model()
    names = [variable.path for variable in model.optimizer.variables]
    fit(model, epochs=2)
    assert [variable.path for variable in model.optimizer.variables] == names
    assert float(model.optimizer.learning_rate) == 0.5
    before = weight(model)
    model.fit(np.ones((1, 1)), np.ones(1), verbose=0)
    assert weight(model) - before == pytest.approx(0.5, rel=1e-5)


def test_an_interrupted_fit_leaves_nothing_in_the_way():
    model = one_weight_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=5, callbacks=[_Interrupt()])
    before = weight(model)
    fit(model, epochs=1)
    callback = CyclicallyAnnealedLearningRate(**SCHEDULE)
    rates = [
        callback.learning_rate(0, 3 * STEPS + i) for i in range(1, STEPS + 1)
    ]
    assert weight(model) - before == pytest.approx(sum(rates), rel=1e-4)
    assert float(model.optimizer.learning_rate) == 0.5


def test_an_interrupted_fit_can_be_ended_by_hand():
    model = one_weight_model()
    callback = CyclicallyAnnealedLearningRate(**SCHEDULE)
    data = np.ones((STEPS, 1)), np.ones(STEPS)
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            *data, epochs=5, callbacks=[callback, _Interrupt()], verbose=0
        )
    callback.on_train_end()
    before = weight(model)
    model.fit(*data, batch_size=1, verbose=0)
    assert weight(model) - before == pytest.approx(STEPS * 0.5, rel=1e-4)


def test_a_second_callback_in_the_list_takes_over():
    model = one_weight_model()
    other = CyclicallyAnnealedLearningRate(9.0, 5.0, 3)
    data = np.ones((STEPS, 1)), np.ones(STEPS)
    ours = CyclicallyAnnealedLearningRate(**SCHEDULE)
    model.fit(*data, batch_size=1, callbacks=[other, ours], verbose=0)
    assert weight(model) == pytest.approx(sum(expected_rates(1)), rel=1e-5)
    assert float(model.optimizer.learning_rate) == 0.5


def test_iterations_are_updates_when_gradients_are_accumulated():
    optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=4)
    model = one_weight_model(optimizer)
    data = np.ones((40, 1)), np.ones(40)
    callback = CyclicallyAnnealedLearningRate(**SCHEDULE)
    model.fit(*data, batch_size=1, callbacks=[callback], verbose=0)
    rates = [callback.learning_rate(0, i) for i in range(1, 11)]
    assert weight(model) == pytest.approx(sum(rates), rel=1e-4)


def test_a_model_saved_while_it_trains_loads_with_a_plain_rate(tmp_path):
    path = tmp_path / "model.keras"
    save = keras.callbacks.ModelCheckpoint(path)
    model = one_weight_model(keras.optimizers.Adam(0.5), metrics=["mae"])
    model.compile(keras.optimizers.Adam(0.5), loss="mse")
    fit(model, epochs=2, callbacks=[save])
    loaded = keras.saving.load_model(path)
    assert float(loaded.optimizer.learning_rate) == 0.5
    assert int(loaded.optimizer.iterations) == 2 * STEPS
    for one, other in zip(
        loaded.optimizer.variables[2:],
        model.optimizer.variables[2:],
        strict=True,
    ):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_cycles_the_optimizer_under_a_loss_scale():
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.5), initial_scale=2.0
    )
    model = one_weight_model(optimizer)
    fit(model, epochs=2)
    assert weight(model) == pytest.approx(sum(expected_rates(2)), rel=1e-5)
    assert float(model.optimizer.learning_rate) == 0.5


def test_a_schedule_in_the_optimizer_is_refused():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    model = one_weight_model(keras.optimizers.SGD(schedule))
    with pytest.raises(ValueError, match="must be a number, not a schedule"):
        fit(model, epochs=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"min_learning_rate": 0.1},
            "`min_learning_rate` must be below "
            "`max_learning_rate`. Received: min_learning_rate=0.1, "
            "max_learning_rate=0.1",
        ),
        (
            {"min_learning_rate": 0},
            "`min_learning_rate` must be a finite number ab",
        ),
        ({"step_size": 0}, "`step_size` must be a positive integer"),
        ({"decay_epochs": -1}, "`decay_epochs` must be a positive integer"),
        ({"decay_rate": 1.1}, "`decay_rate` must not exceed 1"),
        ({"decay_rate": "x"}, "Received: decay_rate=x"),
        ({"decay_rate": None}, "Received: decay_rate=None"),
        ({"max_learning_rate": "1"}, "Received: max_learning_rate=1"),
        ({"decay_rate": 0.0}, "Received: decay_rate=0.0"),
    ],
)
def test_wrong_schedules_are_refused_in_words(wrong, message):
    with pytest.raises(ValueError) as error:
        CyclicallyAnnealedLearningRate(**{**SCHEDULE, **wrong})
    assert message in str(error.value)


def test_plots_the_schedule(tmp_path):
    path = tmp_path / "schedule.png"
    CyclicallyAnnealedLearningRate(**SCHEDULE).plot(path, 5, STEPS)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "other",
    [
        keras.callbacks.ReduceLROnPlateau("loss"),
        keras.callbacks.LearningRateScheduler(lambda epoch: 0.1),
    ],
    ids=lambda other: type(other).__name__,
)
@pytest.mark.parametrize("first", [True, False])
def test_another_callback_that_sets_the_rate_is_refused_at_once(other, first):
    model = one_weight_model()
    callbacks = [CyclicallyAnnealedLearningRate(**SCHEDULE), other]
    callbacks = callbacks if first else callbacks[::-1]
    data = np.ones((4, 1)), np.ones(4)
    with pytest.raises(ValueError) as error:
        model.fit(*data, callbacks=callbacks, verbose=0)
    assert str(error.value) == (
        "`callbacks` must hold one that sets the learning rate. Received: "
        f"CyclicallyAnnealedLearningRate and {type(other).__name__}"
    )
    assert weight(model) == 0
    model.fit(*data, verbose=0)  # with the optimizer's own rate again
    assert weight(model) == 0.5


def test_a_model_without_an_optimizer_is_refused_in_words():
    model = one_weight_model()
    model.compile(optimizer=None, loss="mse")
    with pytest.raises(ValueError, match="must be compiled with an optimizer"):
        fit(model, 1)


class TwoOptimizers(keras.Model):
    """Trains by an optimizer that is not the one of `compile`."""

    def __init__(self):
        super().__init__()
        self.own = keras.optimizers.SGD(0.5)
        self.kernel = self.add_weight(shape=(1, 1), initializer="zeros")
        self.built = True

    def call(self, inputs):
        return inputs @ self.kernel

    def train_step(self, data):
        # The gradient of the only weight is -1.
        self.own.apply([tf.constant([[-1.0]])], [self.kernel])
        return {"loss": tf.constant(0.0)}


@pytest.mark.tensorflow_only
def test_one_of_several_optimizers_is_cycled_and_no_idle_one_in_silence():
    model = TwoOptimizers()
    model.compile(keras.optimizers.Adam(), jit_compile=False)
    data = np.ones((STEPS, 1)), np.ones(STEPS)
    schedule = CyclicallyAnnealedLearningRate(**SCHEDULE, optimizer=model.own)
    model.fit(*data, 1, 2, callbacks=[schedule], verbose=0)
    assert weight(model) == pytest.approx(sum(expected_rates(2)), rel=1e-5)
    assert float(model.own.learning_rate) == 0.5
    idle = CyclicallyAnnealedLearningRate(**SCHEDULE)
    with pytest.warns(UserWarning, match="made no step in epoch 0: give the"):
        model.fit(*data, 1, callbacks=[idle], verbose=0)
