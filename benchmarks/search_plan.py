"""How small a model may be that loses half a percent: searched, or guessed.

A dense model is trained on each data set. Then plans are made by an error that
is said beforehand, as people do who see the table alone, and by `search_plan`,
which evaluates models on the validation data and stops where the score has
fallen by 0.5 points of accuracy, or 0.005 of the RMSE. Nothing is trained
afterwards. Scores are of the test data, which no search saw.

Each row is saved when it is done. A second run continues where the first
stopped.

    python benchmarks/search_plan.py --data-dir ../shared/data
"""

import time

import keras
from from_scratch import DATA, RATE, Measuring, measured
from results import add, parse_options, read

from keras_embcomp import (
    compress,
    plan_compression,
    search_plan,
    table_statistics,
)
from keras_embcomp.text_tables import markdown

DROPS = {"ml-100k": 0.005, "sst2": 0.5, "imdb": 0.5}
ERRORS = 0.05, 0.1, 0.2, 0.3, 0.5
SEARCHES = "search", "search, with data"
ROWS = ["dense", *SEARCHES, *(f"error {error}" for error in ERRORS)]


class Searching:
    """A data set and its dense model."""

    def __init__(self, name, data_dir, seed):
        self.name, self.data = name, DATA[name](data_dir, seed)
        self.model, _ = Measuring(self.data, seed, RATE).dense

    def row(self, name):
        """Returns what a row says."""
        start = time.perf_counter()
        if name == "dense":
            return self.of(self.model, 1.0, start)
        if name in SEARCHES:
            return self.searched(name, start)
        plan = plan_compression(
            self.model, max_error=float(name.split()[1]), effort="low"
        )
        ratio = plan.bytes_before / plan.bytes_after
        return self.of(compress(self.model, plan), ratio, start)

    def searched(self, name, start):
        known = {}
        if "data" in name:
            known["data"] = table_statistics(
                self.model, self.data.parts[0], loss=self.data.loss
            )
        found = search_plan(
            self.model,
            lambda model: measured(model, self.data, 1),
            max_drop=DROPS[self.name],
            **known,
        )
        print(found, flush=True)
        ratio = found.plan.bytes_before / found.plan.bytes_after
        row = self.of(found.model, ratio, start)
        return {**row, "evaluations": len(found.trials)}

    def of(self, model, ratio, start):
        seconds = time.perf_counter() - start
        scores = {
            name: measured(model, self.data, part)
            for part, name in ((1, "validation"), (2, "test"))
        }
        return {"ratio": ratio, **scores, "seconds": seconds}


def run(name, options):
    """Measures the rows that the results do not have yet."""
    for seed in options.seeds:
        searching = None
        for row in ROWS:
            key = {"data": name, "row": row, "seed": seed}
            if any(key.items() <= one.items() for one in read(options.results)):
                continue
            if searching is None:
                searching = Searching(name, options.data_dir, seed)
            add(options.results, {**key, **searching.row(row)})
        keras.utils.clear_session()


def print_table(results, name):
    lines = [[name, "ratio", "validation", "test", "evaluations", "seconds"]]
    for row in read(results):
        if row["data"] == name:
            lines.append(
                [
                    f"{row['row']}, seed {row['seed']}",
                    f"{row['ratio']:.1f}",
                    f"{row['validation']:.4g}",
                    f"{row['test']:.4g}",
                    str(row.get("evaluations", "")),
                    f"{row['seconds']:.0f}",
                ]
            )
    print(markdown(lines, left=1))


def main():
    options = parse_options(__doc__.split("\n")[0], "search_plan", [0], DROPS)
    for name in options.rows:
        run(name, options)
        print_table(options.results, name)
        print()


if __name__ == "__main__":
    main()
