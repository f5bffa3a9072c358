"""The smallest plan whose model scores well enough."""

import dataclasses
import math
import numbers
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import keras

from keras_embcomp.compression.apply import compressed
from keras_embcomp.compression.choose import (
    UnreachableError,
    best_plan,
    plan_of,
    tries_of,
)
from keras_embcomp.compression.plan import CompressionPlan
from keras_embcomp.compression.statistics import weighed_tables
from keras_embcomp.files import written_whole
from keras_embcomp.text_tables import markdown

Evaluate: TypeAlias = Callable[[keras.Model], float]

_FIRST, _MOST = 16.0, 256.0  # ratios: the first that is tried, and the last
_LEAST = 1.25
_NEAR = 1.1  # two ratios nearer than this are not told apart
_PROBED = 24.0  # times smaller: a table that is tried alone
_LARGE = 0.02  # of all bytes: a table that is tried alone
_COLUMNS = ("tables", "bytes", "ratio", "error", "score", "drop", "within")


@dataclasses.dataclass
class Trial:
    """A plan that was tried.

    Attributes:
        name: `"all"`, or the path of the table that alone was compressed.
        plan: Its plan.
        score: What `evaluate` returned.
        within: Whether the score is high enough.
    """

    name: str
    plan: CompressionPlan
    score: float
    within: bool

    @property
    def error(self) -> float:
        """The largest expected error of a table."""
        return max(entry.error for entry in self.plan.tables)


@dataclasses.dataclass
class PlanSearch:
    """How the smallest plan was found.

    Args:
        plan: The smallest plan that was tried whose score is high enough.
        model: The model that it makes.
        trials: Every plan that was tried, in order.
        dense_score: What `evaluate` returned for the model as it was.
        least_score: The least score that is high enough.
    """

    plan: CompressionPlan
    model: keras.Model
    trials: list[Trial]
    dense_score: float
    least_score: float

    def to_markdown(self) -> str:
        """Returns a table of all trials, with the dense model first."""
        score = f"{self.dense_score:.4f}"
        held = f"{self.plan.bytes_before:,}"
        rows = [_COLUMNS, ("dense", held, "1.0", "0", score, "", "")]
        for trial in self.trials:
            plan = trial.plan
            within = "yes" if trial.within else "no"
            rows.append(
                (
                    trial.name,
                    f"{plan.bytes_after:,}",
                    f"{plan.bytes_before / plan.bytes_after:.1f}",
                    f"{trial.error:.3f}",
                    f"{trial.score:.4f}",
                    f"{self.dense_score - trial.score:+.4f}",
                    f"{within}, chosen" if plan is self.plan else within,
                )
            )
        return markdown(rows, left=1)

    def __str__(self) -> str:
        return self.to_markdown()

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the scores of all trials against bytes into a file."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), layout="tight")
        axes = figure.subplots()
        points = sorted(
            (trial.plan.bytes_after / 1e6, trial.score)
            for trial in self.trials
            if trial.name == "all"
        )
        axes.plot(*zip(*points, strict=True), marker="o", label="compressed")
        axes.axhline(self.dense_score, color="grey", ls="--", label="dense")
        axes.axhline(
            self.least_score, color="tab:red", ls=":", label="high enough"
        )
        axes.set_title("Score of compressed models")
        axes.set_xscale("log")
        axes.set_xlabel("size of the tables (MB)")
        axes.set_ylabel("score")
        axes.grid(alpha=0.3)
        axes.legend()
        path = Path(path).expanduser()
        with written_whole(path) as temporary:
            figure.savefig(temporary, dpi=150)


def search_plan(
    model: keras.Model,
    evaluate: Evaluate,
    max_drop: float | None = None,
    min_score: float | None = None,
    frequencies: Any = None,
    data: Any = None,
    method: str = "auto",
    effort: str = "low",
    max_evaluations: int = 12,
    verbose: int = 0,
) -> PlanSearch:
    """Finds the smallest plan whose model scores well enough.

    Each table of more than 2 % of the bytes is compressed alone first, if there
    are several: what the score loses then says how much its errors count.
    Ratios of all tables are then bisected. Scores are taken as they are: one
    that jumps from run to run gives a plan that jumps too, so evaluate on as
    many samples as you can, and on others than those that you report.

    Args:
        model: Built model of any class. It stays as it is.
        evaluate: A function of a model that returns a number, larger for a
            better model, such as an accuracy.
        max_drop: Number above 0: how much less than the model as it is a plan
            may score. One of `max_drop` and `min_score` must be given.
        min_score: Number: the least score of a plan.
        frequencies: As for `plan_compression`.
        data: As for `plan_compression`.
        method: As for `plan_compression`.
        effort: As for `plan_compression`.
        max_evaluations: Integer above 1. How many compressed models are
            evaluated, at most.
        verbose: 1 prints each trial.

    Returns:
        A `PlanSearch`. It prints as a table of all trials; `plan` and `model`
        are the smallest, and `plot(path)` draws them.

    Raises:
        ValueError: if `evaluate` returns no finite number, no plan that was
            tried scores well enough (says what the nearest scored), or as
            `plan_compression`.
    """
    check_score_goal(evaluate, max_drop, min_score)
    if isinstance(max_evaluations, bool) or not (
        isinstance(max_evaluations, numbers.Integral) and max_evaluations > 1
    ):
        raise ValueError(
            "`max_evaluations` must be an integer above 1. Received: "
            f"max_evaluations={max_evaluations}"
        )
    tries = tries_of(method, effort)
    tables = weighed_tables(model, frequencies, data)
    dense_score = _score(evaluate, model)
    least = dense_score - max_drop if max_drop is not None else min_score
    assert least is not None  # by `check_score_goal`
    search = _Search(
        model, tables, evaluate, tries, dense_score, least, verbose
    )
    search.weigh_tables(max_evaluations // 2)
    search.bisect(max_evaluations)
    return search.found()


def check_score_goal(
    evaluate: Any, max_drop: float | None, min_score: float | None
) -> None:
    """Raises unless one goal is given, and what measures it."""
    if (max_drop is None) == (min_score is None):
        raise ValueError(
            "One of `max_drop` and `min_score` must be given. Received: "
            f"max_drop={max_drop}, min_score={min_score}"
        )
    for name, value in (("max_drop", max_drop), ("min_score", min_score)):
        if value is None:
            continue
        number = isinstance(value, numbers.Real) and math.isfinite(value)
        if (
            not number
            or isinstance(value, bool)
            or (name == "max_drop" and value <= 0)
        ):
            above = " above 0" if name == "max_drop" else ""
            raise ValueError(
                f"`{name}` must be a finite number{above}. "
                f"Received: {name}={value}"
            )
    if not callable(evaluate):
        raise ValueError(
            "`evaluate` must be a function of a model that returns a number. "
            f"Received: evaluate={evaluate!r}"
        )


def _score(evaluate, model):
    score = evaluate(model)
    try:
        score = float(score)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(
            "`evaluate` must return a finite number. "
            f"Received: {score!r} for model '{model.name}'"
        )
    return score


class _Search:
    """Plans while they are tried."""

    def __init__(
        self, model, tables, evaluate, tries, dense_score, least, verbose
    ):
        self.model, self.tables, self.evaluate = model, tables, evaluate
        self.tries, self.verbose = tries, verbose
        self.dense_score, self.least = dense_score, least
        self.trials: list[Trial] = []
        self.best: tuple[Trial, keras.Model] | None = None
        if verbose:
            print(f"dense: {dense_score:.4f}, enough: {least:.4f}")

    def _try(self, name, plan):
        small = compressed(self.model, self.tables, plan)
        score = _score(self.evaluate, small)
        trial = Trial(name, plan, score, score >= self.least)
        self.trials.append(trial)
        if self.verbose:
            print(
                f"{name}: {plan.bytes_after:,} bytes, "
                f"{plan.bytes_before / plan.bytes_after:.1f} times smaller, "
                f"error {trial.error:.3f}: {score:.4f}"
            )
        if name == "all" and trial.within:
            smallest = self.best and self.best[0].plan.bytes_after
            if smallest is None or plan.bytes_after < smallest:
                self.best = trial, small
        return trial

    def weigh_tables(self, most):
        """Sets how much the error of each table counts, by trying it alone."""
        tables = self.tables
        held = sum(table.bytes for table in tables)
        large = [t for t in tables if t.bytes > _LARGE * held]
        if len(large) < 2:
            return
        large = sorted(large, key=lambda t: -t.bytes)[:most]
        felt = {}
        for table in large:
            try:
                own = best_plan(table, table.bytes / _PROBED, self.tries)
            except UnreachableError:
                continue
            trial = self._try(table.path, CompressionPlan([own]))
            drop = max(self.dense_score - trial.score, 0)
            felt[table.path] = drop, own.error**2
        # A drop of nothing is not known to be less than some of the largest.
        floor = 0.05 * max((drop for drop, _ in felt.values()), default=0)
        weights = {
            path: max(drop, floor) / error
            for path, (drop, error) in felt.items()
            if floor > 0 and error > 0
        }
        if not weights:
            return
        usual = sum(weights.values()) / len(weights)
        self.tables = [
            table._replace(importance=weights.get(table.path, usual) / usual)
            for table in tables
        ]

    def bisect(self, most):
        """Tries ratios until two that are near differ in what they are."""
        passed, failed, ratio = None, None, _FIRST
        while len(self.trials) < most:
            plan = self._plan(ratio)
            if plan is None or not self._try("all", plan).within:
                failed = ratio
            else:
                passed = ratio
            if failed is None:
                if ratio >= _MOST:
                    break
                ratio = min(2 * ratio, _MOST)
            elif passed is None:
                if ratio <= _LEAST:
                    break
                ratio = max(ratio / 2, _LEAST)
            elif failed / passed <= _NEAR:
                break
            else:
                ratio = math.sqrt(failed * passed)

    def _plan(self, ratio):
        """Returns the plan of a ratio, or `None` where there is none."""
        tables = self.tables
        budget = sum(table.bytes for table in tables) / ratio
        try:
            return plan_of(tables, budget, self.tries)
        except UnreachableError:
            return None

    def found(self):
        """Returns what was found, or raises."""
        if self.best is None:
            tried = [trial for trial in self.trials if trial.name == "all"]
            nearest = max(tried, key=lambda t: t.score, default=None)
            what = "no plan at all"
            if nearest is not None:
                plan = nearest.plan
                ratio = plan.bytes_before / plan.bytes_after
                what = f"{nearest.score:.4f} at best, {ratio:.1f} times smaller"
            raise UnreachableError(
                "A plan must score at least "
                f"{self.least:.4f} (dense: {self.dense_score:.4f}). "
                f"Received: {what}"
            )
        trial, small = self.best
        return PlanSearch(
            trial.plan, small, self.trials, self.dense_score, self.least
        )
