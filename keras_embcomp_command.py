"""The command `keras-embcomp`, as far as it needs no model.

It is no part of the package: whatever is imports Keras, and that TensorFlow,
which takes seconds. What is wrong with a command's arguments is told before.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# What the package has, in words: a test compares them.
METHODS = (
    "auto",
    "trellis_codes",
    "product_codes",
    "low_rank",
    "group_reduce",
    "distilled",
    "tensor_train",
    "hashed",
)
EFFORTS = "low", "high"
FORMATS = "float32", "float16", "int8", "int4", "int2", "ternary"
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_REMARK = re.compile(
    rb"WARNING: All log messages before absl|[IW]\d{4} |"
    rb"E\d{4} .*failed call to cuInit"
)
_TEXTS = ".txt", ".vec", ".w2v", ".glove"
KINDS = (
    *(".keras", ".h5", ".hdf5", ".npy", ".npz"),
    *_TEXTS,
    *(text + ".gz" for text in _TEXTS),
)

_EPILOG = """examples:
  keras-embcomp plan model.keras --ratio 20 --output plan.json
  keras-embcomp compress model.keras small.keras --ratio 20
  keras-embcomp compress model.keras small.keras --plan plan.json
  keras-embcomp compress glove.txt glove.keras --ratio 16 --frequencies n.npy
  keras-embcomp report small.keras --baseline model.keras --plot report.png
  keras-embcomp compress model.keras small.keras --max-drop .01 \
    --evaluate my_scores:accuracy --data my_scores:training_batches
  keras-embcomp sweep model.keras --ratios 4 16 64 --plot sweep.png
  keras-embcomp export small.keras small.tflite --format int8 --batch 1
  keras-embcomp export small.keras small.onnx --format int4
  keras-embcomp export small.keras served_model --version 3
  keras-embcomp compress gpt2.keras small.keras --ratio 8 --import keras_hub
  keras-embcomp count corpus.txt counts.npy --tokenizer my_preset
  keras-embcomp trim my_preset small_preset --counts counts.npy --coverage .999

A MODEL is a .keras or .h5 file, or a table: .npy, .npz, or the text of word2vec
and GloVe (.txt, .vec, also .gz), which becomes a model of one embedding.
The exit code is 0, 1 with a line that says what is wrong, 2 for arguments that
there are not, or 130 after Ctrl-C.
"""
_FOLDER = (
    "an output that ends in .tflite is a file for LiteRT, one that ends in "
    ".onnx is for ONNX Runtime; a name without a dot, or a folder that exists, "
    "is a served model"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1, or 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.check(options)
        with _without_remarks():
            run = _started(options.modules)
        text, values = run(options)
        print(json.dumps(values) if options.json else text, flush=True)
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    except MemoryError as error:
        return _failed(f"not enough memory {error}")
    except BrokenPipeError:  # what read the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _failures() as error:
        return _failed(str(error) or type(error).__name__)
    return 0


def _started(modules):
    """Returns what runs a command, after all that it needs is imported."""
    for module in modules:
        importlib.import_module(module)
    from keras_embcomp.cli import run

    if "tensorflow" in sys.modules:  # or it looks for GPUs when it first runs
        sys.modules["tensorflow"].config.list_logical_devices()
    return run


@contextlib.contextmanager
def _without_remarks():
    """Drops what TensorFlow remarks at its start, unless its level is 0.

    It writes to the file descriptor, before that level holds.
    """
    try:
        kept = None if os.environ.get(_LEVEL) == "0" else os.dup(2)
    except OSError:  # nobody listens
        kept = None
    if kept is None:
        yield
        return
    os.environ.setdefault(_LEVEL, "2")
    with tempfile.TemporaryFile() as told:
        sys.stderr.flush()
        os.dup2(told.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            told.seek(0)
            for line in told:
                if not _REMARK.match(line):
                    os.write(2, line)


def _failures() -> tuple[type[Exception], ...]:
    """Returns the errors that are no fault of this program."""
    own = ValueError, ImportError, OSError, RuntimeError
    if "tensorflow" not in sys.modules:
        return own
    return (*own, sys.modules["tensorflow"].errors.OpError)


def _failed(text: str, code: int = 1) -> int:
    """Says in a line what went wrong; returns the exit code."""
    print("keras-embcomp:", *text.split(), file=sys.stderr)
    return code


class _Version(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        from importlib.metadata import version

        print("keras-embcomp", version("keras_embcomp"))
        parser.exit()


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-embcomp",
        description="Keras models with small vocabulary tables.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print it and exit"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, check, text, subject="model", kinds=None):
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument(subject, help=kinds or f"a file: {', '.join(KINDS)}")
        added.add_argument(
            "--json", action="store_true", help="print the result as JSON"
        )
        added.add_argument(
            "--import",
            dest="modules",
            nargs="+",
            default=(),
            metavar="MODULE",
            help="modules that register the classes of the model, as keras_hub",
        )
        added.set_defaults(command=name, check=check)
        return added

    plan = command("plan", _check_plan, "show how a model would be compressed")
    _add_goal(plan)
    _add_output(plan, "--output", "a .json file for the plan")
    small = command(
        "compress", _check_compress, "write a model with small tables"
    )
    _add_output(small, "output", "a .keras file")
    _add_goal(small).add_argument("--plan", help="a .json file of a plan")
    told = command("report", _check_report, "tell sizes, times and errors")
    told.add_argument("--baseline", help="the model before compression")
    told.add_argument("--frequencies", help="counts: .npy, or one a line")
    _add_output(told, "--plot", "a .png file to draw")
    swept = command("sweep", _check_sweep, "compare methods at several ratios")
    swept.add_argument(
        "--ratios", type=float, nargs="+", default=(4, 8, 16, 32, 64)
    )
    swept.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=("auto", "product_codes", "low_rank"),
    )
    _add_data(swept)
    _add_output(swept, "--plot", "a .png file to draw")
    _add_export(command)
    _add_count(command)
    _add_trim(command)
    return parser


def _add_export(command):
    export = command(
        "export",
        _check_export,
        "write a model for LiteRT, ONNX Runtime or TensorFlow Serving",
    )
    _add_output(export, "output", _FOLDER, "a .tflite or .onnx file")
    export.add_argument(
        "--version", type=int, help="of a served model; the next by default"
    )
    export.add_argument(
        "--format",
        default="float32",
        choices=FORMATS,
        help="of the tables in a file; one that ends in .onnx has no float16",
    )
    export.add_argument("--batch", type=int, help="fixed in a file")
    export.add_argument("--sequence", type=int, help="fixed in a file")


def _add_count(command):
    counted = command(
        "count",
        _check_count,
        "count how often each word occurs",
        "data",
        "ids in .npy, or text, one a line, also .gz",
    )
    _add_output(counted, "output", "a .npy file for the counts")
    counted.add_argument("--vocabulary", type=int, help="words there are")
    _add_tokenizer(counted)


def _add_trim(command):
    trimmed = command(
        "trim",
        _check_trim,
        "keep the words that are used",
        kinds=".keras, .h5, or the folder of a preset of keras-hub",
    )
    _add_output(trimmed, "output", "a .keras file, or a folder for a preset")
    trimmed.add_argument("--counts", help="a .npy file, or one a line")
    trimmed.add_argument("--keep", help="ids: a .npy file, or one a line")
    trimmed.add_argument("--size", type=int, help="words to keep")
    trimmed.add_argument("--coverage", type=float, help="of all counts, to 1")
    trimmed.add_argument("--multiple-of", type=int, help="such as 64")
    trimmed.add_argument("--tables", nargs="+", help="paths of its tables")
    trimmed.add_argument("--texts", help="to count pieces before and after")
    _add_tokenizer(trimmed)


def _add_tokenizer(parser):
    parser.add_argument(
        "--tokenizer",
        help="a tokenizer.json, a preset, or a model with a lookup",
    )


def _add_goal(parser):
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--ratio", type=float, help="bytes before over after")
    goal.add_argument("--max-error", type=float, help="of a table, below 1")
    goal.add_argument("--max-bytes", type=int, help="of all tables")
    goal.add_argument(
        "--max-drop", type=float, help="of the score: needs --evaluate"
    )
    goal.add_argument(
        "--min-score", type=float, help="of the model: needs --evaluate"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        help="auto if not given",
    )
    parser.add_argument(
        "--effort",
        choices=EFFORTS,
        help="low if not given; high is nearer to the table, and slower",
    )
    _add_data(parser)
    return goal


def _add_data(parser):
    parser.add_argument("--frequencies", help="counts: .npy, or one a line")
    parser.add_argument(
        "--data",
        help="data of the model, whose rows and hidden states count: .npy, "
        ".npz with an array for each input, or MODULE:FUNCTION",
    )
    parser.add_argument(
        "--evaluate",
        metavar="MODULE:FUNCTION",
        help="a function of a model that returns its score",
    )


def _add_output(parser, name, text, kept="an output"):
    parser.add_argument(name, type=Path, help=text)
    parser.add_argument(
        "--overwrite", action="store_true", help=f"replace {kept} there is"
    )


def checked(path, options, *suffixes):
    """Returns an output's path, or raises before the work is begun."""
    if path is None:
        return None
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(
            f"The output must end in {' or '.join(suffixes)}. Received: {path}"
        )
    if not path.absolute().parent.is_dir():
        raise ValueError(
            f"The output must be in a folder that exists. Received: {path}"
        )
    if path.exists() and not options.overwrite:
        raise ValueError(
            f"The output must not exist, unless --overwrite. Received: {path}"
        )
    return path


def _check_model(path):
    path = Path(path).expanduser()
    if not path.name.lower().endswith(KINDS):
        raise ValueError(
            f"`path` must end in one of {', '.join(KINDS)}. "
            f"Received: path={path}"
        )
    if not path.is_file():
        raise ValueError(f"`path` must be a file. Received: path={path}")


def _check_goal(options):
    for name, above, below in (
        ("ratio", 1, None),
        ("max_error", 0, 1),
        ("max_bytes", 0, None),
        ("max_drop", 0, None),
    ):
        value = getattr(options, name)
        if value is None:
            continue
        if not value > above or (below is not None and not value < below):
            rule = f"above {above}" + (f" and below {below}" if below else "")
            raise ValueError(
                f"`{name}` must be {rule}. Received: {name}={value}"
            )

    scored = options.max_drop is not None or options.min_score is not None
    if scored != (options.evaluate is not None):
        raise ValueError(
            "--max-drop and --min-score need --evaluate, and it needs one of "
            f"them. Received: evaluate={options.evaluate}"
        )
    _check_data(options)


def _check_data(options):
    if options.evaluate is not None:
        check_name("evaluate", options.evaluate)
    if options.data is None:
        return
    if not options.data.lower().endswith((".npy", ".npz")):
        check_name("data", options.data)
    elif not Path(options.data).is_file():
        raise ValueError(f"`data` must be a file. Received: {options.data}")


def check_name(name, text):
    """Raises unless a text names a function of a module."""
    module, colon, function = text.partition(":")
    words = [*module.split("."), function]
    if not (colon and all(word.isidentifier() for word in words)):
        raise ValueError(
            f"`{name}` must be MODULE:FUNCTION. Received: {name}={text}"
        )


def _check_plan(options):
    checked(options.output, options, ".json")
    _check_goal(options)
    _check_model(options.model)


def _check_compress(options):
    checked(options.output, options, ".keras")
    if options.plan is not None:
        for name in ("method", "effort"):
            given = getattr(options, name)
            if given is not None:
                raise ValueError(
                    f"--plan must come without --{name}, as the plan has what "
                    f"follows from it. Received: --{name} {given}"
                )
    _check_goal(options)
    _check_model(options.model)


def _check_report(options):
    checked(options.plot, options, ".png", ".svg", ".pdf")
    _check_model(options.model)
    if options.baseline is not None:
        _check_model(options.baseline)


def _check_sweep(options):
    checked(options.plot, options, ".png", ".svg", ".pdf")
    _check_data(options)
    _check_model(options.model)


def _check_export(options):
    if options.output.suffix.lower() in (".tflite", ".onnx"):
        checked(options.output, options)
        if options.version is not None:
            raise ValueError(
                "--version is for the folder of a served model. Received: "
                f"{options.output} and --version {options.version}"
            )
    else:
        _check_served(options)
    _check_model(options.model)


def _check_served(options):
    output = options.output
    if output.suffix and not output.is_dir():
        raise ValueError(
            f"The suffix of the output must be known: {_FOLDER}. "
            f"Received: {output}"
        )
    if options.overwrite:
        raise ValueError(
            "--overwrite is for a .tflite or .onnx file: a server may have a "
            "version open, so each export of a served model is a new one. "
            f"Received: {output}"
        )
    fixed = options.batch, options.sequence
    if options.format != "float32" or fixed != (None, None):
        raise ValueError(
            "--format, --batch and --sequence are for an output that ends in "
            f".tflite or .onnx. Received: {output}"
        )


def _check_count(options):
    checked(options.output, options, ".npy")


def _check_trim(options):
    checked(options.output, options)
    checked(beside(options.output, ".trimming.json"), options)
    if not Path(options.model).is_dir():  # a preset of keras-hub
        checked(options.output, options, ".keras")
        _check_model(options.model)


def beside(output, suffix):
    """Returns the path of a file that belongs to an output."""
    return output.with_name(output.name.removesuffix(".keras") + suffix)


if __name__ == "__main__":
    sys.exit(main())
