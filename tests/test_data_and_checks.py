"""The data, and the checks that everything else rests on."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minidl import Linear, Part, Sequential, Tanh, batches, check_close, circle, gradcheck, numeric_grad, one_hot
from minidl.checks import diagnose, looks_like
from minidl.data import split, standardize

F64 = torch.float64


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_circle():
    x, label = circle(20_000, seeded(0))
    assert x.shape == (20_000, 2) and x.dtype == torch.float32 and label.dtype == torch.int64
    assert 0 <= x.min() and x.max() < 1
    assert abs(label.double().mean() - 0.5) < 4 * math.sqrt(0.25 / 20_000)
    distance = (x.double() - 0.5).norm(dim=-1)
    assert distance[label == 1].max() <= math.sqrt(1 / (2 * math.pi)) <= distance[label == 0].min()
    assert torch.equal(circle(20_000, seeded(0))[0], x)
    with pytest.raises(ValueError, match="circle: expected at least one point, got n = 0"):
        circle(0)
    with pytest.raises(ValueError, match="circle: expected at least one point, got n = True"):
        circle(True)


def test_one_hot():
    label = torch.tensor([[0, 2], [1, 1]])
    assert torch.equal(one_hot(label, 3), torch.nn.functional.one_hot(label, 3).float())
    assert one_hot(torch.empty(0, dtype=torch.int64)).shape == (0, 2)
    with pytest.raises(TypeError, match="expected int64 labels, got torch.float32"):
        one_hot(torch.ones(2))
    with pytest.raises(ValueError, match=r"expected labels in \[0, 2\), got -1 to 2"):
        one_hot(torch.tensor([2, -1]))
    with pytest.raises(ValueError, match=r"expected labels in \[0, 2\), got 0 to 2"):
        one_hot(torch.tensor([0, 2]))


def test_standardize_uses_the_training_statistics():
    train, test = torch.randn(50, 3, dtype=F64) * 5 + 2, torch.randn(7, 3, dtype=F64)
    a, b = standardize(train, test)
    check_close(a.mean(0), torch.zeros(3, dtype=F64))
    check_close(a.std(0), torch.ones(3, dtype=F64))
    check_close(b, (test - train.mean(0)) / train.std(0))
    assert torch.equal(standardize(train), a)
    with pytest.raises(ValueError, match="at least 2 training rows, got 1"):
        standardize(train[:1])
    one_constant, too_small = torch.rand(9, 2), torch.tensor([[0.0], [1e-200]], dtype=F64)  # squared: 0
    one_constant[:, 1] = 0.1
    for rows in (torch.ones(4, 2), one_constant, too_small):
        with pytest.raises(ValueError, match="expected features that vary"):
            standardize(rows)
    for rows in (train[:, 0], train[:, :2]):
        with pytest.raises(ValueError, match=r"standardize: expected rows \(N, features\), got"):
            standardize(train, rows)
    with pytest.raises(ValueError, match=r"standardize: expected rows \(N, features\), got \(50,\)"):
        standardize(train[:, 0])
    many = torch.randn(4, 50, 3, dtype=F64)  # four data sets
    each = [standardize(data, test) for data in many]
    for found, wanted in zip(standardize(many, test.expand(4, 7, 3)), zip(*each, strict=True), strict=True):
        check_close(found, torch.stack(wanted))


@given(n=st.integers(1, 60), size=st.integers(1, 70), drop=st.booleans(), shuffle=st.booleans())
def test_batches_deal_each_row_once_with_its_target(n, size, drop, shuffle):
    x = torch.arange(n)[:, None].double()
    dealt = list(batches(x, x[:, 0] ** 2, size, shuffle, seeded(n), drop))
    assert all(torch.equal(xb[:, 0] ** 2, tb) for xb, tb in dealt)
    assert all(len(xb) == size for xb, _ in dealt[:-1])
    rows = sorted(int(i) for xb, _ in dealt for i in xb)
    assert len(set(rows)) == len(rows) == (n - n % size if drop else n)
    assert shuffle or drop or rows == [int(i) for xb, _ in dealt for i in xb]


def test_batches_refuse_at_the_call():
    x = torch.ones(4, 2)
    for arguments, rule in (
        ((x[:0], x[:0], 1), r"at least one row, got shape \(0, 2\)"),
        ((x, x[:3], 1), "as many targets as inputs, 4, got 3"),
        ((x, x, 0), "batch size of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=rule):
            batches(*arguments)


@given(n=st.integers(2, 50), fraction=st.floats(0, 1))
def test_split_loses_nothing(n, fraction):
    x = torch.arange(n)
    if not 0 < round(n * fraction) < n:
        with pytest.raises(ValueError, match="at least one row on each side"):
            split(x, x, fraction)
        return
    (a, ta), (b, tb) = split(x, -x, fraction, seeded(n))
    assert sorted([*a.tolist(), *b.tolist()]) == list(range(n)) and len(b) == round(n * fraction)
    assert torch.equal(ta, -a) and torch.equal(tb, -b)
    with pytest.raises(ValueError, match="as many targets"):
        split(x, x[1:], fraction)
    with pytest.raises(TypeError, match="split: expected a tensor of rows, got list"):
        split(x, x.tolist(), fraction)


def test_split_holds_a_tenth_back_and_draws_from_the_generator():
    x, state = torch.arange(40), torch.get_rng_state()
    first, second = (split(x, x, generator=seeded(3)) for _ in range(2))
    assert len(first[1][0]) == 4 and torch.equal(first[0][0], second[0][0])
    assert torch.equal(torch.get_rng_state(), state)
    for fraction in (2, 1.5, -0.1, "half", math.nan):
        with pytest.raises(ValueError, match="at least one row on each side"):
            split(x, x, fraction)


def test_numeric_grad():
    x = torch.randn(2, 3, dtype=F64)
    before, leaf = x.clone(), x.clone().requires_grad_()
    (judge,) = torch.autograd.grad((leaf.sin() * leaf.cumsum(0)).exp().sum(), leaf)
    check_close(numeric_grad(lambda t: (t.sin() * t.cumsum(0)).exp().sum(), x), judge)
    assert torch.equal(x, before)
    with pytest.raises(TypeError, match="numeric_grad: expected float64, got torch.float32"):
        numeric_grad(torch.sum, x.float())


def test_check_close_names_the_worst_entry():
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64)
    check_close(a, a * (1 + 1e-9))
    check_close(1e6 * a, 1e6 * a * (1 + 5e-7))  # the tolerance grows with the entry
    for wrong, message in (
        (a + torch.tensor([[0, 0], [0.5, 1]]), r"dx\[1, 1\]: expected 4, got 5 \(2 of 4 entries differ\)"),
        (a * torch.tensor([[1, math.nan], [1, 1]]), r"dx\[0, 1\]: expected 2, got nan"),
        (a.float(), "dx: expected dtype torch.float64, got torch.float32"),
        (a[0], "dx: expected shape"),
        (None, "dx: expected a tensor, got None"),
    ):
        with pytest.raises(AssertionError, match=message):
            check_close(wrong, a, name="dx")
    with pytest.raises(AssertionError, match=r"^tensor\[1\]: expected 2, got nan \(2 of 2 entries differ\)"):
        check_close(torch.tensor([5.0, math.nan]), torch.tensor([1.0, 2.0]))
    check_close(a, a, rtol=0, atol=0)


def test_a_difference_looks_like_a_slip():
    right = torch.tensor([1.0, 2.0, 5.0], dtype=F64)
    for factor, words in (
        (-1, "right but for the sign"),
        (0, "like zeros"),
        (2, "twice the right one"),
        (0.5, "half of the right one"),
        (3, "3 times too large: a sum for a mean?"),
        (1 / 3, "3 times too small: a mean for a sum?"),
        (100.001, "100 times too large: a sum for a mean?"),
        (2.5, "2.5 times the right one"),
        (-3, "-3 times the right one"),
        (1.25, "1.25 times the right one"),
    ):
        assert looks_like(factor * right, right) == f"; it looks {words}"
    assert looks_like(2 * right[:2], right[:2]) == ""  # of two entries, one may be chance


def test_gradcheck_sees_each_wrong_gradient_and_leaves_no_trace():
    model = Sequential(Linear(3, 4), Tanh(), Linear(4, 2)).to(F64)
    x = torch.randn(5, 3, dtype=F64)
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    state = torch.get_rng_state()
    gradcheck(model, x)
    assert torch.equal(state, torch.get_rng_state())
    assert all((p.grad == 7).all() for p in model.parameters())

    class Off(Linear):
        def backward(self, dy):
            dx = super().backward(dy)
            getattr(self, self.which).grad[-1] += 1e-4
            return dx

    for which in ("weight", "bias"):
        wrong = Off(3, 2).to(F64)
        wrong.which = which
        with pytest.raises(AssertionError, match=rf"d\({which}\)\[1"):
            gradcheck(wrong, x)
    greedy = Tanh()
    greedy.backward = lambda dy: dy.mul_(1 - greedy.kept.square())  # right, in the caller's tensor
    with pytest.raises(AssertionError, match=r"dy after backward\[\d, \d\]: expected"):
        gradcheck(greedy, x)
    with pytest.raises(TypeError, match="gradcheck: expected float64, got torch.float32"):
        gradcheck(Linear(3, 2), x)


def test_diagnose():
    known = {"upside down": 0.25}
    assert [diagnose(a, 4, known) for a in (None, 4, 0.25)] == ["not answered yet", "right", "upside down"]
    assert diagnose(torch.ones(2), 4, known) == "not yet: expected the shape (), got (2,)"
    assert diagnose(5, 4, known) == "not yet, and no mistake that is known here"
    assert diagnose(lambda: 4, 4, known) == "right"
    assert diagnose(..., 4, known) == "not answered yet"
    assert diagnose((4,), 4, known) == "not yet: expected a number, list or tensor, got a tuple"
    assert diagnose(lambda: int("four"), 4, known).startswith("not yet: ValueError: invalid literal")
    assert "\n" not in diagnose(lambda: torch.ones(2) @ torch.ones(3), 4, known)
    for off, word in ((1 + 9e-5, "right"), (1 + 1.1e-4, "not yet, and no mistake that is known here")):
        assert diagnose(4 * off, 4, known) == word
    for off, word in ((9e-7, "right"), (1.1e-6, "not yet, and no mistake that is known here")):
        assert diagnose(off, 0, known) == word


def test_one_suspicion_at_a_time():
    class Half(Part):
        def forward(self, x):
            return x / 2

        def backward(self, dy):
            return dy  # dy itself, and twice the right one

    with pytest.raises(AssertionError, match="it looks twice the right one$"):
        gradcheck(Half(), torch.randn(3, 2, dtype=torch.float64))


def test_of_an_error_the_first_line():
    def fails():
        raise ValueError("one\ntwo")

    assert diagnose(fails, 1, {}) == "not yet: ValueError: one"
