"""The command `keras-embcomp`."""

import argparse
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_embcomp.compression.choose import plan_compression
from keras_embcomp.compression.compress import compress
from keras_embcomp.compression.plan import CompressionPlan
from keras_embcomp.compression.sweep import sweep
from keras_embcomp.deploy.litert.export import export_litert
from keras_embcomp.deploy.litert.prepare import FORMATS
from keras_embcomp.deploy.onnx.export import export_onnx
from keras_embcomp.deploy.serving.export import export_serving
from keras_embcomp.files import written_whole
from keras_embcomp.layers.method import EFFORTS
from keras_embcomp.layers.methods import METHODS
from keras_embcomp.models.read import KINDS, read_counts, read_model
from keras_embcomp.reporting.measure import report
from keras_embcomp.vocabulary.change import described
from keras_embcomp.vocabulary.counts import count_ids
from keras_embcomp.vocabulary.files import (
    read_data,
    read_source,
    read_tokenizer,
    write_source,
)
from keras_embcomp.vocabulary.trim import trim_tokenizer, trim_vocabulary

_EPILOG = """examples:
  keras-embcomp plan model.keras --ratio 20 --output plan.json
  keras-embcomp compress model.keras small.keras --ratio 20
  keras-embcomp compress model.keras small.keras --plan plan.json
  keras-embcomp compress glove.txt glove.keras --ratio 16 --frequencies n.npy
  keras-embcomp report small.keras --baseline model.keras --plot report.png
  keras-embcomp sweep model.keras --ratios 4 16 64 --plot sweep.png
  keras-embcomp export small.keras small.tflite --format int8 --batch 1
  keras-embcomp export small.keras small.onnx --format int4
  keras-embcomp export small.keras served_model --version 3
  keras-embcomp compress gpt2.keras small.keras --ratio 8 --import keras_hub
  keras-embcomp count corpus.txt counts.npy --tokenizer my_preset
  keras-embcomp trim my_preset small_preset --counts counts.npy --coverage .999

A MODEL is a .keras or .h5 file, or a table: .npy, .npz, or the text of word2vec
and GloVe (.txt, .vec, also .gz), which becomes a model of one embedding.
The exit code is 0, 1 with a line that says what is wrong, or 130 after Ctrl-C.
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
        for module in options.modules:
            importlib.import_module(module)
        text, values = options.run(options)
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


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-embcomp",
        description="Keras models with small vocabulary tables.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, run, text, subject="model", kinds=None):
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
        added.set_defaults(run=run)
        return added

    plan = command("plan", _plan, "show how a model would be compressed")
    _add_goal(plan)
    _add_output(plan, "--output", "a .json file for the plan")
    small = command("compress", _compress, "write a model with small tables")
    _add_output(small, "output", "a .keras file")
    _add_goal(small).add_argument("--plan", help="a .json file of a plan")
    told = command("report", _report, "tell sizes, times and errors")
    told.add_argument("--baseline", help="the model before compression")
    told.add_argument("--frequencies", help="counts: .npy, or one a line")
    _add_output(told, "--plot", "a .png file to draw")
    swept = command("sweep", _sweep, "compare methods at several ratios")
    swept.add_argument(
        "--ratios", type=float, nargs="+", default=(4, 8, 16, 32, 64)
    )
    swept.add_argument(
        "--methods", nargs="+", default=("auto", "product_codes", "low_rank")
    )
    swept.add_argument("--frequencies", help="counts: .npy, or one a line")
    _add_output(swept, "--plot", "a .png file to draw")
    _add_export(command)
    _add_count(command)
    _add_trim(command)
    return parser


def _add_export(command):
    export = command(
        "export",
        _export,
        "write a model for LiteRT, ONNX Runtime or TensorFlow Serving",
    )
    _add_output(export, "output", _FOLDER, "a .tflite or .onnx file")
    export.add_argument(
        "--version", type=int, help="of a served model; the next by default"
    )
    export.add_argument(
        "--format",
        default="float32",
        choices=list(FORMATS),
        help="of the tables in a file; one that ends in .onnx has no float16",
    )
    export.add_argument("--batch", type=int, help="fixed in a file")
    export.add_argument("--sequence", type=int, help="fixed in a file")


def _add_count(command):
    counted = command(
        "count",
        _count,
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
        _trim,
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
    parser.add_argument(
        "--method",
        choices=["auto", *(method.name for method in METHODS)],
        help="auto if not given",
    )
    parser.add_argument(
        "--effort",
        choices=EFFORTS,
        help="low if not given; high is nearer to the table, and slower",
    )
    parser.add_argument("--frequencies", help="counts: .npy, or one a line")
    return goal


def _add_output(parser, name, text, kept="an output"):
    parser.add_argument(name, type=Path, help=text)
    parser.add_argument(
        "--overwrite", action="store_true", help=f"replace {kept} there is"
    )


def _checked(path, options, *suffixes):
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


def _written(path, options):
    """Returns a context that writes a checked output whole."""
    return written_whole(path, overwrite=options.overwrite)


def _goal(options):
    return {
        "ratio": options.ratio,
        "max_error": options.max_error,
        "max_bytes": options.max_bytes,
        "method": options.method or "auto",
        "effort": options.effort or "low",
    }


def _counts(options):
    if options.frequencies is None:
        return None
    return read_counts(options.frequencies)


def _plan(options):
    output = _checked(options.output, options, ".json")
    found = plan_compression(
        read_model(options.model),
        frequencies=_counts(options),
        **_goal(options),
    )
    if output is not None:
        with _written(output, options) as temporary:
            found.save(temporary)
    return str(found), json.loads(found.to_json())


def _compress(options):
    output = _checked(options.output, options, ".keras")
    model, counts = read_model(options.model), _counts(options)
    if options.plan is not None:
        for name in ("method", "effort"):
            given = getattr(options, name)
            if given is not None:
                raise ValueError(
                    f"--plan must come without --{name}, as the plan has what "
                    f"follows from it. Received: --{name} {given}"
                )
        plan = CompressionPlan.load(options.plan)
    else:
        plan = plan_compression(model, frequencies=counts, **_goal(options))
    small = compress(
        model, plan, verbose=int(not options.json), frequencies=counts
    )
    with _written(output, options) as temporary:
        small.save(temporary)
    size = output.stat().st_size
    text = f"{output}: {size:,} bytes"
    values = {
        "path": str(output),
        "bytes": size,
        "plan": json.loads(plan.to_json()),
    }
    return text, values


def _report(options):
    output = _checked(options.plot, options, ".png", ".svg", ".pdf")
    baseline = None
    if options.baseline is not None:
        baseline = read_model(options.baseline)
    found = report(
        read_model(options.model), baseline, frequencies=_counts(options)
    )
    if output is not None:
        with _written(output, options) as temporary:
            found.plot(temporary)
    return str(found), dataclasses.asdict(found)


def _sweep(options):
    output = _checked(options.plot, options, ".png", ".svg", ".pdf")
    found = sweep(
        read_model(options.model),
        options.ratios,
        options.methods,
        frequencies=_counts(options),
    )
    if output is not None:
        with _written(output, options) as temporary:
            found.plot(temporary)
    return str(found), dataclasses.asdict(found)


def _export(options):
    suffix = options.output.suffix.lower()
    if suffix == ".tflite":
        return _export_file(options, export_litert, options.format)
    if suffix == ".onnx":
        as_it_is = options.format == "float32"
        return _export_file(
            options, export_onnx, None if as_it_is else options.format
        )
    return _export_serving(options)


def _export_file(options, export, table_format):
    output = _checked(options.output, options)
    if options.version is not None:
        raise ValueError(
            "--version is for the folder of a served model. "
            f"Received: {output} and --version {options.version}"
        )
    model = read_model(options.model)
    with _written(output, options) as temporary:
        written = export(
            model,
            temporary,
            table_format,
            batch=options.batch,
            sequence=options.sequence,
        )
    text = (
        f"{output}: {written.bytes:,} bytes, error "
        f"{written.error:.2g}, {written.latency_ms:.3g} ms a call"
    )
    return text, {**written._asdict(), "path": str(output)}


def _export_serving(options):
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
    model = read_model(options.model)
    folder = export_serving(model, output, version=options.version)
    return f"{folder}: same outputs as Keras", {"path": str(folder)}


def _count(options):
    output = _checked(Path(options.output), options, ".npy")
    tokenizer = None
    if options.tokenizer is not None:
        tokenizer = read_tokenizer(options.tokenizer)
    counts = count_ids(
        read_data(options.data),
        options.vocabulary,
        tokenizer,
        verbose=int(not options.json),
    )
    with _written(output, options) as temporary, open(temporary, "wb") as file:
        np.save(file, counts)
    used = int(np.count_nonzero(counts))
    values = {
        "path": str(output),
        "vocabulary": len(counts),
        "used": used,
        "total": int(counts.sum()),
    }
    text = (
        f"{output}: {values['total']:,} words, {used:,} of {len(counts):,} used"
    )
    return text, values


def _trim(options):
    output = _checked(options.output, options)
    beside = _checked(_beside(output, ".trimming.json"), options)
    source = read_source(options.model)
    if not source.is_preset:
        _checked(output, options, ".keras")
    ids = [options.keep, options.counts]
    keep, counts = (None if x is None else read_counts(x) for x in ids)
    tokenizer = source.tokenizer
    if options.tokenizer is not None:
        tokenizer = read_tokenizer(options.tokenizer)
    model, trimming = trim_vocabulary(
        source.model,
        None if keep is None else keep.astype("int64"),
        counts,
        options.size,
        options.coverage,
        tokenizer,
        options.tables,
        options.multiple_of,
    )
    new = trim_tokenizer(tokenizer, trimming) if tokenizer is not None else None
    texts = [] if options.texts is None else read_data(options.texts)
    if isinstance(new, str):  # the text of a tokenizer.json
        path = _checked(_beside(output, ".tokenizer.json"), options)
        with _written(path, options) as temporary:
            temporary.write_text(new, "utf-8")
        new = path
    both = tokenizer, new
    change = described(source.model, model, both, trimming, texts)
    with _written(output, options) as temporary:
        write_source(source._replace(model=model, tokenizer=new), temporary)
    trimming.save(beside)
    return f"{change}\n{output}, and {beside}", change.values()


def _beside(output, suffix):
    """Returns the path of a file that belongs to an output."""
    return output.with_name(output.name.removesuffix(".keras") + suffix)
