"""Keras layers whose vocabulary-sized tables are stored in fewer numbers."""

from keras_embcomp import _compat, _moved
from keras_embcomp.compression.choose import plan_compression
from keras_embcomp.compression.compress import compress
from keras_embcomp.compression.plan import CompressionPlan
from keras_embcomp.compression.search import PlanSearch, search_plan
from keras_embcomp.compression.statistics import (
    ModelStatistics,
    table_statistics,
)
from keras_embcomp.compression.sweep import sweep
from keras_embcomp.compression.table_sums import TableStatistics
from keras_embcomp.deploy.litert.export import export_litert
from keras_embcomp.deploy.onnx.export import export_onnx
from keras_embcomp.deploy.serving.export import export_serving
from keras_embcomp.from_scratch.suggest import suggest_layers
from keras_embcomp.from_scratch.suggestions import Suggestion, Suggestions
from keras_embcomp.layers.bags import EmbedReduce
from keras_embcomp.layers.distilled.layers import (
    DistilledEmbedding,
    DistilledSoftmax,
)
from keras_embcomp.layers.frequent_head import FrequentHead
from keras_embcomp.layers.group_reduce.layers import (
    GroupReduceEmbedding,
    GroupReduceSoftmax,
)
from keras_embcomp.layers.hashed.features import HashedFeatures
from keras_embcomp.layers.hashed.layers import HashedEmbedding, HashedSoftmax
from keras_embcomp.layers.hashed.ngrams import NGramIds
from keras_embcomp.layers.low_rank.layers import (
    LowRankEmbedding,
    LowRankSoftmax,
)
from keras_embcomp.layers.product_quantized.layers import (
    ProductQuantizedEmbedding,
    ProductQuantizedSoftmax,
)
from keras_embcomp.layers.tensor_train.layers import TTEmbedding, TTSoftmax
from keras_embcomp.layers.trellis.layers import (
    TrellisCodedEmbedding,
    TrellisCodedSoftmax,
)
from keras_embcomp.layers.two_sided import TwoSidedEmbedding
from keras_embcomp.models.dense import to_keras
from keras_embcomp.models.replace import replace_layers
from keras_embcomp.models.resize import resize_vocabulary
from keras_embcomp.reporting.measure import report
from keras_embcomp.training.callbacks import CyclicallyAnnealedLearningRate
from keras_embcomp.training.crossentropy import compressed_crossentropy
from keras_embcomp.training.crossentropy_head import CrossentropyHead
from keras_embcomp.training.distillation import EmbeddingDistiller
from keras_embcomp.training.distribution import TableParallel, layout_map
from keras_embcomp.training.table_weights import table_weights
from keras_embcomp.vocabulary.counts import count_ids
from keras_embcomp.vocabulary.trim import trim_tokenizer, trim_vocabulary
from keras_embcomp.vocabulary.trimming import Trimming

_compat.read_newer_files()
_moved.install()

__version__ = "0.1.0"

__all__ = [
    "CompressionPlan",
    "CrossentropyHead",
    "CyclicallyAnnealedLearningRate",
    "DistilledEmbedding",
    "DistilledSoftmax",
    "EmbedReduce",
    "EmbeddingDistiller",
    "FrequentHead",
    "GroupReduceEmbedding",
    "GroupReduceSoftmax",
    "HashedEmbedding",
    "HashedFeatures",
    "HashedSoftmax",
    "LowRankEmbedding",
    "LowRankSoftmax",
    "ModelStatistics",
    "NGramIds",
    "PlanSearch",
    "ProductQuantizedEmbedding",
    "ProductQuantizedSoftmax",
    "Suggestion",
    "Suggestions",
    "TTEmbedding",
    "TTSoftmax",
    "TableParallel",
    "TableStatistics",
    "TrellisCodedEmbedding",
    "TrellisCodedSoftmax",
    "Trimming",
    "TwoSidedEmbedding",
    "compress",
    "compressed_crossentropy",
    "count_ids",
    "export_litert",
    "export_onnx",
    "export_serving",
    "layout_map",
    "plan_compression",
    "replace_layers",
    "report",
    "resize_vocabulary",
    "search_plan",
    "suggest_layers",
    "sweep",
    "table_statistics",
    "table_weights",
    "to_keras",
    "trim_tokenizer",
    "trim_vocabulary",
]
