"""The command `keras-embcomp`."""

import argparse
import sys
from pathlib import Path

import keras

from keras_embcomp.deploy.litert import export_litert
from keras_embcomp.deploy.serving import export_serving

_EPILOG = """examples:
  keras-embcomp export model.keras model.tflite
  keras-embcomp export model.keras served_model --version 3
"""


def main(arguments=None):
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        print(options.run(options))
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"keras-embcomp: {error}", file=sys.stderr)
        return 1
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-embcomp",
        description="Keras models with small vocabulary tables.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    export = commands.add_parser(
        "export",
        help="write a .keras model for LiteRT or TensorFlow Serving",
    )
    export.add_argument("model", help="a .keras file")
    export.add_argument(
        "output",
        type=Path,
        help="a .tflite file, or the folder of a served model",
    )
    export.add_argument(
        "--version", type=int, default=1, help="of the served model"
    )
    export.set_defaults(run=_export)
    return parser


def _export(options):
    model = keras.saving.load_model(options.model, compile=False)
    if options.output.suffix.lower() == ".tflite":
        written = export_litert(model, options.output)
        return (
            f"{written.path}: {written.bytes:,} bytes, differs from Keras by "
            f"at most {written.max_difference:.2g}"
        )
    folder = export_serving(model, options.output, version=options.version)
    return f"{folder}: same outputs as Keras"
