from keras_embcomp.layers.product_quantized.layers import (
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
)

__all__ = ["ProductQuantizedEmbedding", "ProductQuantizedSoftmax"]
