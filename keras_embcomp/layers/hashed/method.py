"""Shared sub-vectors, as plans and devices see them."""

from keras_embcomp.layers.hashed.layers import HashedEmbedding, HashedSoftmax
from keras_embcomp.layers.method import FromScratch, Method
from keras_embcomp.numerics.hashed.budgets import hashed_sizes


def _sizes(table, parameters, weights):
    return _shared(table.shape, parameters)


def _smallest(shape):
    return _shared(shape, 0)


def _shared(shape, parameters):
    vocabulary, width = shape
    sizes = hashed_sizes(vocabulary, width, parameters)
    return {name: sizes[name] for name in ("num_subvectors", "num_parts")}


def _sizes_from_scratch(shape, parameters, counts, side):
    return _on_side(side, _shared(shape, parameters))


def _sizes_with_private_rows(shape, parameters, counts, side):
    """Half of the numbers are rows of the first ids, one row at least."""
    vocabulary, width = shape
    private = min(max(int(parameters // (2 * width)), 1), vocabulary - 1)
    sizes = hashed_sizes(vocabulary, width, parameters, private)
    return _on_side(side, sizes)


def _on_side(side, sizes):
    # A pool for each part makes the logits of a tied table cheaper.
    return {**sizes, "shared_pool": False} if side == "tied" else sizes


def _operations(arguments, shape, output):
    parts, pool = arguments["num_parts"], arguments["num_subvectors"]
    private = arguments.get("num_private", 0)
    products = 2 * pool * shape[1] // parts + 2 * private * shape[1]
    return output * (products + (shape[0] - private) * parts)


HASHED = Method(
    name="hashed",
    embedding=HashedEmbedding,
    softmax=HashedSoftmax,
    sizes=_sizes,
    smallest=_smallest,
    operations=_operations,
    # A word's pieces are anywhere in the pool: each device holds a part of all.
    takes_covariance=False,
    device_axes={"subvectors": 1},
    from_scratch=(
        FromScratch(
            sizes=_sizes_from_scratch,
            known={
                "embedding": "From scratch on Penn Treebank, a fifth of the "
                "input table costs 1 % of perplexity, a twentieth 6 % "
                "(docs/shared_subvectors.md).",
                "softmax": "From scratch on Penn Treebank, an eighth of both "
                "tables costs 23 % of perplexity (docs/shared_subvectors.md).",
            },
        ),
        FromScratch(
            name="private rows",
            sizes=_sizes_with_private_rows,
            known={
                "embedding": "From scratch on MovieLens 100k, a tenth: RMSE "
                "0.945, without private rows 0.938, dense 0.928 "
                "(docs/ids.md).",
            },
        ),
    ),
)
