"""Median times of calls, in milliseconds."""

import time

import numpy as np


def median_ms(call, repeats, warm_up=3):
    """Returns the median time of a call, after some calls to warm up."""
    return medians_ms({"": call}, repeats, warm_up)[""]


def medians_ms(calls, repeats, warm_up=3):
    """Returns the median time of each call, by name.

    The calls take turns, so that other work on the machine slows all of them.
    """
    times = {name: [] for name in calls}
    for turn in range(warm_up + repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(found)) for name, found in times.items()}
