"""What the two sides of a product-quantized layer share."""

import numpy as np
from keras import ops

from keras_embcomp.checks import (
    at_most,
    finite_table,
    frequency_weights,
    natural_number,
    positive_int,
)
from keras_embcomp.layers.base import Compressed
from keras_embcomp.layers.execution import exporting, unfolded_rows
from keras_embcomp.numerics.product_quantized.fitting import (
    factors_in_bytes,
    product_codes,
    rows_in_bytes,
)
from keras_embcomp.numerics.product_quantized.codes import (
    KeptRows,
    ProductCodes,
    balanced_codes,
    coded_logits,
    coded_rows,
    coded_scores,
    decoded_rows,
    kept_numbers,
    most_kept,
    smallest_dtype,
)
from keras_embcomp.layers.factors import in_numpy, whole

_STORED = ("float32", "int8")


class CodedTable(Compressed):
    """A table in product codes, to be mixed into an input or output layer."""

    def set_codes(
        self,
        vocabulary_name,
        vocabulary,
        num_parts,
        part_width,
        codebook_size,
        num_kept,
        factors_dtype,
        seed,
        **parts,
    ):
        """Keeps what the codes depend on."""
        self.num_parts = positive_int("num_parts", num_parts)
        self.part_width = positive_int("part_width", part_width)
        self.codebook_size = positive_int("codebook_size", codebook_size)
        at_most(
            "codebook_size", self.codebook_size, vocabulary_name, vocabulary
        )
        self.num_kept = natural_number("num_kept", num_kept)
        at_most("num_kept", self.num_kept, vocabulary_name, vocabulary)
        at_most(
            "num_kept",
            self.num_kept,
            "codebook_size ** (num_parts - 1)",
            most_kept(self.num_parts, self.codebook_size),
        )
        if factors_dtype not in _STORED:
            raise ValueError(
                f"`factors_dtype` must be one of {', '.join(_STORED)}. "
                f"Received: factors_dtype={factors_dtype}"
            )
        self.factors_dtype = factors_dtype
        self.seed = natural_number("seed", seed)
        self.set_parts(**parts)

    def check_parts(self, name, width):
        """Raises if parts are too many for a width, which is called `name`."""
        at_most("num_parts", self.num_parts, name, width)
        if self.num_parts * (self.part_width - 1) >= width:
            enough = -(-width // self.num_parts)
            raise ValueError(
                f"`num_parts * (part_width - 1)` must be below `{name}`; the "
                f"largest `part_width` that is used is {enough}. "
                f"Received: num_parts={self.num_parts}, "
                f"part_width={self.part_width}, {name}={width}"
            )

    def add_codes(self, vocabulary, width):
        """Creates the weights of the table."""
        self.codes = self.add_weight(
            name="codes",
            shape=(vocabulary, self.num_parts),
            dtype=smallest_dtype(self.codebook_size),
            initializer=self._random_codes,
            trainable=False,
        )
        size = self.num_parts * self.codebook_size
        directions = self.num_parts * self.part_width
        self.codebooks = self._add_factor("codebooks", (size, self.part_width))
        self.projection = self._add_factor("projection", (directions, width))
        self.scales = None
        if self.factors_dtype == "int8":
            self.scales = self._add_scales("scales", directions)
        self.mean = self.add_weight(
            name="mean",
            shape=(width,),
            initializer="zeros",
            trainable=self.factors_dtype == "float32",
        )
        self.kept = self.kept_scales = None
        if self.num_kept:
            self.kept = self._add_factor(
                "kept", (self.num_kept, width), initializer="uniform"
            )
            if self.factors_dtype == "int8":
                self.kept_scales = self._add_scales(
                    "kept_scales", self.num_kept
                )

    def _random_codes(self, shape, dtype):
        codes = balanced_codes(
            *shape, self.codebook_size, self.seed, self.num_kept
        )
        return ops.convert_to_tensor(codes.astype(dtype))

    def _add_factor(self, name, shape, initializer=None):
        if self.factors_dtype == "float32":
            if initializer is not None:
                return self.add_factor(name, shape, initializer=initializer)
            return self.add_table_weight(name, shape, shared=True)
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=self.factors_dtype,
            initializer=_signs,
            trainable=False,
            autocast=False,
        )

    def _add_scales(self, name, count):
        return self.add_weight(
            name=name,
            shape=(count,),
            dtype="float32",
            initializer="ones",
            trainable=False,
            autocast=False,
        )

    def _tensors(self, dtype, inputs=None, packed=False):
        """Returns the codes, the factors as float tensors, and kept rows.

        Factors in bytes are 127 times numbers from -1 to 1, with scales. Files
        hold them so if they depend on `inputs`. Codebooks that are `packed`
        are as they are stored, if that is by a format of the layer.
        """
        codebooks, projection = self.codebooks, self.projection
        if self.scales is not None:
            if exporting():
                codebooks = unfolded_rows(codebooks, inputs)
                projection = unfolded_rows(projection, inputs)
            scales = ops.expand_dims(self.scales, 1) / 127
            projection = ops.cast(projection, "float32") * scales
            codebooks = ops.cast(codebooks, dtype) / 127
        else:
            projection = whole(projection, dtype, inputs)
            if not packed:
                codebooks = whole(codebooks, dtype, inputs)
        kept = None
        if self.kept is not None:
            kept = KeptRows(self.kept, self.kept_scales)
        tensors = projection, self.mean
        return (
            self.codes,
            codebooks,
            *(ops.cast(x, dtype) for x in tensors),
            kept,
        )

    def rows(self, ids):
        """Returns the rows `ids` of the table."""
        tensors = self._tensors(self.compute_dtype, ids, packed=True)
        return coded_rows(ids, *tensors)

    def row_scores(self, hidden):
        return [coded_scores(hidden, *self._tensors(hidden.dtype))], None

    def logits(self, hidden):
        """Returns `hidden @ table.T`, of shape `(..., vocabulary)`."""
        return coded_logits(hidden, *self._tensors(hidden.dtype, hidden))

    def to_dense(self):
        """Returns the table as a float32 NumPy array of `dense_shape`."""
        *tensors, kept = self._tensors("float32")
        codes, codebooks, *rest = map(ops.convert_to_numpy, tensors)
        shape = (self.num_parts, self.codebook_size, self.part_width)
        if kept is not None:
            rows, scales = kept
            kept = in_numpy(rows)
            if scales is not None:
                kept *= ops.convert_to_numpy(scales)[:, None]
        return decoded_rows(
            ProductCodes(codes, codebooks.reshape(shape), *rest, kept)
        )

    def fit_codes(self, table, frequencies, verbose):
        """Assigns the codes, codebooks and projection fitted to a table."""
        progress = None
        if verbose:
            from tqdm import tqdm as progress
        found = product_codes(
            table,
            self.num_parts,
            self.part_width,
            self.codebook_size,
            frequency_weights(frequencies, len(table)),
            self.num_kept,
            self.seed,
            progress,
        )
        self.codes.assign(found.codes)
        self.mean.assign(found.mean)
        codebooks, projection = found.codebooks, found.projection
        if self.scales is not None:
            codebooks, projection, scales = factors_in_bytes(
                codebooks, projection
            )
            self.scales.assign(scales)
        size = self.num_parts * self.codebook_size
        self.codebooks.assign(codebooks.reshape(size, self.part_width))
        self.projection.assign(projection)
        kept = found.kept
        if self.kept_scales is not None:
            kept, scales = rows_in_bytes(kept)
            self.kept_scales.assign(scales)
        if self.kept is not None:
            self.kept.assign(kept)

    def resized_config(self, vocabulary):
        at_most("codebook_size", self.codebook_size, "new_size", vocabulary)
        at_most("num_kept", self.num_kept, "new_size", vocabulary)
        return super().resized_config(vocabulary)

    def load_own_variables(self, store):
        super().load_own_variables(store)
        codes = ops.convert_to_numpy(self.codes)
        if codes.min() < 0 or codes.max() >= self.codebook_size:
            raise ValueError(
                "The codes in a file must be below `codebook_size`. Received: "
                f"codes from {codes.min()} to {codes.max()}, "
                f"codebook_size={self.codebook_size}"
            )
        kept, numbers = kept_numbers(
            codes.astype("int64"), self.num_kept, self.codebook_size
        )
        if self.num_kept and numbers[kept].max(initial=0) >= self.num_kept:
            raise ValueError(
                "The codes in a file must be those of kept rows. Received: "
                f"row {numbers[kept].max()}, num_kept={self.num_kept}"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "num_parts": self.num_parts,
            "part_width": self.part_width,
            "codebook_size": self.codebook_size,
            "num_kept": self.num_kept,
            "factors_dtype": self.factors_dtype,
            "seed": self.seed,
        }


def coded_table(table):
    """Returns a table that codes can be fitted to, or raises."""
    table = finite_table("table", table)
    if not np.any(table != table[0]):
        raise ValueError(
            "`table` must have rows that differ. "
            f"Received: {len(table)} rows that are alike"
        )
    return table


def _signs(shape, dtype):
    """Returns numbers for a factor that waits for those of a file."""
    numbers = np.arange(np.prod(shape)).reshape(shape) % 3 - 1
    return ops.convert_to_tensor(numbers.astype(dtype))
