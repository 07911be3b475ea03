"""The bugs of chapter 17: nine checks leave none of them, and no right part is accused.

The exhibits are `chapters/museum.py`, the checks `chapters/jury.py`: beside the notebook, which imports them by name,
as these tests do. What the package says of a wrong answer (`looks_like`, `gradcheck`) is tested on them, and on others.
"""

import inspect

import jury
import pytest
import torch
from jury import CHECKS, LOSSES, MODULES, PARTS, RULES, convicts, true
from museum import EXHIBITS

from minidl import Module, check_close, gradcheck
from minidl.checks import diagnose, looks_like

F64 = torch.float64
NAMES = [e.name for e in EXHIBITS]


@pytest.fixture(scope="module")
def found():
    """The kill matrix."""
    return jury.matrix()


def test_exhibits_are_small_mutants():
    assert len(EXHIBITS) >= 20 and len(set(NAMES)) == len(NAMES)
    assert {e.kind for e in EXHIBITS} == {"gradient", "update", "data", "state", "value"}
    for e in EXHIBITS:
        lines = inspect.getsource(e.wrong).rstrip().split("\n")
        assert sum("# wrong!" in line for line in lines) == 1 and len(lines) <= 10, e.name
        right = true(e.part)
        assert e.wrong is not right
        assert not isinstance(right, type) or issubclass(e.wrong, right), e.name


def test_nothing_survives(found):
    assert [name for name, row in found.items() if not any(map(convicts, row.values()))] == []
    for name, row in found.items():
        assert sum(cell is not None for cell in row.values()) >= 2, name


def test_accuracy_convicts_a_minority(found):
    kills = {check: sum(convicts(row[check]) for row in found.values()) for check in CHECKS}
    print(kills)
    assert 0 < kills["accuracy"] <= len(found) // 2
    assert min(kills.values()) > 0  # no check is idle
    # These train the very network of the right part.
    for name in ("AxesExchanged", "lost_rows", "Borrowing", "Overwrites", "InPlace"):
        assert found[name]["accuracy"] == (0.0, 0.0)


def test_no_right_part_is_accused():
    alarms = jury.false_alarms()
    assert list(alarms) == PARTS and {e.part for e in EXHIBITS} == set(PARTS)
    accused = [(part, check, *row[check]) for part, row in alarms.items() for check in CHECKS if convicts(row[check])]
    assert accused == []


def test_a_check_that_cannot_be_asked_convicts():
    assert convicts((float("nan"), 1)) and convicts((2, 1)) and not convicts((1, 1)) and not convicts(None)
    assert jury.ask("random", "Linear", lambda *_: 1 / 0) == (float("inf"), 0)


# ---- which mistake is it? ----


def test_suspicions():
    """Right for 80 % of the wrong gradients and updates; for the rest, and of other kinds, silent rather than wrong."""
    said = {e.name: jury.suspect(e) for e in EXHIBITS}
    wanted = [e for e in EXHIBITS if e.kind in ("gradient", "update")]
    right = [e.name for e in wanted if said[e.name] and e.looks in said[e.name]]
    assert len(right) >= 0.8 * len(wanted), said
    assert [(e.name, said[e.name]) for e in EXHIBITS if said[e.name] and (e.looks or "?") not in said[e.name]] == []
    assert [jury.suspect_update(part, true(part)) for part in RULES] == [""] * len(RULES)
    assert [jury.suspect_gradient(part, true(part)) for part in (*MODULES, *LOSSES)] == [""] * 8


def behind(e):
    """Pairs of tensors that an exhibit and its counterpart in PyTorch leave behind."""
    ask = jury.twin_module if e.part in MODULES else jury.twin_loss if e.part in LOSSES else jury.twin_optimizer
    return zip(*ask(e.part, e.wrong), strict=True)


@pytest.mark.parametrize("e", [e for e in EXHIBITS if e.part in (*MODULES, *LOSSES, *RULES)], ids=lambda e: e.name)
def test_no_bug_is_called_right(e):
    if e.name == "ForgottenSum":
        with pytest.raises(RuntimeError):
            behind(e)
        return
    for ours, theirs in behind(e):
        if jury.apart(ours, theirs) > 1e-3:
            assert diagnose(ours, theirs, {}) != "right"
            with pytest.raises(AssertionError):
                check_close(ours, theirs)


SLIPS = {
    "right but for the sign": lambda e: -e,
    "twice the right one": lambda e: 2 * e,
    "half of the right one": lambda e: e / 2,
    "like zeros": lambda e: 0 * e,
    "12 times too large: a sum for a mean?": lambda e: 12 * e,
    "4 times too small: a mean for a sum?": lambda e: e / 4,
    "1.25 times the right one": lambda e: 1.25 * e,
    "-3 times the right one": lambda e: -3 * e,
    "right but for 0.5 in each entry": lambda e: e + 0.5,
    "transposed": lambda e: e.mT,
    "not summed over axis 0": lambda e: torch.stack([e / 4, e / 4, e / 2]),
    "not summed over axis 2": lambda e: torch.stack([e / 4, e * 3 / 4], -1),
}


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("words", SLIPS)
def test_looks_like_names_the_slip(words, dtype):
    for seed in range(20):
        right = torch.randn(3, 4, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        assert looks_like(SLIPS[words](right), right) == f"; it looks {words}"
        if SLIPS[words](right).shape == right.shape:
            assert diagnose(SLIPS[words](right), right, {}) == f"not yet; it looks {words}"
    assert looks_like(right.mT.reshape(3, 4), right) == "; it looks transposed"


def test_looks_like_is_silent_where_nothing_is_proved():
    g = torch.Generator().manual_seed(0)
    for _ in range(100):
        a, b = torch.randn(2, 3, 4, dtype=F64, generator=g)
        assert looks_like(a, b) == looks_like(a[0], b) == looks_like(a[0, :2], -a[0, :2]) == ""
        almost = -b
        almost[1, 2] *= 1.01  # one entry of twelve is another
        assert looks_like(almost, b) == ""
    ones = torch.ones(3, 4, dtype=F64)
    assert looks_like(2 * ones, ones) == ""  # twice as much, or one more?
    assert looks_like(ones, ones) == looks_like(ones * torch.nan, ones) == looks_like(ones, 0 * ones * torch.inf) == ""
    assert looks_like(torch.tensor(2), torch.tensor(1)) == ""
    assert looks_like(ones[0], 0 * ones[0]) == "; it looks right but for 1 in each entry"


class Cube(Module):
    """y = x^3, with a slip or without."""

    slip = staticmethod(lambda x, y, dy: 3 * x**2 * dy)

    def forward(self, x):
        self.kept = x, x**3
        return self.kept[1]

    def backward(self, dy):
        return self.slip(*self.kept, dy)


class Noisy(Cube):
    """y = x m, and backward draws the mask m anew."""

    def forward(self, x):
        return x * torch.empty_like(x).bernoulli_(0.5)

    def backward(self, dy):
        return dy * torch.empty_like(dy).bernoulli_(0.5)


class OfOutput(Cube):
    """y = exp(x), whose slope y is taken at the input."""

    def forward(self, x):
        self.kept = x
        return x.exp()

    def backward(self, dy):
        return self.kept * dy


class Picky(OfOutput):
    """It takes numbers below 1 only, so not its own outputs."""

    def check_input(self, x):
        if (x >= 1).any():
            raise ValueError("Picky: expected numbers below 1")


def test_a_hint_that_cannot_be_had_hides_no_verdict():
    with pytest.raises(AssertionError, match=r"^dx\[\d, \d\]: expected .* entries differ\)$"):
        gradcheck(Picky(), torch.linspace(0.1, 0.9, 12, dtype=F64).reshape(4, 3))


@pytest.mark.parametrize(
    "module, words",
    [
        (Noisy, r"; it looks as if backward drew anew what forward drew$"),
        (OfOutput, r"; it looks like the slope at the input, not at the output$"),
        (lambda x, y, dy: dy, r"; it looks like dy itself: is the slope missing\?$"),
        (lambda x, y, dy: -3 * x**2 * dy, r"; it looks right but for the sign$"),
        (lambda x, y, dy: 3 * x**2 * dy.mT.reshape(dy.shape), r"entries differ\)$"),
        (lambda x, y, dy: None, r"dx: expected a tensor, got None$"),
    ],
)
def test_gradcheck_says_what_it_looks_like(module, words):
    made = module() if isinstance(module, type) else type("Slip", (Cube,), {"slip": staticmethod(module)})()
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    with pytest.raises(AssertionError, match=words):
        gradcheck(made, x)
    assert torch.equal(state, torch.get_rng_state())
    gradcheck(Cube(), x)
