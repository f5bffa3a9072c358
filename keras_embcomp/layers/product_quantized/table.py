"""The table of a product-quantized layer: codes, codebooks, a projection."""

from typing import Any, Self

from keras import ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import (
    at_most,
    frequency_weights,
    natural_number,
    positive_int,
)
from keras_embcomp.layers.base import Resizing
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.layers.factors import in_numpy
from keras_embcomp.layers.progress import shown
from keras_embcomp.layers.stored import StoredFactors
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
    nearest_codes,
    smallest_dtype,
)
from keras_embcomp.numerics.product_quantized.fitting import (
    check_rows_differ,
    factors_in_bytes,
    product_codes,
    rows_in_bytes,
)


class ProductQuantizedTable(StoredFactors):
    """The table is in product codes, of a table that was turned."""

    def _set_structure(
        self,
        num_parts: int,
        part_width: int,
        codebook_size: int,
        num_kept: int,
        factors_dtype: str,
        seed: int,
        **parts: Any,
    ) -> None:
        vocabulary = self._vocabulary_name, self._vocabulary
        self.num_parts = positive_int("num_parts", num_parts)
        self.part_width = positive_int("part_width", part_width)
        self.codebook_size = positive_int("codebook_size", codebook_size)
        at_most("codebook_size", self.codebook_size, *vocabulary)
        self.num_kept = natural_number("num_kept", num_kept)
        at_most("num_kept", self.num_kept, *vocabulary)
        at_most(
            "num_kept",
            self.num_kept,
            "codebook_size ** (num_parts - 1)",
            most_kept(self.num_parts, self.codebook_size),
        )
        self._set_factors_dtype(factors_dtype)
        self.seed = natural_number("seed", seed)
        self._set_parts(**parts)

    def _check_width(self, name, width):
        at_most("num_parts", self.num_parts, name, width)
        if self.num_parts * (self.part_width - 1) >= width:
            enough = -(-width // self.num_parts)
            raise ValueError(
                f"`num_parts * (part_width - 1)` must be below `{name}`; the "
                f"largest `part_width` that is used is {enough}. "
                f"Received: num_parts={self.num_parts}, "
                f"part_width={self.part_width}, {name}={width}"
            )

    def _build_table(self, width):
        self.codes = self.add_weight(
            name="codes",
            shape=(self._vocabulary, self.num_parts),
            dtype=smallest_dtype(self.codebook_size),
            initializer=self._random_codes,
            trainable=False,
        )
        size = self.num_parts * self.codebook_size
        directions = self.num_parts * self.part_width
        self.codebooks = self._add_stored("codebooks", (size, self.part_width))
        self.projection = self._add_stored("projection", (directions, width))
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
            self.kept = self._add_stored(
                "kept", (self.num_kept, width), initializer="uniform"
            )
            if self.factors_dtype == "int8":
                self.kept_scales = self._add_scales(
                    "kept_scales", self.num_kept
                )

    def _random_codes(self, shape, dtype):
        vocabulary, parts = shape
        codes = balanced_codes(
            vocabulary, parts, self.codebook_size, self.seed, self.num_kept
        )
        return ops.convert_to_tensor(codes.astype(dtype))

    def _add_stored(self, name, shape, initializer=None):
        if self.factors_dtype == "float32":
            if initializer is not None:
                return self._add_factor(name, shape, initializer=initializer)
            return self._add_table_weight(name, shape, shared=True)
        return self._add_integers(name, shape)

    def _add_scales(self, name, count):
        return self.add_weight(
            name=name,
            shape=(count,),
            dtype="float32",
            initializer="ones",
            trainable=False,
            autocast=False,
        )

    def _tensors(self, execution, dtype, inputs=None, packed=False):
        """Returns the codes, the factors as float tensors, and kept rows.

        Factors in bytes are 127 times numbers from -1 to 1, with scales. Files
        hold them so if they depend on `inputs`. Codebooks that are `packed`
        stay as a quantized layer stores them.
        """
        codebooks, projection = self.codebooks, self.projection
        if self.scales is not None:
            if inputs is not None:
                codebooks = execution.kept_out(codebooks, inputs)
                projection = execution.kept_out(projection, inputs)
            scales = ops.expand_dims(self.scales, 1) / 127
            projection = ops.cast(projection, "float32") * scales
            codebooks = ops.cast(codebooks, dtype) / 127
        else:
            projection = execution.whole(projection, dtype, inputs)
            if not packed:
                codebooks = execution.whole(codebooks, dtype, inputs)
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

    def _rows(self, ids):
        execution = current_execution()
        tensors = self._tensors(execution, self.compute_dtype, ids, packed=True)
        return coded_rows(execution, ids, *tensors)

    def _logit_blocks(self, hidden):
        execution = current_execution()
        tensors = self._tensors(execution, hidden.dtype, hidden)
        return [coded_logits(execution, hidden, *tensors)], None

    def _row_scores(self, hidden):
        execution = current_execution()
        tensors = self._tensors(execution, hidden.dtype)
        return [coded_scores(execution, hidden, *tensors)], None

    def _table(self) -> Array:
        return decoded_rows(self._product_codes())

    def _product_codes(self):
        *tensors, kept = self._tensors(current_execution(), "float32")
        arrays = map(ops.convert_to_numpy, tensors)
        codes, codebooks, projection, mean = arrays
        shape = (self.num_parts, self.codebook_size, self.part_width)
        if kept is not None:
            rows, scales = kept
            kept = in_numpy(rows)
            if scales is not None:
                kept *= ops.convert_to_numpy(scales)[:, None]
        codebooks = codebooks.reshape(shape)
        return ProductCodes(codes, codebooks, projection, mean, kept)

    @classmethod
    def from_dense(
        cls,
        table: ArrayLike,
        num_parts: int,
        part_width: int,
        *,
        frequencies: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> Self:
        """Returns a built layer with codes fitted to a table.

        The table is turned to its principal directions, the largest of which
        are dealt to parts of about equal variance; k-means (faiss, an extra:
        `pip install 'keras_embcomp[codes]'`) finds the codebook of each; the
        projection and the mean are refitted by least squares.

        Args:
            table: Array of shape `(vocabulary, width)`: the table of an
                embedding, or a `Dense` kernel transposed.
            num_parts: Integer. Codes of a word.
            part_width: Integer. Width of a codebook's vectors.
            frequencies: Counts of shape `(vocabulary,)`. If given, a row's
                squared error is weighed by its count.
            covariance: Second moments `E[h h^T]` of what multiplies the table,
                of shape `(width, width)`: of the hidden states that reach an
                output layer. If given, the errors of the logits count, and not
                those of the numbers (Chen et al., 2021).
            verbose: 1 shows a progress bar, 0 none.
            **kwargs: Other arguments of the constructor, such as
                `codebook_size`. On the output side `bias` too, an array of
                shape `(vocabulary,)`; `None` starts from `bias_initializer`.

        Raises:
            ImportError: if faiss is not installed.
            ValueError: if the table is not a finite matrix or its rows are
                all alike, or an argument does not fit it.

        Reference:
        - [Jégou et al., 2011](https://doi.org/10.1109/TPAMI.2010.57)
        - [Ge et al., 2013](https://doi.org/10.1109/CVPR.2013.379)
        """
        arguments = {
            "num_parts": num_parts,
            "part_width": part_width,
            **kwargs,
        }
        return cls._fitted(
            check_rows_differ(table),
            arguments,
            covariance,
            frequencies=frequencies,
            verbose=verbose,
        )

    def _fit(self, table, frequencies=None, verbose=0, turning=None):
        progress = shown if verbose else None
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
        if turning is not None:
            found = found.returned(turning)
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
        if self.kept_scales is not None and kept is not None:
            kept, scales = rows_in_bytes(kept)
            self.kept_scales.assign(scales)
        if self.kept is not None:
            self.kept.assign(kept)

    def _resizing(self, rows):
        at_most("codebook_size", self.codebook_size, "new_size", len(rows))
        at_most("num_kept", self.num_kept, "new_size", len(rows))
        return Resizing()

    def _mix(self, mixtures, rows):
        words = [mixture.word for mixture in mixtures]
        found = self._product_codes()
        codes = found.codes.copy()
        codes[words] = nearest_codes(found, rows)
        self.codes.assign(codes)

    def _check_weights(self):
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
            "seed": self.seed,
        }
