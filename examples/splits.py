"""Splits of labelled texts that do not leak and do not change."""

import random
from collections import Counter, defaultdict

_RUN_WORDS = 8


def without_repeats(texts):
    """Returns the indices of the texts that repeat no earlier text.

    A text repeats another if they differ only in case and white space, or if
    more than half of the shorter one's runs of eight words are also in the
    other: a story that was published again under another headline.
    """
    seen, holders, num_runs, kept = set(), defaultdict(list), {}, []
    for index, text in enumerate(texts):
        words = tuple(text.lower().split())
        if words in seen:
            continue
        seen.add(words)
        starts = range(len(words) - _RUN_WORDS + 1)
        runs = {words[start : start + _RUN_WORDS] for start in starts}
        shared = Counter(
            earlier for run in runs for earlier in holders.get(run, ())
        )
        if any(
            count > min(len(runs), num_runs[earlier]) / 2
            for earlier, count in shared.items()
        ):
            continue
        kept.append(index)
        num_runs[index] = len(runs)
        for run in runs:
            holders[run].append(index)
    return kept


def stratified(labels, parts, seed):
    """Returns one sorted list of indices for each part.

    Labels have the same proportions in all parts. The parts depend on the
    labels, their order and the seed.

    Args:
        labels: Sequence of labels.
        parts: Fractions of the first parts; the last part gets the rest.
        seed: Integer.
    """
    groups = defaultdict(list)
    for index, label in enumerate(labels):
        groups[label].append(index)
    shares = [[] for _ in range(len(parts) + 1)]
    for label in sorted(groups):
        group = groups[label]
        random.Random(f"{seed} {label}").shuffle(group)
        start = 0
        for share, part in zip(shares, parts, strict=False):
            end = start + round(part * len(group))
            share.extend(group[start:end])
            start = end
        shares[-1].extend(group[start:])
    return [sorted(share) for share in shares]
