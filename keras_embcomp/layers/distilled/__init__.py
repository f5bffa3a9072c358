from keras_embcomp.layers.distilled.layers import (
    DistilledEmbedding,
    DistilledSoftmax,
)

__all__ = ["DistilledEmbedding", "DistilledSoftmax"]
