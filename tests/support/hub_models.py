"""Small random models of keras-hub."""

import pytest


def small_gpt2(words, width, num_layers=1, positions=16):
    """Returns a `GPT2CausalLM`, or skips a test where keras-hub is missing."""
    hub = pytest.importorskip("keras_hub")
    backbone = hub.models.GPT2Backbone(
        vocabulary_size=words,
        num_layers=num_layers,
        num_heads=2,
        hidden_dim=width,
        intermediate_dim=width,
        max_sequence_length=positions,
    )
    return hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
