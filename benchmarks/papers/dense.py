"""The dense baseline of the papers' experiments."""

import keras

from keras_embcomp.numerics.lookup import take_rows


class DenseGradientEmbedding(keras.layers.Embedding):
    """A dense embedding with dense gradients, like our layers.

    On TensorFlow, Keras' own embedding gives Adam repeated slices, and Adam
    squares them one by one.
    """

    def call(self, inputs):
        return take_rows(self.embeddings, inputs)
