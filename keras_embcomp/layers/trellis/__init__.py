from keras_embcomp.layers.trellis.layers import (
    TrellisCodedEmbedding,
    TrellisCodedSoftmax,
)

__all__ = ["TrellisCodedEmbedding", "TrellisCodedSoftmax"]
