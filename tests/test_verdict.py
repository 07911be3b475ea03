"""The rule of verdict of chapter 18, against SciPy and by hand."""

import math
import sys

import pytest
import torch
from scipy import stats

import chapters

sys.path.append(str(chapters.CHAPTERS))
from verdict import HEAD, KIND, Paper, Report, distance, holm  # noqa: E402


def errors(mean, std, n, seed=0):
    """n shares whose mean and deviation, in percent, are exact."""
    made = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((made - made.mean()) / made.std() * std + mean) / 100


@pytest.fixture(autouse=True)
def in_full(monkeypatch):
    monkeypatch.delenv("QUICK", raising=False)


def test_ten_runs_of_theirs_are_welchs_t():
    ours = 100 * errors(3.0, 1.4, 50)
    z, p = distance(ours, 2.55, 0.51, 10)
    t = stats.ttest_ind_from_stats(3.0, 1.4, 50, 2.55, 0.51, 10, equal_var=False)
    assert (z, p) == (pytest.approx(t.statistic), pytest.approx(t.pvalue))


def test_one_run_of_theirs_is_a_draw_beside_ours():
    z, p = distance(100 * errors(3.0, 1.0, 50), 5.0, None, 1)
    assert z == pytest.approx(-2 / math.sqrt(1 + 1 / 50))
    assert p == pytest.approx(2 * stats.t.sf(-z, 49))


def test_one_run_is_excluded_as_rarely_as_it_says():
    """Draws of 51 normal numbers, one of them theirs: a chance below 5 % in 5 % of 4000, within five deviations."""
    draws = torch.randn(4000, 51, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    low = sum(distance(row[1:], row[0].item(), None, 1)[1] < 0.05 for row in draws) / 4000
    assert abs(low - 0.05) < 5 * math.sqrt(0.05 * 0.95 / 4000)


def test_no_deviation_of_ours():
    same = torch.zeros(50)
    assert distance(same, 0.0, None, 1) == (0.0, 1.0)
    assert distance(same, 8.6, None, 1) == (-math.inf, 0.0)


def test_runs_that_are_not_told_have_no_chance():
    z, p = distance(100 * errors(3.0, 1.0, 50), 5.0, None, None)
    assert z < -1.9 and p is None


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


ROWS = {"A": Paper(2.0, 3.0, 0.5, 0.5, 10), "B": Paper(2.0, 3.0, 0.5, 0.5, 10)}


def report(*readings, rows=ROWS, **how):
    """A report with (name, mean test error, deviation, row, more) for each reading."""
    made = Report("009", "A, B", rows, **how)
    for name, mean, std, row, more in readings:
        made.add(name, row, errors(mean - 1, std, 50), errors(mean, std, 50, 1), **more)
    return made


def test_words():
    made = report(
        ("near", 3.0, 0.5, "A", {}), ("far", 9.0, 0.5, "A", {}), ("wide", 3.0, 1.6, "A", {}),
        ("far and wide", 30.0, 9.0, "A", {}),
    )  # fmt: skip
    made.judge()
    assert [line.verdict for line in made.lines] == ["compatible", "excluded", "not informative", "excluded"]
    one = report(("near", 3.0, 0.5, "", {}), rows={"": Paper(2.0, 3.0, n=1)})
    unknown = report(("near", 3.0, 1.0, "", {}), rows={"": Paper(2.0, 3.0)})
    for made, word in ((one, "compatible, one run"), (unknown, "open")):
        made.judge()
        assert made.lines[0].verdict == word


def test_holm_counts_all_readings_of_the_report():
    """What is excluded alone may not be among forty."""
    alone = ("near", 4.0, 0.5, "A", {})  # six standard errors
    for others, word in ((0, "excluded"), (40, "compatible")):
        made = report(alone, *[("other", 3.0, 0.5, "A", {})] * others)
        made.judge()
        assert made.lines[0].verdict == word


STATED = {"stated": True}


@pytest.mark.parametrize(
    "readings, word",
    [
        ([("as stated", 3, 0.5, "A", STATED), ("as stated", 3, 0.5, "B", STATED)], "reproduced"),
        ([("as stated", 3, 0.5, "A", STATED), ("as stated", 9, 0.5, "B", STATED)], "not reproduced"),
        ([("as stated", 3, 0.5, "A", STATED)], "not reproduced"),  # a row is missing
        (
            [("as stated", 9, 0.5, "A", STATED), ("other", 3, 0.5, "A", {}), ("other", 3, 0.5, "B", {})],
            "reproduced under another reading than stated",
        ),
        ([("one", 3, 0.5, "A", {}), ("other", 3, 0.5, "B", {})], "not reproduced"),  # no reading has both
        ([("wide", 3, 1.6, "A", STATED), ("wide", 3, 1.6, "B", STATED)], "not reproduced"),
    ],
)
def test_verdicts(readings, word):
    assert report(*readings).verdict() == word


def test_a_reading_that_was_chosen_says_so():
    chosen = {"chosen": True}
    made = report(("a", 3, 0.5, "A", chosen), ("a", 3, 0.5, "B", chosen))
    assert made.verdict() == "reproduced under another reading than stated, chosen by its test error"
    for name in "AB":
        made.add("b", name, errors(2, 0.5, 50), errors(3, 0.5, 50, 1))
    assert made.verdict() == "reproduced under another reading than stated"


def test_a_single_run_is_no_wider_than_its_points_make_it():
    """8.6 % of 1000 points has a deviation of 0.9; three times that, and stuck networks would make all compatible."""
    row = Paper(0.0, 8.6, n=1)
    assert row.spread("test") == pytest.approx(0.887, abs=1e-3) and row.spread("train") == 0
    made = report(("narrow", 8.0, 1.2, "", {}), ("wide", 2.5, 7.2, "", {}), rows={"": Paper(8.0, 8.6, n=1)})
    made.judge()
    assert [line.verdict for line in made.lines] == ["compatible, one run", "not informative"]


def test_digits_come_first():
    made = report(("as stated", 9, 0.5, "A", STATED))
    made.digits = True
    assert made.verdict() == "reproduced to the digit"


def test_their_pytorch_decides_nothing():
    made = report(("as stated", 9, 0.5, "A", STATED), rows={"A": ROWS["A"]}, others={"PyTorch": Paper(8.0, 9.0, n=1)})
    made.add("as stated", "PyTorch", errors(8, 0.5, 50), errors(9, 0.5, 50), stated=True)
    assert made.verdict() == "not reproduced" and made.lines[1].verdict == "compatible, one run"


def test_the_table():
    made = report(("near", 3.0, 0.5, "A", {"chosen": True}))
    lines = repr(made).splitlines()
    assert lines[0] == HEAD and len(HEAD) == 100
    assert lines[1] == (
        "009  near: A                              train     2 ± 0.5    2.0 ± 0.5       50            -   0.0"
    )
    assert lines[2].startswith("       compatible, chosen by it ")
    assert lines[3] == "report 009: not reproduced" and max(map(len, lines)) <= 100
    data = made._repr_mimebundle_()[KIND]
    assert data["lines"][0]["errors"]["test"]["minidl"] == (pytest.approx(3.0), pytest.approx(0.5), 50)


def test_a_look_has_no_verdict(monkeypatch):
    monkeypatch.setenv("QUICK", "1")
    made = report(("near", 3.0, 0.5, "A", STATED), ("near", 3.0, 0.5, "B", STATED))
    assert made.verdict() == "" and repr(made).endswith("report 009: preview, no verdict")


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match=r"Report 009: expected one of \['A', 'B'\], got 'C'"):
        report(("near", 3.0, 0.5, "C", {}))
