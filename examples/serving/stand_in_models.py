"""Versions of a SavedModel in a folder, loaded as they appear.

Part of the stand-in of `stand_in_server.py`. A version is loaded by
TensorFlow's own loader of graphs and signatures: neither Keras nor
keras_embcomp takes part.
"""

import threading
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2


class Version:
    """A loaded SavedModel, warmed up with its own requests."""

    def __init__(self, folder):
        self.number = int(folder.name)
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(
                self._session, ["serve"], str(folder)
            )
        self.signatures = {
            name: signature
            for name, signature in loaded.signature_def.items()
            if not name.startswith("__")
        }
        self.warmed_up = 0
        requests = folder / "assets.extra" / "tf_serving_warmup_requests"
        if requests.exists():
            for record in tf.data.TFRecordDataset(str(requests)):
                log = prediction_log_pb2.PredictionLog.FromString(
                    record.numpy()
                )
                request = log.predict_log.request
                self.run(
                    request.model_spec.signature_name,
                    {k: tf.make_ndarray(v) for k, v in request.inputs.items()},
                )
                self.warmed_up += 1

    def signature(self, name):
        """Returns a signature, or raises a `ValueError`."""
        name = name or "serving_default"
        if name not in self.signatures:
            raise ValueError(f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def run(self, name, inputs, only=()):
        """Returns outputs by name; inputs are not cast, as on the server.

        Raises:
            ValueError: if names or dtypes differ from the signature's.
            tf.errors.InvalidArgumentError: if the model refuses a value.
        """
        signature = self.signature(name)
        if set(inputs) != set(signature.inputs):
            raise ValueError(
                f"inputs {sorted(inputs)} are not those of the signature, "
                f"{sorted(signature.inputs)}"
            )
        if not set(only) <= set(signature.outputs):
            raise ValueError(f"output_filter {list(only)} is not of outputs")
        feeds = {}
        for key, value in inputs.items():
            wanted = tf.dtypes.as_dtype(signature.inputs[key].dtype)
            if tf.dtypes.as_dtype(value.dtype) != wanted:
                raise ValueError(
                    f"{key} expected dtype {wanted.name}, got {value.dtype}"
                )
            feeds[signature.inputs[key].name] = value
        names = sorted(only or signature.outputs)
        found = self._session.run(
            [signature.outputs[key].name for key in names], feeds
        )
        return dict(zip(names, map(np.asarray, found), strict=True))


class Model:
    """The latest version in a folder, which is polled."""

    def __init__(self, folder, seconds=0.2):
        self.folder = Path(folder)
        self.version = None
        self.ended = []
        self.failures = []
        self._stop = threading.Event()
        self.refresh()
        self._watcher = threading.Thread(
            target=self._watch, args=(seconds,), daemon=True
        )
        self._watcher.start()

    def refresh(self):
        """Loads the highest version of the folder, if it is a new one."""
        names = [entry.name for entry in self.folder.iterdir()]
        latest = max((int(n) for n in names if n.isdecimal()), default=None)
        serving = self.version and self.version.number
        if latest in (None, serving):
            return
        try:
            loaded = Version(self.folder / str(latest))
        except Exception as error:
            self.failures.append(error)
            return
        if self.version is not None:
            self.ended.append(self.version.number)
        self.version = loaded

    def of(self, number=None):
        """Returns the version of a number, or raises a `LookupError`."""
        version = self.version
        if version is None or number not in (None, version.number):
            raise LookupError(
                f"Servable not found for request: {self.folder.name}, "
                f"version {number or 'latest'}"
            )
        return version

    def close(self):
        self._stop.set()
        self._watcher.join()

    def _watch(self, seconds):
        while not self._stop.wait(seconds):
            self.refresh()
