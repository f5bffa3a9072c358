"""Dtype policies of the number formats that Keras has no policy for."""

from typing import Any

import keras

from keras_embcomp._compat import KERAS_MODES, register_policy_of_keras
from keras_embcomp.numerics.quantized import MODES

OWN_MODES = tuple(mode for mode in MODES if mode not in KERAS_MODES)
BLOCK = 128  # as Keras' default for 4 bits


@keras.saving.register_keras_serializable(package="keras_embcomp")
class SmallDTypePolicy(keras.DTypePolicy):
    """The policy of a layer whose factors are in 2 bits, or ternary.

    Its name is like that of Keras for 4 bits: `int2/128_from_float32`.

    Args:
        mode: `"int2"` or `"ternary"`, with a block as in `"int2/128"`: the
            columns that share a scale, or -1 for all. 128 without one.
        source_name: The name of the policy of floats.
    """

    modes: tuple[str, ...] = ("int2", "ternary")

    def __init__(self, mode: str, source_name: str | None = None) -> None:
        super().__init__(source_name)
        self._mode, self.block_size = parsed(mode, "mode", self.modes)
        self._source_name = super().name

    @property
    def name(self) -> str:
        """The name of this policy."""
        return f"{self._mode}/{self.block_size}_from_{self._source_name}"

    @property
    def quantization_mode(self) -> str:
        """The mode, without a block."""
        return self._mode

    def get_config(self) -> dict[str, Any]:
        return {
            "mode": f"{self._mode}/{self.block_size}",
            "source_name": self._source_name,
        }

    def __eq__(self, other: Any) -> bool:
        return type(other) is type(self) and self.name == other.name

    def __repr__(self) -> str:
        return f'<{type(self).__name__} "{self.name}">'


class Int4DTypePolicy(SmallDTypePolicy):
    """The policy of 4 bits in blocks, for a Keras that does not have it."""

    modes = ("int4",)


if "int4" in OWN_MODES:
    register_policy_of_keras(Int4DTypePolicy)


def policy_named(policy: Any) -> Any:
    """Returns what `dtype` may be, with a name of ours as a policy."""
    if isinstance(policy, str):
        mode, found, source = policy.partition("_from_")
        if not found or mode.partition("/")[0] not in OWN_MODES:
            return policy
        if mode == "int4":  # to Keras, without a block: a scale for a row
            mode = "int4/-1"
        if mode.startswith("int4"):
            return Int4DTypePolicy(mode, source)
        return SmallDTypePolicy(mode, source)
    return policy


def parsed(
    name: Any, argument: str, modes: tuple[str, ...] = MODES
) -> tuple[str, int]:
    """Returns the mode and the block that a name such as `int4/64` has.

    Args:
        name: String.
        argument: The name of the argument that it is, for an error.
        modes: Those that it may have.

    Raises:
        ValueError: if it is no such name.
    """
    mode, slash, text = str(name).partition("/")
    block = BLOCK
    if slash:
        digits = text.removeprefix("-").isdecimal() and text.isascii()
        block = int(text) if digits else 0
    if mode not in modes or block == 0 or block < -1:
        blocks = "/<columns of a block>"
        raise ValueError(
            f"`{argument}` must be {', '.join(modes)} or with a block, as in "
            f"{modes[-1]}{blocks}. Received: {argument}={name}"
        )
    return mode, block
