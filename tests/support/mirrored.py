"""Trains each method on TensorFlow, on two logical CPUs and on one.

python tests/support/mirrored.py found.json
"""

import json
import os
import sys
from pathlib import Path

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="2")

import on_devices
import tensorflow as tf

from keras_embcomp import CyclicallyAnnealedLearningRate


def losses_of(model, callbacks=()):
    data = tf.data.Dataset.from_tensor_slices(on_devices.some_data())
    return model.fit(
        data.batch(16),
        epochs=2,
        shuffle=False,
        callbacks=list(callbacks),
        verbose=0,
    ).history


def main(path):
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    found = {"replicas": strategy.num_replicas_in_sync}
    for pair in on_devices.WHOLE:
        one = losses_of(on_devices.model_of(pair))
        with strategy.scope():
            model = on_devices.model_of(pair)
        found[str(pair[0])] = [one["loss"], losses_of(model)["loss"]]
    cycle = [CyclicallyAnnealedLearningRate(1e-2, 1e-3, step_size=3)]
    with strategy.scope():
        model = on_devices.model_of(pair)
    found["cycled"] = [
        losses_of(on_devices.model_of(pair), cycle),
        losses_of(model, cycle),
    ]
    Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
