"""The table of a trellis-coded layer: strings of bits, and what they say."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_embcomp._types import Array, ArrayLike
from keras_embcomp.checks import (
    at_most,
    frequency_weights,
    natural_number,
    one_of,
    positive_int,
)
from keras_embcomp.layers.base import Resizing
from keras_embcomp.layers.execution import current_execution
from keras_embcomp.layers.factors import in_numpy
from keras_embcomp.layers.progress import shown
from keras_embcomp.layers.stored import StoredFactors
from keras_embcomp.numerics.product_quantized.fitting import check_rows_differ
from keras_embcomp.numerics.trellis.allocation import bits_of_steps, most_bits
from keras_embcomp.numerics.trellis.codes import (
    BLOCK,
    MOST_GROUPS,
    TrellisCodes,
    chosen_rows,
    decoded_rows,
    first_bytes,
    packed_groups,
    unpacked_groups,
)
from keras_embcomp.numerics.trellis.fitting import (
    Structure,
    encoded_rows,
    trellis_codes,
)
from keras_embcomp.numerics.trellis.lookup import (
    Reading,
    Strings,
    coded_logits,
    coded_rows,
    coded_scores,
)
from keras_embcomp.numerics.trellis.strings import (
    MOST_STATE_BITS,
    random_strings,
)

_STEPS = (1, 4, 8)
_LEAST_STATE_BITS = 2
_MOST_BYTES = 2**31
# Of products of integers that are stored: about 1 / (127 * 32,767), and exact.
# Scales have the size of weights then, so that an optimizer can move them.
_UNIT = 2.0**-22


class TrellisCodedTable(StoredFactors):
    """The table is in strings of bits, of a table that was turned."""

    def _set_structure(
        self,
        group_bytes: Any,
        group_sizes: Any,
        num_parts: int | None,
        part_width: int,
        step_bits: int,
        state_bits: int,
        factors_dtype: str,
        seed: int,
        **parts: Any,
    ) -> None:
        if num_parts is not None:
            num_parts = positive_int("num_parts", num_parts)
        self.num_parts = num_parts
        self.part_width = positive_int("part_width", part_width)
        one_of("step_bits", step_bits, _STEPS)
        self.step_bits = int(step_bits)
        self.state_bits = positive_int("state_bits", state_bits)
        least = max(_LEAST_STATE_BITS, self.step_bits)
        if not least <= self.state_bits <= MOST_STATE_BITS:
            raise ValueError(
                f"`state_bits` must be from {least} to {MOST_STATE_BITS} with "
                f"step_bits={step_bits}. Received: state_bits={state_bits}"
            )
        self._set_groups(group_bytes, group_sizes)
        self._set_factors_dtype(factors_dtype)
        self.seed = natural_number("seed", seed)
        self._set_parts(**parts)

    def _set_groups(self, group_bytes, group_sizes):
        if not isinstance(group_bytes, tuple | list):
            group_bytes = (group_bytes,)
        self.group_bytes = tuple(
            natural_number("group_bytes", size) for size in group_bytes
        )
        name, vocabulary = self._vocabulary_name, self._vocabulary
        if group_sizes is None and len(self.group_bytes) == 1:
            group_sizes = (vocabulary,)
        if not isinstance(group_sizes, tuple | list):
            raise ValueError(
                "`group_sizes` must give the rows of each group if "
                "`group_bytes` has several. Received: "
                f"group_sizes={group_sizes}, group_bytes={self.group_bytes}"
            )
        self.group_sizes = tuple(
            natural_number("group_sizes", size) for size in group_sizes
        )
        received = (
            f"Received: group_sizes={self.group_sizes}, "
            f"group_bytes={self.group_bytes}"
        )
        count = len(self.group_sizes)
        if count != len(self.group_bytes) or not 1 <= count <= MOST_GROUPS:
            raise ValueError(
                "`group_sizes` and `group_bytes` must have as many entries, at "
                f"most {MOST_GROUPS}. {received}"
            )
        if sum(self.group_sizes) != vocabulary:
            raise ValueError(
                f"`group_sizes` must sum to `{name}`. Received: "
                f"group_sizes={self.group_sizes}, so {sum(self.group_sizes)}, "
                f"{name}={vocabulary}"
            )
        falling = sorted(self.group_bytes, reverse=True)
        if list(self.group_bytes) != falling or not self._num_bytes:
            raise ValueError(
                "`group_bytes` must fall from group to group, and not all be "
                f"0. {received}"
            )
        if self._num_bytes >= _MOST_BYTES:
            raise ValueError(
                "`group_bytes` must make less than 2 GiB of codes. "
                f"{received}, so {self._num_bytes:,} bytes"
            )

    @property
    def _num_bytes(self):
        return int(np.dot(self.group_sizes, self.group_bytes))

    def _structure(self, width):
        """Returns the sizes of the codes of a table of a width."""
        return Structure(
            self.group_sizes,
            self.group_bytes,
            self.num_parts or -(-width // self.part_width),
            self.part_width,
            self.step_bits,
            self.state_bits,
            self.factors_dtype,
        )

    def _check_width(self, name, width):
        structure = self._structure(width)
        parts = structure.num_parts
        at_most("num_parts", parts, name, width)
        if parts * (self.part_width - 1) >= width:
            enough = -(-width // parts)
            raise ValueError(
                f"`num_parts * (part_width - 1)` must be below `{name}`; the "
                f"largest `part_width` that is used is {enough}. "
                f"Received: num_parts={parts}, "
                f"part_width={self.part_width}, {name}={width}"
            )
        most = most_bits(self.step_bits, self.state_bits)
        if 8 * max(self.group_bytes) > parts * most:
            raise ValueError(
                f"`group_bytes` must not exceed {parts * most // 8}, which is "
                f"{most} bits for each of {parts} steps. "
                f"Received: group_bytes={self.group_bytes}"
            )

    def _build_table(self, width):
        structure = self._structure(width)
        state = {"trainable": False, "autocast": False}
        self.codes = self.add_weight(
            name="codes",
            shape=(self._num_bytes,),
            dtype="uint8",
            initializer=self._random_codes,
            **state,
        )
        self.groups = self.starts = None
        if structure.num_groups > 1:
            groups = np.repeat(
                np.arange(structure.num_groups), self.group_sizes
            )
            self.groups = self.add_weight(
                name="groups",
                shape=(len(packed_groups(groups)),),
                dtype="uint8",
                initializer=_array(packed_groups(groups)),
                **state,
            )
            starts = first_bytes(groups, np.array(self.group_bytes))
            self.starts = self.add_weight(
                name="starts",
                shape=(-(-self._vocabulary // BLOCK),),
                dtype="int32",
                initializer=_array(starts[:-1:BLOCK]),
                **state,
            )
        self.bits = self.add_weight(
            name="bits",
            shape=(structure.num_groups, structure.num_parts),
            dtype="uint8",
            initializer=_array(_even_bits(structure)),
            **state,
        )
        shapes = (
            (2**self.state_bits, self.part_width),
            (structure.directions, width),
        )
        if self.factors_dtype == "float32":
            add = self._add_table_weight
            self.values = add("values", shapes[0], shared=True)
            self.scales = self._add_scales(structure)
            self.projection = add("projection", shapes[1], shared=True)
        else:
            self.values = self._add_integers("values", shapes[0], "int16")
            self.scales = self._add_scales(structure)
            self.projection = self._add_integers("projection", shapes[1])
        self.mean = self.add_weight(
            name="mean", shape=(width,), initializer="zeros"
        )

    def _add_scales(self, structure):
        return self.add_weight(
            name="scales",
            shape=(structure.num_groups, structure.directions),
            initializer=keras.initializers.Constant(1 / self._unit),
            autocast=False,
        )

    @property
    def _unit(self):
        return _UNIT if self.factors_dtype == "int8" else 1.0

    def _random_codes(self, shape, dtype):
        strings = [
            random_strings(rows, size, self.seed + group).ravel()
            for group, (rows, size) in enumerate(
                zip(self.group_sizes, self.group_bytes, strict=True)
            )
        ]
        return ops.convert_to_tensor(np.concatenate(strings).astype(dtype))

    @property
    def _strings(self):
        return Strings(
            self.codes,
            self.bits,
            self.groups,
            self.starts,
            self.group_bytes,
            self.state_bits,
            self._vocabulary,
        )

    def _reading(self, execution, dtype, inputs=None, packed=False):
        """Returns values, scales, projection and mean as tensors.

        A projection in bytes stays in bytes in files if it depends on `inputs`.
        Values that are `packed` stay as a quantized layer stores them.
        """
        values, projection = self.values, self.projection
        if self.factors_dtype == "float32":
            projection = execution.whole(projection, dtype, inputs)
            if not packed:
                values = execution.whole(values, "float32", inputs)
        elif inputs is not None:
            projection = execution.kept_out(projection, inputs)
        return Reading(
            values,
            self.scales,
            ops.cast(projection, dtype),
            ops.cast(self.mean, dtype),
            self._unit,
        )

    def _rows(self, ids):
        execution = current_execution()
        reading = self._reading(execution, self.compute_dtype, ids, packed=True)
        return coded_rows(execution, ids, self._strings, reading)

    def _logit_blocks(self, hidden):
        execution = current_execution()
        reading = self._reading(execution, hidden.dtype, hidden)
        return [coded_logits(execution, hidden, self._strings, reading)], None

    def _row_scores(self, hidden):
        execution = current_execution()
        reading = self._reading(execution, hidden.dtype)
        return [coded_scores(execution, hidden, self._strings, reading)], None

    def _table(self) -> Array:
        return decoded_rows(self._trellis_codes())

    def _trellis_codes(self):
        groups = np.zeros(self._vocabulary, "uint8")
        if self.groups is not None:
            packed = ops.convert_to_numpy(self.groups)
            groups = unpacked_groups(packed, self._vocabulary)
        return TrellisCodes(
            ops.convert_to_numpy(self.codes),
            groups,
            ops.convert_to_numpy(self.bits).astype("int64"),
            in_numpy(self.values),
            ops.convert_to_numpy(self.scales) * np.float32(self._unit),
            in_numpy(self.projection),
            ops.convert_to_numpy(self.mean),
        )

    @classmethod
    def from_dense(
        cls,
        table: ArrayLike,
        group_bytes: Any,
        group_sizes: Any = None,
        *,
        frequencies: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> Self:
        """Returns a built layer with codes fitted to a table.

        The table is turned to its principal directions. Rows are put into the
        groups by weighted energy, and directions get bits by reverse
        water-filling. A Viterbi search, compiled by XLA on TensorFlow and JAX,
        finds the string of each row; scales, projection and mean are refitted
        by least squares.

        Args:
            table: Array of shape `(vocabulary, width)`: the table of an
                embedding, or a `Dense` kernel transposed.
            group_bytes: Integer, or one for each group. Bytes of a row.
            group_sizes: Integers. Rows of each group.
            frequencies: Counts of shape `(vocabulary,)`. If given, a row's
                squared error is weighed by its count, and rows that count more
                are in groups of more bytes.
            covariance: Second moments `E[h h^T]` of what multiplies the table,
                of shape `(width, width)`: of the hidden states that reach an
                output layer. If given, the errors of the logits count, and not
                those of the numbers (Chen et al., 2021).
            verbose: 1 shows a progress bar, 0 none.
            **kwargs: Other arguments of the constructor, such as
                `state_bits`. On the output side `bias` too, an array of shape
                `(vocabulary,)`; `None` starts from `bias_initializer`.

        Raises:
            ValueError: if the table is not a finite matrix or its rows are
                all alike, or an argument does not fit it.

        Reference:
        - [Marcellin and Fischer, 1990](https://doi.org/10.1109/26.46532)
        - [Tseng et al., 2024](https://arxiv.org/abs/2406.11235), section 3
        """
        arguments = {
            "group_bytes": group_bytes,
            "group_sizes": group_sizes,
            **kwargs,
        }
        return cls._fitted(
            check_rows_differ(table),
            arguments,
            covariance,
            frequencies=frequencies,
            verbose=verbose,
        )

    def _fit(
        self, table, frequencies=None, verbose=0, turning=None, found=None
    ):
        progress = shown if verbose else None
        if found is None:
            found = trellis_codes(
                table,
                self._structure(table.shape[1]),
                frequency_weights(frequencies, len(table)),
                self.seed,
                progress,
                turning,
            )
        self.codes.assign(found.codes)
        if self.groups is not None and self.starts is not None:
            starts = first_bytes(found.groups, np.array(self.group_bytes))
            self.groups.assign(packed_groups(found.groups))
            self.starts.assign(starts[:-1:BLOCK])
        self.bits.assign(found.bits)
        self.values.assign(found.values)
        self.scales.assign(found.scales / np.float32(self._unit))
        self.projection.assign(found.projection)
        self.mean.assign(found.mean)

    def _resizing(self, rows):
        found = chosen_rows(self._trellis_codes(), rows)
        sizes = np.bincount(found.groups, minlength=len(self.group_sizes))
        structure = {"group_sizes": tuple(sizes.tolist())}
        return Resizing(structure, fit={"found": found})

    def _mix(self, mixtures, rows):
        found = self._trellis_codes()
        words = np.array([mixture.word for mixture in mixtures])
        starts = first_bytes(found.groups, np.array(self.group_bytes))
        codes = found.codes.copy()
        strings = encoded_rows(found, rows, found.groups[words])
        for word, string in zip(words, strings, strict=True):
            codes[starts[word] :][: len(string)] = string
        self.codes.assign(codes)

    def _check_weights(self):
        found = self._trellis_codes()
        sizes = np.bincount(found.groups, minlength=len(self.group_sizes))
        if tuple(sizes.tolist()) != self.group_sizes:
            raise ValueError(
                "The groups in a file must have as many rows as `group_sizes`. "
                f"Received: {sizes.tolist()}, group_sizes={self.group_sizes}"
            )
        if self.starts is not None:
            starts = first_bytes(found.groups, np.array(self.group_bytes))
            if np.any(starts[:-1:BLOCK] != ops.convert_to_numpy(self.starts)):
                raise ValueError(
                    "The starts in a file must follow from its groups. "
                    f"Received: layer '{self.name}' with others"
                )
        sums = found.bits.sum(axis=1)
        if np.any(sums != 8 * np.array(self.group_bytes)):
            raise ValueError(
                "The bits in a file must sum to those of `group_bytes`. "
                f"Received: {sums.tolist()}, group_bytes={self.group_bytes}"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "group_bytes": self.group_bytes,
            "group_sizes": self.group_sizes,
            "num_parts": self.num_parts,
            "part_width": self.part_width,
            "step_bits": self.step_bits,
            "state_bits": self.state_bits,
            "seed": self.seed,
        }


def _array(numbers):
    """Returns an initializer that gives an array."""
    return lambda shape, dtype: ops.convert_to_tensor(numbers.astype(dtype))


def _even_bits(structure):
    """Returns bits of steps that are spread evenly."""
    alike = np.ones((structure.num_parts, structure.part_width))
    most = most_bits(structure.step_bits, structure.state_bits)
    return np.stack(
        [
            bits_of_steps(alike, size, structure.step_bits, most)
            for size in structure.group_bytes
        ]
    )
