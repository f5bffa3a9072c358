"""Trellis codes, as plans and devices see them."""

from keras_embcomp.layers.method import Method
from keras_embcomp.layers.trellis.layers import (
    TrellisCodedEmbedding,
    TrellisCodedSoftmax,
)
from keras_embcomp.numerics.product_quantized.fitting import check_rows_differ
from keras_embcomp.numerics.trellis.budgets import (
    arguments_of,
    expected_loss,
    smallest_structure,
    trellis_sizes,
)
from keras_embcomp.numerics.trellis.fitting import Structure

_DECODED = 10  # integer operations of a step


def _sizes(table, parameters, weights, **effort):
    check_rows_differ(table)
    return trellis_sizes(table, 4 * parameters, weights, **effort)


def _smallest(shape):
    return arguments_of(smallest_structure(*shape))


def _operations(arguments, shape, output):
    directions = arguments["num_parts"] * arguments.get("part_width", 1)
    decoded = _DECODED * arguments["num_parts"] + directions
    projected = 2 * directions * shape[1]
    if output:
        return projected + shape[0] * (decoded + 2 * directions)
    return decoded + projected


def _expected_loss(table, weights, group_bytes, group_sizes=None, **others):
    if group_sizes is None:
        group_bytes, group_sizes = tuple(group_bytes), (len(table),)
    others = {k: v for k, v in others.items() if k in Structure._fields}
    structure = Structure(tuple(group_sizes), tuple(group_bytes), **others)
    return expected_loss(structure, table, weights)


TRELLIS = Method(
    name="trellis_codes",
    embedding=TrellisCodedEmbedding,
    softmax=TrellisCodedSoftmax,
    sizes=_sizes,
    smallest=_smallest,
    operations=_operations,
    device_axes={"codes": 0},
    formats=(None,),  # its bytes are chosen by an argument
    formats_of_auto=(None,),
    slow_fit=True,
    expected_loss=_expected_loss,
    efforts={"low": {"state_bits": 10}, "high": {"state_bits": 12}},
)
