"""Distilled tables, as plans and devices see them."""

from keras_embcomp.layers.distilled.layers import (
    DistilledEmbedding,
    DistilledSoftmax,
)
from keras_embcomp.layers.method import FromScratch, Method
from keras_embcomp.numerics.distilled import distilled_rank

_HIDDEN = 512


def _sizes(table, parameters, weights):
    return _with_hidden_layer(table.shape, parameters, weights, "embedding")


def _with_hidden_layer(shape, parameters, counts, side):
    vocabulary, width = shape
    left = int(parameters - vocabulary - 2 * width) // (width + 2)  # by rank 1
    hidden = max(min(_HIDDEN, int(parameters / (8 * width)), left), 1)
    rank = distilled_rank(vocabulary, width, parameters, hidden)
    return {"rank": min(rank, width), "hidden_dim": hidden}


def _paper_form(shape, parameters, counts, side):
    vocabulary, width = shape
    rank = distilled_rank(vocabulary, width, parameters)
    return {"rank": min(rank, width)}


def _operations(arguments, shape, output):
    rank, hidden = arguments["rank"], arguments.get("hidden_dim")
    if hidden is None:
        return 2 * rank * (shape[1] + output * shape[0])
    row = 2 * (rank * hidden + hidden * shape[1] + rank * shape[1])
    return shape[0] * (row + 2 * shape[1]) if output else row


DISTILLED = Method(
    name="distilled",
    embedding=DistilledEmbedding,
    softmax=DistilledSoftmax,
    sizes=_sizes,
    smallest=lambda shape: {"rank": 1, "hidden_dim": 1},
    operations=_operations,
    device_axes={"embeddings": 0},
    slow_fit=True,
    from_scratch=(
        FromScratch(
            sizes=_paper_form,
            known={
                "tied": "Not measured from scratch. An eighth of a trained "
                "table, trained further: 26.6 BLEU, dense 34.4 "
                "(docs/distilled.md).",
            },
        ),
        FromScratch(
            name="hidden layer",
            sizes=_with_hidden_layer,
            known={
                "tied": "An eighth, two epochs in a trained model: 20.0 BLEU "
                "from a random start, 31.5 from the trained table, dense 34.4 "
                "(docs/distilled.md).",
            },
        ),
    ),
)
