"""Arguments that constructors must refuse, each with the message."""

TENSOR_TRAIN = (
    (
        {"tt_shape": ((17, 18), (3, 4))},
        "The row modes of `tt_shape` must multiply to at least "
        "`input_dim`; `tt_shape=None` picks modes that fit. Received: "
        "tt_shape=((17, 18), (3, 4)), so 306 rows, input_dim=307",
    ),
    (
        {"tt_shape": ((17, 19), (3, 3))},
        "The column modes of `tt_shape` must multiply to the width of "
        "the table; `tt_shape=None` picks modes that fit. Received: "
        "tt_shape=((17, 19), (3, 3)), so 9 columns, width=12",
    ),
    (
        {"tt_shape": (307, 12)},
        "`tt_shape` must be a pair of tuples of positive integers, row "
        "modes and column modes, one of each for 2 to 6 cores. "
        "Received: tt_shape=(307, 12)",
    ),
    (
        {"num_cores": 7},
        "`num_cores` must be from 2 to 6. Received: num_cores=7",
    ),
    (
        {"tt_ranks": [2, 2, 2]},
        "`tt_ranks` must be an integer, or a list with one rank for "
        "each of the 2 places between the 3 cores. "
        "Received: tt_ranks=(2, 2, 2)",
    ),
    (
        {"tt_ranks": 0},
        "`tt_ranks` must be a positive integer. Received: tt_ranks=0",
    ),
)

HASHED = (
    (
        {"num_parts": 5},
        "`num_parts` must divide `output_dim`; the nearest that do are "
        "4 and 6. Received: num_parts=5, output_dim=12",
    ),
    (
        {"num_subvectors": 922},
        "`num_subvectors` must not exceed `input_dim * num_parts`. "
        "Received: num_subvectors=922, input_dim * num_parts=921",
    ),
    (
        {"num_parts": 2**24},
        "`input_dim * num_parts` must be below 2**31. "
        "Received: input_dim=307, num_parts=16777216",
    ),
    (
        {"num_subvectors": 2, "shared_pool": False},
        "`num_parts` must not exceed `num_subvectors`. "
        "Received: num_parts=3, num_subvectors=2",
    ),
)

PRIVATE = (
    (
        {"num_private": 307},
        "`num_private` must be below `input_dim`. "
        "Received: num_private=307, input_dim=307",
    ),
    (
        {"num_private": -1},
        "`num_private` must be an integer, 0 or more. Received: num_private=-1",
    ),
    (
        {"num_private": 300},
        "`num_subvectors` must not exceed `(input_dim - num_private) * "
        "num_parts`. Received: num_subvectors=100, "
        "(input_dim - num_private) * num_parts=21",
    ),
)

GROUP_REDUCE = (
    (
        {"group_sizes": (50, 100, 156)},
        "`group_sizes` must sum to `input_dim`. Received: "
        "group_sizes=(50, 100, 156), so 306, input_dim=307",
    ),
    (
        {"group_sizes": (307, 0)},
        "`group_sizes` must be a positive integer. Received: group_sizes=0",
    ),
    (
        {"group_sizes": 307},
        "`group_sizes` must be a list of positive integers. "
        "Received: group_sizes=307",
    ),
    (
        {"group_ranks": (12, 5)},
        "`group_ranks` must have one rank for each group. Received: "
        "group_ranks=(12, 5), group_sizes=(50, 100, 157)",
    ),
    (
        {"group_ranks": (51, 5, 2)},
        "`group_ranks` must not exceed `group_sizes`. Received: "
        "group_ranks=(51, 5, 2), group_sizes=(50, 100, 157)",
    ),
    (
        {"group_ranks": (13, 5, 2)},
        "`group_ranks` must not exceed `output_dim`. Received: "
        "group_ranks=(13, 5, 2), output_dim=12",
    ),
)

DISTILLED = (
    (
        {"rank": 13},
        "`rank` must not exceed `output_dim`. Received: rank=13, output_dim=12",
    ),
    (
        {"hidden_dim": 0},
        "`hidden_dim` must be a positive integer. Received: hidden_dim=0",
    ),
)

LOW_RANK = (
    (
        {"rank": 13},
        "`rank` must not exceed `output_dim`. Received: rank=13, output_dim=12",
    ),
    (
        {"rank": 0},
        "`rank` must be a positive integer. Received: rank=0",
    ),
)

CODED = (
    (
        {"num_parts": 5},
        "`num_parts * (part_width - 1)` must be below `output_dim`; the "
        "largest `part_width` that is used is 3. "
        "Received: num_parts=5, part_width=4, output_dim=12",
    ),
    (
        {"num_parts": 13, "part_width": 1},
        "`num_parts` must not exceed `output_dim`. "
        "Received: num_parts=13, output_dim=12",
    ),
    (
        {"num_kept": 308},
        "`num_kept` must not exceed `input_dim`. "
        "Received: num_kept=308, input_dim=307",
    ),
    (
        {"num_parts": 2, "codebook_size": 16, "num_kept": 17},
        "`num_kept` must not exceed `codebook_size ** (num_parts - 1)`. "
        "Received: num_kept=17, codebook_size ** (num_parts - 1)=16",
    ),
    (
        {"num_kept": True},
        "`num_kept` must be an integer, 0 or more. Received: num_kept=True",
    ),
    (
        {"codebook_size": 308},
        "`codebook_size` must not exceed `input_dim`. "
        "Received: codebook_size=308, input_dim=307",
    ),
    (
        {"factors_dtype": "int4"},
        "`factors_dtype` must be one of float32, int8. "
        "Received: factors_dtype=int4",
    ),
)

STRINGS = (
    (
        {"group_bytes": 25},
        "`group_bytes` must not exceed 12, which is 8 bits for each of 12 "
        "steps. Received: group_bytes=(25,)",
    ),
    (
        {"group_bytes": 0},
        "`group_bytes` must fall from group to group, and not all be 0. "
        "Received: group_sizes=(307,), group_bytes=(0,)",
    ),
    (
        {"group_bytes": (1, 2), "group_sizes": (7, 300)},
        "`group_bytes` must fall from group to group, and not all be 0. "
        "Received: group_sizes=(7, 300), group_bytes=(1, 2)",
    ),
    (
        {"group_bytes": (2, 1)},
        "`group_sizes` must give the rows of each group if `group_bytes` has "
        "several. Received: group_sizes=None, group_bytes=(2, 1)",
    ),
    (
        {"group_bytes": (2, 1), "group_sizes": (7, 7)},
        "`group_sizes` must sum to `input_dim`. Received: group_sizes=(7, 7), "
        "so 14, input_dim=307",
    ),
    (
        {"group_bytes": (2, 1), "group_sizes": (307,)},
        "`group_sizes` and `group_bytes` must have as many entries, at most "
        "16. Received: group_sizes=(307,), group_bytes=(2, 1)",
    ),
    (
        {"group_bytes": 2.5},
        "`group_bytes` must be an integer, 0 or more. "
        "Received: group_bytes=2.5",
    ),
    (
        {"step_bits": 2},
        "`step_bits` must be one of 1, 4, 8. Received: step_bits=2",
    ),
    (
        {"state_bits": 16},
        "`state_bits` must be from 2 to 15 with step_bits=1. "
        "Received: state_bits=16",
    ),
    (
        {"state_bits": 4, "step_bits": 8},
        "`state_bits` must be from 8 to 15 with step_bits=8. "
        "Received: state_bits=4",
    ),
    (
        {"num_parts": 13},
        "`num_parts` must not exceed `output_dim`. "
        "Received: num_parts=13, output_dim=12",
    ),
    (
        {"num_parts": 6, "part_width": 4},
        "`num_parts * (part_width - 1)` must be below `output_dim`; the "
        "largest `part_width` that is used is 2. "
        "Received: num_parts=6, part_width=4, output_dim=12",
    ),
    (
        {"factors_dtype": "int16"},
        "`factors_dtype` must be one of float32, int8. "
        "Received: factors_dtype=int16",
    ),
)
