from keras_embcomp.layers.tensor_train.layers import TTEmbedding, TTSoftmax

__all__ = ["TTEmbedding", "TTSoftmax"]
