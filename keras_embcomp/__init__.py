"""Keras layers whose vocabulary-sized tables are stored in fewer numbers."""

from keras_embcomp.callbacks import CyclicallyAnnealedLearningRate
from keras_embcomp.compress import compress, to_keras
from keras_embcomp.deploy.litert import export_litert
from keras_embcomp.deploy.serving import export_serving
from keras_embcomp.distillation import EmbeddingDistiller
from keras_embcomp.distribution import TableParallel, layout_map
from keras_embcomp.layers.crossentropy_head import CrossentropyHead
from keras_embcomp.layers.distilled import (
    DistilledEmbedding,
    DistilledSoftmax,
)
from keras_embcomp.layers.group_reduce import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)
from keras_embcomp.layers.hashed import HashedEmbedding, HashedSoftmax
from keras_embcomp.layers.low_rank import LowRankEmbedding, LowRankSoftmax
from keras_embcomp.layers.product_quantized import (
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
)
from keras_embcomp.layers.tensor_train import TTEmbedding, TTSoftmax
from keras_embcomp.losses import compressed_crossentropy
from keras_embcomp.plan import CompressionPlan
from keras_embcomp.planning import plan_compression
from keras_embcomp.report import report
from keras_embcomp.resizing import resize_vocabulary
from keras_embcomp.sweep import sweep

__version__ = "0.1.0"

__all__ = [
    "CompressionPlan",
    "CrossentropyHead",
    "CyclicallyAnnealedLearningRate",
    "DistilledEmbedding",
    "DistilledSoftmax",
    "EmbeddingDistiller",
    "GroupReduceEmbedding",
    "GroupReduceSoftmax",
    "HashedEmbedding",
    "HashedSoftmax",
    "LowRankEmbedding",
    "LowRankSoftmax",
    "ProductQuantizedEmbedding",
    "ProductQuantizedSoftmax",
    "TTEmbedding",
    "TTSoftmax",
    "TableParallel",
    "compress",
    "compressed_crossentropy",
    "export_litert",
    "export_serving",
    "layout_map",
    "plan_compression",
    "report",
    "resize_vocabulary",
    "sweep",
    "to_keras",
]
