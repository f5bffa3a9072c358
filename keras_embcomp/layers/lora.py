"""LoRA: a low-rank difference that trains where the table does not."""

from typing import Any

import keras
import numpy as np
from keras import initializers

from keras_embcomp._compat import rebuilt, source_policy, unlocked
from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import at_most, finite_table, positive_int
from keras_embcomp.layers.factors import in_numpy
from keras_embcomp.layers.quantization import Quantizable
from keras_embcomp.numerics.lora import Difference
from keras_embcomp.numerics.quantized import Format


class Adaptable(Quantizable):
    """A layer whose table may have a low-rank difference, as Keras' LoRA.

    The table is then what its factors make plus `lora_alpha / lora_rank *
    lora_embeddings_a @ lora_embeddings_b`. The factors do not train, whether
    they are quantized or not; the difference and a bias do.

    Args:
        lora_rank: Integer, or `None` for no difference. As
            `enable_lora(lora_rank)` after `build`.
        lora_alpha: Number, or `None` for `lora_rank`.
        **kwargs: Base layer keyword arguments.

    Reference:
    - [Hu et al., 2022](https://arxiv.org/abs/2106.09685)
    """

    bias: Any
    # What the table writes.
    dense_shape: Any
    to_dense: Any
    _vocabulary: Any
    _fit: Any

    def __init__(
        self,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if lora_rank is not None:
            lora_rank = positive_int("lora_rank", lora_rank)
        self.lora_rank: Any = lora_rank
        self.lora_alpha: Any = lora_rank if lora_alpha is None else lora_alpha
        self.lora_embeddings_a: Any = None
        self.lora_embeddings_b: Any = None

    @property
    def lora_enabled(self) -> bool:
        """Whether the table has a low-rank difference."""
        return self.lora_embeddings_a is not None

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """Adds a low-rank difference to the table, and trains that alone.

        The layer computes what it did until the difference is trained. It may
        be quantized before or after. A model must be compiled after. Files hold
        the difference beside the factors, and exports compute with both;
        `merge_lora` fits the factors to their sum.

        Args:
            rank: Integer, at most the width of the table.
            lora_alpha: Number. The difference is multiplied by
                `lora_alpha / rank`; `None` is `rank`.
            a_initializer: Initializer of `lora_embeddings_a`, of shape
                `(vocabulary, rank)`.
            b_initializer: Initializer of `lora_embeddings_b`, of shape
                `(rank, width)`.

        Raises:
            ValueError: if the layer is not built or has a difference already,
                or the rank is out of range.
        """
        if not self.built:
            raise ValueError(
                "Cannot enable lora on a layer that isn't yet built. "
                f"Received: layer '{self.name}'"
            )
        if self.lora_enabled:
            raise ValueError(
                "lora is already enabled. This can only be done once per "
                f"layer. Received: layer '{self.name}'"
            )
        rank = positive_int("rank", rank)
        width = self.dense_shape[1]
        at_most("rank", rank, "the width of the table", width)
        with unlocked(self):
            self._add_difference(rank, width, a_initializer, b_initializer)
        self.lora_rank = rank
        self.lora_alpha = rank if lora_alpha is None else lora_alpha

    def _build_difference(self, width):
        """Adds the difference that the constructor was asked for."""
        self.lora_embeddings_a = self.lora_embeddings_b = None
        if self.lora_rank is not None:
            at_most("lora_rank", self.lora_rank, "the table's width", width)
            self._add_difference(self.lora_rank, width, "he_uniform", "zeros")

    def _add_difference(self, rank, width, a_initializer, b_initializer):
        # Floats of 32 bits, as in Keras: fine-tuning makes small steps.
        self.lora_embeddings_a = self.add_weight(
            name="lora_embeddings_a",
            shape=(self._vocabulary, rank),
            dtype="float32",
            initializer=initializers.get(a_initializer),
        )
        self.lora_embeddings_b = self.add_weight(
            name="lora_embeddings_b",
            shape=(rank, width),
            dtype="float32",
            initializer=initializers.get(b_initializer),
        )
        self._freeze_table()

    @property
    def trainable(self):
        """Whether the layer trains: with a difference, that and a bias."""
        return super().trainable

    @trainable.setter
    def trainable(self, value):
        keras.Layer.trainable.fset(self, value)
        self._freeze_table()

    def _freeze_table(self):
        if not self.lora_enabled:
            return
        trained = (self.bias, self.lora_embeddings_a, self.lora_embeddings_b)
        kept = {id(weight) for weight in trained}
        for weight in self.weights:
            if id(weight) not in kept:
                weight.trainable = False

    def _rebuild(self, *values):
        super()._rebuild(*values)
        self._freeze_table()

    @property
    def _difference(self):
        """The difference, or `None`."""
        if not self.lora_enabled:
            return None
        return Difference(
            self.lora_embeddings_a,
            self.lora_embeddings_b,
            self.lora_alpha / self.lora_rank,
        )

    def _with_difference(self, table: Array) -> Array:
        """Returns a table as an array with the difference added."""
        if not self.lora_enabled:
            return table
        a, b, scale = self._difference
        return table + np.float32(scale) * (in_numpy(a) @ in_numpy(b))

    def _drop_difference(self):
        """Takes the difference away, and lets the factors train again."""
        with rebuilt(self, [self.lora_embeddings_a, self.lora_embeddings_b]):
            self.lora_embeddings_a = self.lora_embeddings_b = None
        self.lora_rank = self.lora_alpha = None
        self._spread_trainable()

    def _pack_difference(self):
        """Stores the rows of the difference in 8 bits; for inference only."""
        a = self.lora_embeddings_a
        values, shape, form = in_numpy(a), tuple(a.shape), Format("int8", None)
        with rebuilt(self, [a]):
            self.lora_embeddings_a = self._add_rounded(
                "lora_embeddings_a", shape, form, False, {}
            )
        self.lora_embeddings_a.assign(values)

    def merge_lora(self, frequencies: ArrayLike | None = None) -> float:
        """Fits the factors to the table with its difference, which goes.

        The layer has the sizes and the number format that it had before
        `enable_lora`, and trains as then. The fit is that of `from_dense`: it
        loses what the factors cannot hold. A model must be compiled after.

        Args:
            frequencies: Counts of shape `(vocabulary,)`, as for `from_dense`.

        Returns:
            The relative error of the new table, measured by the old one.

        Raises:
            ValueError: if the layer has no difference.
        """
        if not self.lora_enabled:
            raise ValueError(
                "The layer must have a difference to merge: call `enable_lora` "
                f"first. Received: layer '{self.name}'"
            )
        table = finite_table("the table with LoRA", self.to_dense())
        plain = type(self).from_config(
            {
                **self.get_config(),
                "dtype": source_policy(self.dtype_policy),
                "fake_quantization": None,
                "lora_rank": None,
                "lora_alpha": None,
            }
        )
        plain.build((None, table.shape[1]))
        # The bias, and what a fit starts from: the places of words in groups.
        difference = {id(self.lora_embeddings_a), id(self.lora_embeddings_b)}
        plain._assign_others(
            weight for weight in self._others() if id(weight) not in difference
        )
        plain._fit(table, frequencies=frequencies)
        self._drop_difference()
        for name, factor in self._factors.items():
            factor.assign(in_numpy(plain._factors[name]))
        self._copy_others(plain)
        lost = np.linalg.norm(self.to_dense() - table)
        return float(lost / max(np.linalg.norm(table), np.finfo("f").tiny))

    def load_own_variables(self, store):
        """Loads weights; those of a layer without LoRA leave no difference."""
        difference = (self.lora_embeddings_a, self.lora_embeddings_b)
        variables = [*self._trainable_variables, *self._non_trainable_variables]
        if not self.lora_enabled or len(store.keys()) != len(variables) - 2:
            super().load_own_variables(store)
            return
        ids = {id(variable) for variable in difference}
        others = [v for v in variables if id(v) not in ids]
        for index, variable in enumerate(others):
            variable.assign(store[str(index)])
        self.lora_embeddings_b.assign(np.zeros(self.lora_embeddings_b.shape))

    def get_config(self):
        config = super().get_config()
        if self.lora_rank is not None:  # as in Keras
            config["lora_rank"] = self.lora_rank
            config["lora_alpha"] = self.lora_alpha
        return config
