"""The JSON of TensorFlow Serving's REST interface, for the stand-in."""

import base64
import json
import re
from http.server import BaseHTTPRequestHandler

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<number>\d+))?"
    r"(?P<what>:predict|/metadata)?"
)


def handler(model):
    """Returns the class that answers requests about a model."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self._answer({None: status, "/metadata": metadata})

        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            self._answer({":predict": lambda *at: predict(*at, body)})

        def _answer(self, functions):
            try:
                code, content = 200, self._found(functions)
            except LookupError as error:
                code, content = 404, {"error": str(error)}
            except (ValueError, tf.errors.InvalidArgumentError) as error:
                code, content = 400, {"error": str(error)}
            content = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _found(self, functions):
            match = _PATH.fullmatch(self.path)
            if not match or match["what"] not in functions:
                raise ValueError(f"Malformed request: {self.path}")
            if match["name"] != model.folder.name:
                raise LookupError(f"Servable not found: {match['name']}")
            number = match["number"] and int(match["number"])
            return functions[match["what"]](model, number)

    return Handler


def status(model, number):
    """Returns the state of a version, or of all of them."""
    version = model.of(number)
    states = [(version.number, "AVAILABLE")]
    if number is None:
        states += [(ended, "END") for ended in model.ended]
    fine = {"error_code": "OK", "error_message": ""}
    return {
        "model_version_status": [
            {"version": str(number), "state": state, "status": fine}
            for number, state in states
        ]
    }


def metadata(model, number):
    """Returns the signatures of a version."""
    version = model.of(number)
    return {
        "model_spec": {
            "name": model.folder.name,
            "version": str(version.number),
        },
        "metadata": {
            "signature_def": {
                "signature_def": {
                    name: json_format.MessageToDict(
                        signature, preserving_proto_field_name=True
                    )
                    for name, signature in version.signatures.items()
                }
            }
        },
    }


def predict(model, number, body):
    """Returns predictions for instances in rows, or for inputs in columns."""
    version = model.of(number)
    request = json.loads(body)
    if not isinstance(request, dict) or (
        ("instances" in request) == ("inputs" in request)
    ):
        raise ValueError("Missing 'inputs' or 'instances' key")
    name = request.get("signature_name")
    specs = version.signature(name).inputs
    in_rows = "instances" in request
    given = request["instances" if in_rows else "inputs"]
    if in_rows and given and _is_named(given[0]):
        given = {key: [one[key] for one in given] for key in given[0]}
    if not _is_named(given):
        if len(specs) != 1:
            raise ValueError(f"The inputs need names: {sorted(specs)}")
        given = dict.fromkeys(specs, given)
    unknown = set(given) - set(specs)
    if unknown:
        raise ValueError(f"unexpected inputs {sorted(unknown)}")
    arrays = {k: _array(k, v, specs[k].dtype) for k, v in given.items()}
    outputs = {
        key: _json(key, value)
        for key, value in version.run(name, arrays).items()
    }
    (first, *more) = outputs.values()
    if not in_rows:
        return {"outputs": outputs if more else first}
    rows = zip(*outputs.values(), strict=True)
    named = [dict(zip(outputs, row, strict=True)) for row in rows]
    return {"predictions": named if more else first}


def _is_named(value):
    return isinstance(value, dict) and set(value) != {"b64"}


def _array(key, value, dtype):
    """Returns JSON as an array of a signature's dtype, or raises."""
    dtype = tf.dtypes.as_dtype(dtype)
    if dtype == tf.string:
        return np.array(_bytes(value), dtype=object)
    array = np.array(value)
    if dtype.is_integer and (
        array.dtype.kind != "i"
        or array.min(initial=0) < dtype.min
        or array.max(initial=0) > dtype.max
    ):
        raise ValueError(f"{key}: JSON value is not of type {dtype.name}")
    return array.astype(dtype.as_numpy_dtype)


def _bytes(value):
    if isinstance(value, list):
        return [_bytes(one) for one in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode()


def _json(key, array):
    if array.dtype != object:
        return array.tolist()

    def text(value):
        if isinstance(value, list):
            return [text(one) for one in value]
        if key.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode()

    return text(array.tolist())
