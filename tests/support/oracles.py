"""Naive NumPy: from a layer's weights to its table. Imports nothing of ours."""

import numpy as np


def low_rank_table(embeddings, projection):
    """Sums outer products, one for each unit of rank."""
    table = np.zeros((embeddings.shape[0], projection.shape[1]))
    for unit in range(embeddings.shape[1]):
        table += np.outer(embeddings[:, unit], projection[unit])
    return table


def tensor_train_table(vocabulary, *cores):
    """Multiplies matrices entry by entry: Khrulkov et al. 2019, Eq. 1."""
    row_modes = [core.shape[0] for core in cores]
    column_modes = [core.shape[2] for core in cores]
    table = np.zeros((np.prod(row_modes), np.prod(column_modes)))
    for row, i in enumerate(np.ndindex(*row_modes)):
        for column, j in enumerate(np.ndindex(*column_modes)):
            product = np.ones((1, 1))
            for k, core in enumerate(cores):
                product = product @ core[i[k], :, j[k], :]
            table[row, column] = product.item()
    return table[:vocabulary]


def shuffled_place(number, size, columns, rows, constants):
    """Rotates the rows and columns of a ragged grid, in Python integers."""
    row, column = divmod(number, columns)
    short = size - (rows - 1) * columns
    for turn, (first, second, third) in enumerate(constants):
        line, most = (row, columns) if turn % 2 == 0 else (column, rows)
        wrapped = (line * first + second + 2**31) % 2**32 - 2**31
        mixed = wrapped % (2**31 - 1)
        wrapped = mixed * third + mixed // 2**15
        wrapped = (wrapped + 2**31) % 2**32 - 2**31
        distance = wrapped % (2**31 - 1) // 2**11 % most
        if turn % 2 == 0:
            length = columns if row < rows - 1 else short
            column = (column + distance) % length
        else:
            length = rows if column < short else rows - 1
            row = (row + distance) % length
    return row * columns + column


def hashed_table(
    vocabulary, num_parts, shared, subvectors, seed=0, num_private=0
):
    """Concatenates the pieces of every word, one by one."""
    if num_private:  # the pool, then the pieces of private rows in order
        size = len(subvectors) - num_private * num_parts
        rows = subvectors[size:].reshape(num_private, -1)
        rest = vocabulary - num_private
        pool = subvectors[:size]
        return np.concatenate(
            [rows, hashed_table(rest, num_parts, shared, pool, seed)]
        )
    generator = np.random.default_rng(seed)
    constants = 2 * generator.integers(2**28, 2**30, (4, 3, num_parts)) + 1
    columns = int(np.ceil(np.sqrt(vocabulary)))
    rows = -(-vocabulary // columns)
    pool = len(subvectors) // num_parts
    extra = len(subvectors) % num_parts
    table = []
    for word in range(vocabulary):
        pieces = []
        for part in range(num_parts):
            numbers = constants[:, :, part].tolist()
            place = shuffled_place(word, vocabulary, columns, rows, numbers)
            if shared:
                code = (place + part * vocabulary) % len(subvectors)
            else:
                start = part * pool + min(part, extra)
                code = start + place % (pool + (part < extra))
            pieces.append(subvectors[code])
        table.append(np.concatenate(pieces))
    return np.stack(table)


def grouped_table(width, *weights):
    """Multiplies the factors of each group, row by row; dense ones are rows."""
    weights, rows = list(weights), []
    while weights:
        words = weights.pop(0)
        if words.shape[1] == width:
            rows.extend(words)
            continue
        projection = weights.pop(0)
        for word in words:
            rows.append(
                sum(x * y for x, y in zip(word, projection, strict=True))
            )
    return np.stack(rows)


def decoded_table(rows, bias, projection, projection_bias, *hidden):
    """Decodes word by word; ReLU is the positive part."""
    table = []
    for row in rows:
        narrow = row @ hidden[0] if hidden else row
        features = [max(x, 0.0) for x in narrow + bias]
        word = np.array(features) @ projection + projection_bias
        table.append(word + row @ hidden[1] if hidden else word)
    return np.stack(table)


def coded_table(num_parts, codebooks, projection, mean, codes):
    """Puts the vectors of each word side by side, word by word."""
    size = len(codebooks) // num_parts
    table = []
    for word in codes:
        pieces = [
            codebooks[part * size + int(code)] for part, code in enumerate(word)
        ]
        table.append(np.concatenate(pieces) @ projection + mean)
    return np.stack(table)


def kept_table(num_parts, codebooks, projection, mean, kept, codes):
    """As `coded_table`, but for words whose first code is the last there is."""
    table = coded_table(num_parts, codebooks, projection, mean, codes)
    size = len(codebooks) // num_parts
    for word, (first, *digits) in enumerate(codes.tolist()):
        if first == size - 1:
            number = sum(digit * size**i for i, digit in enumerate(digits))
            table[word] = kept[number]
    return table


def trellis_table(
    group_bytes, state_bits, values, scales, projection, mean, codes, *others
):
    """Reads each word's string bit by bit, and keeps the last bits as text."""
    *grouped, bits = others
    turns = [5**0.5 / 2 - 0.5, 2**0.5 - 1, 3**0.5 - 1, 13**0.5 / 2 - 1.5]
    turns = [int(2**state_bits * turn) // 2 * 2 + 1 for turn in turns]
    count = len(codes) // group_bytes[0]
    groups = [0] * count
    if grouped:
        groups = [g for pair in grouped[0] for g in (pair % 16, pair // 16)]
    table, read = [], 0
    while read < len(codes):
        group = groups[len(table)]
        own = codes[read : read + group_bytes[group]]
        read += group_bytes[group]
        string = "".join(f"{byte:08b}" for byte in own)
        window, parts = "0" * state_bits, []
        for step, new in enumerate(bits[group]):
            window = (window + string[:new])[-state_bits:]
            string = string[new:]
            place = int(window, 2) * turns[step % 4] % 2**state_bits
            parts.extend(values[place])
        assert string == ""
        table.append((np.array(parts) * scales[group]) @ projection + mean)
    return np.stack(table)


def cyclically_annealed_rates(upper, lower, decay, freq, step_size, epochs, n):
    """The paper's loop, to the letter: the rate of every iteration."""
    rates, bound, it = [], upper, 0
    for epoch in range(epochs):
        if epoch > 0 and epoch % freq == 0:
            bound = bound * decay
        if bound <= lower * (1 + 1e-6):
            bound = upper
        for _ in range(n):
            it += 1
            c = it % (2 * step_size)
            bump = (bound - lower) / step_size
            if c < step_size:
                rates.append(lower + c * bump)
            else:
                rates.append(bound - (c - step_size) * bump)
    return rates
