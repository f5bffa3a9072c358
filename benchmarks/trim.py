"""A vocabulary of two languages trimmed to one, and what a large one takes.

    python benchmarks/trim.py --data-dir ../shared/data
    python benchmarks/trim.py --rows memory

"languages": one byte-pair vocabulary for the English and German of Multi30k,
and a small GPT-2 of keras-hub that is trained on both. The model is trimmed to
the pieces that English uses: its perplexity on English, its bytes, and the
pieces of a sentence of either language. Then it is compressed, too.

"memory": the seconds and the peak memory, in tables, of trimming a Gemma of
256,000 words and a width of 640 to half.

Each row is saved when it is done; a second run continues.
"""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.append(str(Path(__file__).parent / "papers"))

import numpy as np
from memory import peak_bytes, status_bytes
from results import add, parse_options, read

from keras_embcomp.text_tables import markdown

PIECES, WIDTH, LENGTH, EPOCHS = 8_000, 128, 32, 2
SENTENCES = 12_000  # of each language, to train on


def sentences(folder, split, language):
    """Returns the sentences of one language."""
    name = f"{split}.lc.norm.tok.{language}.gz"
    with gzip.open(
        Path(folder) / "multi30k" / name, "rt", encoding="utf-8"
    ) as file:
        return file.read().splitlines()


def tokenizer_of(texts):
    """Returns a byte-pair tokenizer of keras-hub."""
    import keras_hub
    import tokenizers

    byte_level = tokenizers.pre_tokenizers.ByteLevel
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [x if isinstance(x, str) else " ".join(x) for x in model["merges"]]
    return keras_hub.models.GPT2Tokenizer(model["vocab"], merges)


def arrays(tokenizer, texts):
    """Returns ids with an end on both sides, padded with -1."""
    end = tokenizer.end_token_id
    rows = np.full((len(texts), LENGTH), -1)
    for row, ids in zip(rows, tokenizer.tokenize(texts), strict=True):
        ids = [end, *np.asarray(ids)[: LENGTH - 2], end]
        row[: len(ids)] = ids
    return rows


def perplexity(model, rows, kept=None):
    """Returns the perplexity of sentences; `kept` masks other pieces."""
    total = count = 0
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        x, y = np.maximum(part[:, :-1], 0), part[:, 1:]
        mask = part[:, :-1] >= 0
        inputs = {"token_ids": x, "padding_mask": mask.astype("int32")}
        logits = np.asarray(model(inputs), "float64")
        if kept is not None:
            others = np.setdiff1d(np.arange(logits.shape[-1]), kept)
            logits[..., others] = -np.inf
        peak = logits.max(-1, keepdims=True)
        norm = np.log(np.exp(logits - peak).sum(-1)) + peak[..., 0]
        index = np.maximum(y, 0)[..., None]
        scores = np.take_along_axis(logits, index, -1)[..., 0] - norm
        total -= scores[y >= 0].sum()
        count += (y >= 0).sum()
    return float(np.exp(total / count))


def trained(tokenizer, rows):
    """Returns a small GPT-2, trained on rows of ids."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=2,
        num_heads=4,
        hidden_dim=WIDTH,
        intermediate_dim=4 * WIDTH,
        max_sequence_length=LENGTH,
    )
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(
        tokenizer, sequence_length=LENGTH
    )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor)
    plain = keras.Model(model.inputs, model.outputs)  # takes ids in `fit`
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1
    )
    plain.compile(keras.optimizers.Adam(2e-3), loss)
    x = {
        "token_ids": np.maximum(rows[:, :-1], 0),
        "padding_mask": (rows[:, :-1] >= 0).astype("int32"),
    }
    plain.fit(x, rows[:, 1:], batch_size=64, epochs=EPOCHS, verbose=2)
    return model


def languages(options):
    """Measures the model of two languages."""
    from keras_embcomp import compress, count_ids, trim_vocabulary
    from keras_embcomp.layers.base import weight_bytes

    both = {x: sentences(options.data_dir, "train", x) for x in ("en", "de")}
    tokenizer = tokenizer_of([*both["en"], *both["de"]])
    chosen = [text for x in both.values() for text in x[:SENTENCES]]
    rows = arrays(tokenizer, chosen)
    np.random.default_rng(0).shuffle(rows)
    model = trained(tokenizer, rows)
    test = {x: sentences(options.data_dir, "test_2016_flickr", x) for x in both}

    def row(name, model):
        tokens = model.preprocessor.tokenizer
        table = model.backbone.token_embedding
        add(
            options.results,
            {
                "name": name,
                "rows": tokens.vocabulary_size(),
                "table": weight_bytes(table.weights),
                "model": weight_bytes(model.weights),
                "perplexity": perplexity(model, arrays(tokens, test["en"])),
                "pieces_en": _pieces(tokens, test["en"]),
                "pieces_de": _pieces(tokens, test["de"]),
            },
        )

    row("both languages", model)
    counts = count_ids(both["en"], tokenizer=tokenizer)
    for coverage in (1.0, 0.999, 0.99):
        small, trimming = trim_vocabulary(
            model, counts=counts, coverage=coverage
        )
        row(f"English, coverage {coverage}", small)
        if coverage == 1.0:
            masked = perplexity(
                model, arrays(tokenizer, test["en"]), trimming.new_to_old
            )
            print("masked perplexity of the whole model", masked)
            row("and compressed 8 times", compress(small, ratio=8))


def _pieces(tokenizer, texts):
    return float(np.mean([len(ids) for ids in tokenizer.tokenize(texts)]))


def memory(options):
    """Measures the trimming of a large vocabulary, in a fresh process."""
    import keras_hub

    from keras_embcomp import trim_vocabulary

    def gemma(words, width):
        return keras_hub.models.GemmaBackbone(
            vocabulary_size=words,
            num_layers=1,
            num_query_heads=4,
            num_key_value_heads=1,
            head_dim=64,
            hidden_dim=width,
            intermediate_dim=2 * width,
        )

    trim_vocabulary(gemma(100, 64), np.arange(50))  # what is loaded once
    model = gemma(256_000, 640)
    table = 4 * 256_000 * 640
    before, start = status_bytes("VmRSS"), time.perf_counter()
    trim_vocabulary(model, np.arange(0, 256_000, 2))
    seconds = time.perf_counter() - start
    peak = (peak_bytes() - before) / table
    add(
        options.results,
        {"name": "256,000 x 640", "seconds": seconds, "peak_tables": peak},
    )


def table(rows):
    """Returns the Markdown tables of saved rows."""
    cells = [
        [
            "model",
            "rows",
            "table bytes",
            "model bytes",
            "perplexity, English",
            "pieces of an English sentence",
            "of a German one",
        ]
    ]
    for row in rows:
        if "rows" not in row:
            continue
        cells.append(
            [
                row["name"],
                *(f"{row[name]:,}" for name in ("rows", "table", "model")),
                f"{row['perplexity']:.2f}",
                *(f"{row[name]:.1f}" for name in ("pieces_en", "pieces_de")),
            ]
        )
    text = markdown(cells, left=1) if len(cells) > 1 else ""
    for row in rows:
        if "seconds" in row:
            text += (
                f"\n{row['name']}: {row['seconds']:.0f} s, a peak of "
                f"{row['peak_tables']:.2f} tables above the model"
            )
    return text


def main():
    choices = ("languages", "memory")
    options = parse_options(__doc__.split("\n")[0], "trim", None, choices)
    done = {row["name"] for row in read(options.results)}
    if options.rows == ["memory"]:
        memory(options)
    elif "languages" in options.rows and "and compressed 8 times" not in done:
        languages(options)
    if "memory" in options.rows and len(options.rows) > 1:
        command = [sys.executable, __file__, "--rows", "memory"]
        subprocess.run([*command, "--results", str(options.results)])
    print(table(read(options.results)))


if __name__ == "__main__":
    main()
