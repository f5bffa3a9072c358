from keras_embcomp.layers.hashed.layers import HashedEmbedding, HashedSoftmax

__all__ = ["HashedEmbedding", "HashedSoftmax"]
