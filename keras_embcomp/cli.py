"""What the command `keras-embcomp` does with models.

`keras_embcomp_command` parses and checks its arguments, without TensorFlow.
"""

import argparse
import dataclasses
import importlib
import json
import sys
from typing import Any

import numpy as np

from keras_embcomp.compression.choose import plan_compression
from keras_embcomp.compression.compress import compress
from keras_embcomp.compression.plan import CompressionPlan
from keras_embcomp.compression.search import search_plan
from keras_embcomp.compression.statistics import table_statistics
from keras_embcomp.compression.sweep import sweep
from keras_embcomp.deploy.litert.export import export_litert
from keras_embcomp.deploy.onnx.export import export_onnx
from keras_embcomp.deploy.serving.export import export_serving
from keras_embcomp.files import written_whole
from keras_embcomp.models.read import read_arrays, read_counts, read_model
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
from keras_embcomp_command import beside, checked, main

__all__ = ["main", "run"]


def run(options: argparse.Namespace) -> tuple[str, Any]:
    """Runs checked options; returns the output as a text and as values."""
    return _RUNS[options.command](options)


def _written(path, options):
    """Returns a context that writes a checked output whole."""
    return written_whole(path, overwrite=options.overwrite)


def _goal(options):
    return {
        "ratio": options.ratio,
        "max_error": options.max_error,
        "max_bytes": options.max_bytes,
        **_how(options),
    }


def _how(options):
    return {
        "method": options.method or "auto",
        "effort": options.effort or "low",
    }


def _counts(options):
    if options.frequencies is None:
        return None
    return read_counts(options.frequencies)


def _known(options):
    """Returns what a user knows of the tables: counts and data."""
    data = None
    if options.data is not None:
        if options.data.lower().endswith((".npy", ".npz")):
            data = read_arrays(options.data)
        else:
            data = _function(options.data)()
    return {"frequencies": _counts(options), "data": data}


def _function(text):
    """Returns the function that MODULE:FUNCTION names."""
    module, _, name = text.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` looks where it is called
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise ValueError(
            f"`{module}` must have a function `{name}`. Received: {found!r}"
        )
    return found


def _searched(options, model):
    """Returns the search for a score, or `None` for another goal."""
    if options.max_drop is None and options.min_score is None:
        return None
    return search_plan(
        model,
        _function(options.evaluate),
        options.max_drop,
        options.min_score,
        **_known(options),
        **_how(options),
        verbose=int(not options.json),
    )


def _plan(options):
    output = options.output
    model = read_model(options.model)
    search = _searched(options, model)
    if search is not None:
        found = search.plan
    else:
        found = plan_compression(model, **_known(options), **_goal(options))
    if output is not None:
        with _written(output, options) as temporary:
            found.save(temporary)
    return str(found), json.loads(found.to_json())


def _compress(options):
    output = options.output
    model = read_model(options.model)
    search = _searched(options, model)
    if search is not None:
        plan, small = search.plan, search.model
    else:
        verbose, known = int(not options.json), _known(options)
        if known["data"] is not None:  # once, for the plan and the fits
            known["data"] = table_statistics(
                model, known["data"], verbose=verbose
            )
        if options.plan is not None:
            plan = CompressionPlan.load(options.plan)
        else:
            plan = plan_compression(model, **known, **_goal(options))
        small = compress(model, plan, verbose, **known)
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
    output = options.plot
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
    output = options.plot
    found = sweep(
        read_model(options.model),
        options.ratios,
        options.methods,
        None if options.evaluate is None else _function(options.evaluate),
        **_known(options),
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
    output = options.output
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
    model = read_model(options.model)
    folder = export_serving(model, output, version=options.version)
    return f"{folder}: same outputs as Keras", {"path": str(folder)}


def _count(options):
    output = options.output
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
    output = options.output
    trimming_path = beside(output, ".trimming.json")
    source = read_source(options.model)
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
        path = checked(beside(output, ".tokenizer.json"), options)
        with _written(path, options) as temporary:
            temporary.write_text(new, "utf-8")
        new = path
    both = tokenizer, new
    change = described(source.model, model, both, trimming, texts)
    with _written(output, options) as temporary:
        write_source(source._replace(model=model, tokenizer=new), temporary)
    trimming.save(trimming_path)
    return f"{change}\n{output}, and {trimming_path}", change.values()


_RUNS = {
    "plan": _plan,
    "compress": _compress,
    "report": _report,
    "sweep": _sweep,
    "export": _export,
    "count": _count,
    "trim": _trim,
}
