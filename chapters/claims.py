"""What chapter 18 claims, with its number: `claim(words, value, low, high)`; the margins that random trainings need.

Written by hand beside the notebooks, and no part of the package.
"""

import json
import math
import os

import torch
from scipy import stats

LEVEL = stats.norm.sf(5)  # the chance to lie five standard errors above the mean: 3e-7


def claim(words, value, low=-math.inf, high=math.inf):
    """Print `value` and its limits; outside of them (or nan) the claim does not hold.

    Raises: AssertionError then. Under `make reproduce`, which names a file in CLAIMS, the claim is noted there instead,
    and the chapter goes on: no result is lost. Under QUICK, whose few networks show little, the value is printed alone.
    """
    value, low, high = (float(number) for number in (value, low, high))
    if os.environ.get("QUICK"):
        print(f"{words}: {value:.4g} (preview, no claim)")
        return
    limits = " and ".join(
        f"{word} {limit:.4g}" for word, limit in (("at least", low), ("at most", high)) if math.isfinite(limit)
    )
    line = f"{words}: {value:.4g} ({limits})"
    print(line)
    if low <= value <= high:
        return
    if notes := os.environ.get("CLAIMS"):
        with open(notes, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    else:
        raise AssertionError(f"does not hold: {line}")


def margin(values):
    """Five standard errors of the mean of `values`, (n,); below 30, Student's t at the same level; of one, inf."""
    values = torch.as_tensor(values, dtype=torch.float64)
    n = len(values)
    if n < 2:
        return math.inf
    factor = 5 if n >= 30 else stats.t.isf(LEVEL, n - 1)
    return factor * values.std().item() / math.sqrt(n)


def share_limits(hits, n):
    """The shares (low, high) that `hits` of `n` leave possible, at the level of five standard errors.

    Source: Clopper and Pearson, 1934.
    """
    low = stats.beta.ppf(LEVEL, hits, n - hits + 1) if hits else 0.0
    high = stats.beta.isf(LEVEL, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


def share(words, runs, least=-math.inf, most=math.inf):
    """Claim the share that is possible, given the runs, (R,), of which it is true: at least `least`, at most `most`."""
    low, high = share_limits(int(runs.sum()), len(runs))
    end, value = ("most", high) if math.isfinite(most) else ("least", low)
    claim(f"{words}: {int(runs.sum())} of {len(runs)}; true share at {end}", value, least, most)


def median_limits(values):
    """The medians (low, high) that `values`, (n,), leave possible, at the level of five standard errors.

    Each value lies below the true median with a probability of 1/2: the limits are values by rank. Fewer than 22
    values leave everything possible.
    """
    ordered = torch.as_tensor(values, dtype=torch.float64).sort().values
    n = len(ordered)
    rank = int(stats.binom.ppf(LEVEL, n, 0.5))  # at least this many lie below
    return (ordered[rank - 1].item(), ordered[n - rank].item()) if rank else (-math.inf, math.inf)
