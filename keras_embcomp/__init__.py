"""Keras layers whose vocabulary-sized tables are stored in fewer numbers."""

from keras_embcomp.callbacks import CyclicallyAnnealedLearningRate
from keras_embcomp.deploy.litert import export_litert
from keras_embcomp.deploy.serving import export_serving
from keras_embcomp.layers.low_rank import LowRankEmbedding, LowRankSoftmax

__version__ = "0.1.0"

__all__ = [
    "CyclicallyAnnealedLearningRate",
    "LowRankEmbedding",
    "LowRankSoftmax",
    "export_litert",
    "export_serving",
]
