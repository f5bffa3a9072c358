"""How near trellis codes come to the limit of Gaussian numbers.

A row is the squared error of trellis codes fitted to 8,192 rows of 128
independent Gaussian numbers, times `4 ** bits`: a perfect code has 1. Plans
expect what is printed here (`numerics/trellis/budgets.py`).

    python benchmarks/trellis_codes.py
"""

import argparse

import numpy as np

from keras_embcomp.numerics.trellis.codes import decoded_rows
from keras_embcomp.numerics.trellis.fitting import Structure, trellis_codes
from keras_embcomp.text_tables import markdown

ROWS, WIDTH = 8_192, 128
RATES = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8)  # bits of a direction
WIDTHS = {4: (1, 2, 3, 4), 8: (1, 2, 3, 4, 6, 8)}  # of steps of several bits


def excess(table, rate, structure):
    """Returns the squared error over that of a perfect code."""
    found = trellis_codes(table, structure, np.ones(len(table)))
    error = np.mean((decoded_rows(found) - table) ** 2)
    return f"{error * 4**rate:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--state-bits", type=int, nargs="+")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    table = generator.standard_normal((ROWS, WIDTH), "float32")
    sizes = options.state_bits or (6, 8, 10, 12)
    lines = [["bits of a state", *(f"{rate} bits" for rate in RATES)]]
    for bits in sizes:
        cells = [
            excess(
                table,
                rate,
                Structure((ROWS,), (int(WIDTH * rate / 8),), WIDTH, 1, 1, bits),
            )
            for rate in RATES
            if rate <= bits
        ]
        lines.append([bits, *cells, *[""] * (len(RATES) - len(cells))])
        print(lines[-1], flush=True)
    print(markdown(lines))
    for step, widths in WIDTHS.items():
        heads = (f"{step / width:.2f} bits" for width in widths)
        lines = [[f"bits of a state, steps of {step}", *heads]]
        for bits in sizes:
            if bits < step:
                continue
            cells = []
            for width in widths:
                parts = WIDTH // width
                size = parts * step // 8
                structure = Structure(
                    (ROWS,), (size,), parts, width, step, bits
                )
                own = table[:, : parts * width]
                cells.append(excess(own, 8 * size / own.shape[1], structure))
            lines.append([bits, *cells])
        print(markdown(lines), flush=True)


if __name__ == "__main__":
    main()
