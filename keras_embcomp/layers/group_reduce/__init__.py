from keras_embcomp.layers.group_reduce.layers import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)

__all__ = ["GroupReduceEmbedding", "GroupReduceSoftmax"]
