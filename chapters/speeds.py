"""What a step takes, of minidl and of PyTorch, measured in turns; the table of 18g.

Written by hand beside the notebooks, and no part of the package.
"""

import statistics
import time

KIND = "application/vnd.minidl.speeds+json"  # how a notebook hands speeds to `make reproduce`


def in_turns(jobs, rounds):
    """The seconds of each job in each round, [[...], ...]; a job that returns a number of seconds is believed."""
    spent = [[] for _ in jobs]
    for _ in range(rounds):
        for times, job in zip(spent, jobs, strict=True):
            started = time.perf_counter()
            said = job()
            times.append(said if isinstance(said, float) else time.perf_counter() - started)
    return spent


def ratio_cell(pair):
    """PyTorch's time over minidl's: the median of the rounds, the least and the most."""
    return "{:.1f} ({:.1f} to {:.1f})".format(*pair["ratio"])


class Speeds:
    """What a step takes, of one network alone and of one in a stack; a table, and handed to `make reproduce`."""

    def __init__(self, n):
        self.n, self.lines = n, []

    def add(self, network, alone, stacked):
        """Each a pair, minidl's and PyTorch's seconds a step and a network, by round, as `in_turns` gives them."""
        line = {"network": network}
        for how, (ours, theirs) in (("alone", alone), ("stacked", stacked)):
            ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
            line[how] = {"minidl": 1e6 * statistics.median(ours), "PyTorch": 1e6 * statistics.median(theirs),
                         "ratio": [statistics.median(ratios), min(ratios), max(ratios)]}  # fmt: skip
        self.lines.append(line)

    def __repr__(self):
        heads = (f"{how:>12}{'PyTorch':>10}{'ratio':>18}" for how in ("alone", f"one of {self.n}"))
        lines = [f"{'µs a step':10}" + "".join(heads)]
        for line in self.lines:
            cells = (line[how] for how in ("alone", "stacked"))
            lines.append(f"{line['network']:10}" + "".join(
                f"{cell['minidl']:12.0f}{cell['PyTorch']:10.0f}{ratio_cell(cell):>18}" for cell in cells))  # fmt: skip
        return "\n".join(lines)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": repr(self), KIND: {"n": self.n, "lines": self.lines}}
