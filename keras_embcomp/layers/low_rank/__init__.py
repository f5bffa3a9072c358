from keras_embcomp.layers.low_rank.layers import (
    LowRankEmbedding,
    LowRankSoftmax,
)

__all__ = ["LowRankEmbedding", "LowRankSoftmax"]
