"""The rule of chapter 18: which readings of a report its own numbers exclude. 18a states it; all parts use it.

Written by hand beside the notebooks, and no part of the package.
"""

import dataclasses
import math
import os

import torch
from scipy import stats

LEVEL = 0.0027  # three standard deviations, both sides: what is less likely is excluded
WIDE = 3  # so many times the paper's deviation, and ours says nothing
KIND = "application/vnd.minidl.report+json"  # how a notebook hands a report to `make reproduce`


@dataclasses.dataclass(frozen=True)
class Paper:
    """A row of a report's own table, in percent: means, deviations where there are any, and its runs."""

    train: float
    test: float
    train_std: float = None
    test_std: float = None
    n: int = None  # None: not said
    points: int = 1000  # that an error was counted on

    def __getitem__(self, which):
        return getattr(self, which), getattr(self, f"{which}_std")

    def spread(self, which):
        """Its deviation; of a single run, that of an error counted on so many points, the least that it can have."""
        mean, std = self[which]
        return math.sqrt(mean * (100 - mean) / self.points) if self.n == 1 else std


def distance(errors, mean, std, n):
    """How far our mean lies from the paper's, in standard errors, and the chance of that or more: z, p.

    `errors` are ours, (R,), in percent. Ten runs and more of theirs: Welch's t. One run: a single draw beside R of
    ours, with the deviation s sqrt(1 + 1/R), Student's t. Not said how many: the distance in our deviations, no chance.

    Source: Welch, 1947.
    """
    errors = torch.as_tensor(errors, dtype=torch.float64)
    ours, s, count = errors.mean().item(), errors.std().item(), len(errors)
    if n is None or n == 1:
        unit, freedom = s * math.sqrt(1 + 1 / count), count - 1
    else:
        a, b = s**2 / count, std**2 / n
        unit = math.sqrt(a + b)
        freedom = (a + b) ** 2 / (a**2 / (count - 1) + b**2 / (n - 1)) if unit else math.inf
    gap = ours - mean
    z = gap / unit if unit else math.copysign(math.inf, gap) if gap else 0.0
    return z, None if n is None else float(2 * stats.t.sf(abs(z), freedom))


def holm(chances):
    """The chances of several questions asked at once, made larger so that one slip in all is as unlikely as in one.

    Source: Holm, 1979.
    """
    order, adjusted, least = sorted(range(len(chances)), key=chances.__getitem__), [0.0] * len(chances), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(chances) - rank) * chances[i]))
        adjusted[i] = least
    return adjusted


@dataclasses.dataclass
class Line:
    """A reading, held against a row of the paper's table; errors in percent, (R,)."""

    reading: str
    row: str
    ours: dict  # {"train": (R,), "test": (R,)}
    theirs: dict  # PyTorch's, or {}
    stated: bool
    chosen: bool
    seconds: float
    z: dict = dataclasses.field(default_factory=dict)
    chances: dict = dataclasses.field(default_factory=dict)  # after Holm
    verdict: str = ""


def spread(errors):
    """Mean, deviation and number, as a table has them; None for nothing."""
    if errors is None:
        return None
    return errors.mean().item(), errors.std().item() if len(errors) > 1 else 0.0, len(errors)


class Report:
    """The readings of a report, and what the rule says of each; shown as a table, and handed to `make reproduce`.

    `rows` are the rows of the paper's table for its own framework, {name: Paper}; `others` those for its PyTorch,
    which are compared too, and decide nothing. `digits` says that a run gave the paper's digits, all of them.
    """

    def __init__(self, number, claims, rows, others=()):
        self.number, self.claims, self.rows, self.others = number, claims, dict(rows), dict(others)
        self.lines, self.digits, self.judged = [], False, False

    def add(self, reading, row, train, test, theirs=(), *, stated=False, chosen=False, seconds=None):
        """A reading's error rates, (R,) each, as shares; `theirs` are PyTorch's, (train, test)."""
        if row not in self.rows | self.others:
            raise ValueError(f"Report {self.number}: expected one of {[*self.rows, *self.others]}, got {row!r}")
        ours, other = ([100 * torch.as_tensor(e).double() for e in pair] for pair in ((train, test), theirs))
        names = "train", "test"
        self.lines.append(Line(reading, row, dict(zip(names, ours)), dict(zip(names, other)), stated, chosen, seconds))

    def judge(self):
        """Hold every line against its row; Holm over all of them together."""
        asked = []
        for line in self.lines:
            paper = (self.rows | self.others)[line.row]
            for which, errors in line.ours.items():
                line.z[which], p = distance(errors, *paper[which], paper.n)
                if p is not None:
                    asked.append((line, which, p))
        for (line, which, _), p in zip(asked, holm([p for *_, p in asked]), strict=True):
            line.chances[which] = p
        for line in self.lines:
            line.verdict = self.word(line, (self.rows | self.others)[line.row])

    def word(self, line, paper):
        """What the rule says of one line; nothing under QUICK."""
        if os.environ.get("QUICK"):
            return ""
        if any(p < LEVEL for p in line.chances.values()):
            return "excluded"
        if paper.n is None:
            return "open"
        stds = [(errors.std().item(), paper.spread(which)) for which, errors in line.ours.items()]
        if any(std and ours > WIDE * std for ours, std in stds):
            return "not informative"
        return "compatible, one run" if paper.n == 1 else "compatible"

    def verdict(self):
        """What the rule says of the report: the best of its readings that fit every row of its table.

        Under QUICK there are too few networks for a verdict.
        """
        self.judge()
        if os.environ.get("QUICK"):
            return ""
        if self.digits:
            return "reproduced to the digit"
        fits = {}
        for line in self.lines:
            if line.row in self.rows:
                reading = line.reading, line.stated, line.chosen
                fits.setdefault(reading, {})[line.row] = line.verdict.startswith("compatible")
        whole = [kind for kind, rows in fits.items() if set(rows) == set(self.rows) and all(rows.values())]
        if any(stated for _, stated, _ in whole):
            word = "reproduced"
            whole = [kind for kind in whole if kind[1]]
        else:
            word = "reproduced under another reading than stated"
        if not whole:
            return "not reproduced"
        return word + ", chosen by its test error" * all(chosen for *_, chosen in whole)

    def data(self):
        """All of it as plain numbers and words."""
        verdict = self.verdict()
        lines = []
        for line in self.lines:
            paper = (self.rows | self.others)[line.row]
            lines.append({
                "reading": line.reading, "row": line.row, "stated": line.stated, "chosen": line.chosen,
                "seconds": line.seconds, "verdict": line.verdict, "runs": paper.n,
                "errors": {which: {
                    "paper": paper[which], "minidl": spread(line.ours[which]), "z": line.z[which],
                    "PyTorch": spread(line.theirs.get(which))} for which in line.ours}})  # fmt: skip
        return {"report": self.number, "claims": self.claims, "verdict": verdict, "lines": lines}

    def __repr__(self):
        data = self.data()
        verdict = data["verdict"] or "preview, no verdict"
        return "\n".join([HEAD, *table(data), f"report {self.number}: {verdict}"])

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": repr(self), KIND: self.data()}


def name(line):
    """A line's reading, with the row that it is held against where they differ."""
    return line["reading"] if line["row"] in ("", line["reading"]) else f"{line['reading']}: {line['row']}"


def z_cell(z):
    """A distance in standard errors; one that is infinite comes out of a notebook as a word."""
    z = float(z)
    return f"{z:.1f}" if abs(z) < 100 else f"{z:.0f}"


def cell(mean, std=None, digits=1):
    """`2.5 ± 1.1`, or the mean alone."""
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def paper_cell(pair):
    """The paper's own digits."""
    mean, std = pair
    return f"{mean:g}" if std is None else f"{mean:g} ± {std:g}"


def count(errors):
    """How many networks; PyTorch's in parentheses, where they are not as many."""
    ours, theirs = errors["minidl"][2], (errors["PyTorch"] or errors["minidl"])[2]
    return f"{ours}" if ours == theirs else f"{ours} ({theirs})"


HEAD = f"{'':4} {'reading, its errors in %':36} {'':5} {'paper':>11} {'minidl':>12} {'n':>8} {'PyTorch':>12} {'z':>5}"


def table(data):
    """A report's readings, two lines each, in a hundred columns."""
    lines = []
    for line in data["lines"]:
        marks = [line["verdict"], *["stated"] * line["stated"], *["chosen by it"] * line["chosen"]]
        for which, words in (("train", name(line)), ("test", "  " + ", ".join(filter(None, marks)))):
            e = line["errors"][which]
            theirs, paper = cell(*e["PyTorch"][:2]) if e["PyTorch"] else "-", paper_cell(e["paper"])
            lines.append(
                f"{data['report'] if which == 'train' else '':4} {words[:36]:36} {which:5} {paper:>11} "
                f"{cell(*e['minidl'][:2]):>12} {count(e):>8} {theirs:>12} {z_cell(e['z']):>5}"
            )
    return lines
