"""Low rank, as plans and devices see it."""

from keras_embcomp.layers.low_rank.layers import (
    LowRankEmbedding,
    LowRankSoftmax,
)
from keras_embcomp.layers.method import FromScratch, Method
from keras_embcomp.numerics.low_rank import low_rank_from_parameters


def _sizes(table, parameters, weights):
    return _sizes_from_scratch(table.shape, parameters, None, "embedding")


def _sizes_from_scratch(shape, parameters, counts, side):
    vocabulary, width = shape
    return {"rank": low_rank_from_parameters(vocabulary, width, parameters)}


def _operations(arguments, shape, output):
    return 2 * arguments["rank"] * (shape[1] + output * shape[0])


LOW_RANK = Method(
    name="low_rank",
    embedding=LowRankEmbedding,
    softmax=LowRankSoftmax,
    sizes=_sizes,
    smallest=lambda shape: {"rank": 1},
    operations=_operations,
    device_axes={"embeddings": 0},
    formats_of_auto=("int8", "int4"),
    from_scratch=(
        FromScratch(
            sizes=_sizes_from_scratch,
            known={
                "embedding": "From scratch, 30 times smaller: RMSE 0.958 on "
                "MovieLens, dense 0.927; 79.8 % on SST-2, dense 82.1 "
                "(docs/from_scratch.md).",
                "tied": "Not measured from scratch. An eighth of a trained "
                "table, trained further: 26.7 BLEU, dense 34.4 "
                "(docs/distilled.md).",
            },
        ),
    ),
)
