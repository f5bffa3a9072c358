"""A stand-in for TensorFlow Serving: its protocol, not its server.

It answers the gRPC and REST requests of TensorFlow Serving, with the messages
of the package `tensorflow-serving-api`, for one model in a folder of versions:
enough to try an exported model and a client of it where the stock server cannot
be had. It shows that names, dtypes, shapes and messages fit; it says nothing of
the stock server's speed, batching or configuration. It listens on this machine
only.

    python examples/serving/stand_in_server.py build/served_model
"""

import argparse
import contextlib
import os
import threading
import time
from concurrent import futures
from http.server import ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import tensorflow as tf
from stand_in_models import Model
from stand_in_rest import handler
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

_HOST = "127.0.0.1"
_AVAILABLE, _END = 30, 50  # of ModelVersionStatus.State


class Service(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Answers gRPC requests about one model."""

    def __init__(self, model):
        self._model = model

    def Predict(self, request, context):
        version = self._version(request, context)
        spec = request.model_spec
        try:
            found = version.run(
                spec.signature_name,
                {k: tf.make_ndarray(v) for k, v in request.inputs.items()},
                request.output_filter,
            )
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse()
        self._fill_spec(response.model_spec, version)
        response.model_spec.signature_name = (
            spec.signature_name or "serving_default"
        )
        for name, value in found.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def GetModelMetadata(self, request, context):
        version = self._version(request, context)
        if list(request.metadata_field) != ["signature_def"]:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Metadata fields {list(request.metadata_field)} are not "
                "supported",
            )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in version.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._fill_spec(response.model_spec, version)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def GetModelStatus(self, request, context):
        version = self._version(request, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(
            version=version.number, state=_AVAILABLE
        )
        if not request.model_spec.HasField("version"):
            for number in self._model.ended:
                response.model_version_status.add(version=number, state=_END)
        return response

    def _version(self, request, context):
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        try:
            if spec.name != self._model.folder.name:
                raise LookupError(f"Servable not found: {spec.name}")
            return self._model.of(number)
        except LookupError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    def _fill_spec(self, spec, version):
        spec.name = self._model.folder.name
        spec.version.value = version.number


@contextlib.contextmanager
def serving(folder, grpc_port=0, rest_port=0):
    """Serves a model within the context, which yields it and the two ports.

    Args:
        folder: Path of the versions; its name is the model's.
        grpc_port: Integer; 0 takes a free port.
        rest_port: Integer; 0 takes a free port.
    """
    model = Model(folder)
    remote = grpc.server(futures.ThreadPoolExecutor(2))
    service = Service(model)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        service, remote
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, remote)
    grpc_port = remote.add_insecure_port(f"{_HOST}:{grpc_port}")
    rest = ThreadingHTTPServer((_HOST, rest_port), handler(model))
    answering = threading.Thread(target=rest.serve_forever, daemon=True)
    remote.start()
    answering.start()
    try:
        yield model, grpc_port, rest.server_port
    finally:
        rest.shutdown()
        rest.server_close()
        answering.join()
        remote.stop(None).wait()
        model.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="with a folder a version")
    parser.add_argument("--grpc-port", type=int, default=8500)
    parser.add_argument("--rest-port", type=int, default=8501)
    parser.add_argument("--seconds", type=float, help="stop after so many")
    options = parser.parse_args()
    # Like the stock server, offer the operations of TensorFlow Text, if they
    # are installed.
    with contextlib.suppress(ImportError):
        import tensorflow_text  # noqa: F401
    ports = options.grpc_port, options.rest_port
    with serving(options.folder.absolute(), *ports) as (model, *ports):
        print(f"version {model.of().number} on ports {ports}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(options.seconds or threading.TIMEOUT_MAX)


if __name__ == "__main__":
    main()
