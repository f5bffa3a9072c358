"""The dense baseline of the papers' experiments."""

import keras

from keras_embcomp.numerics.lookup import take_rows


class DenseGradientEmbedding(keras.layers.Embedding):
    """A dense embedding with the gradients that our layers have.

    Keras' own embedding hands Adam repeated slices on TensorFlow, which it
    squares one by one.
    """

    def call(self, inputs):
        return take_rows(self.embeddings, inputs)
