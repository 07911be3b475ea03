"""Strange arguments for every public function, states that nobody planned, and a machine that fails at any moment.

`make test` tries about 1,000 arguments, always the same; `make fuzz` 20,000 (FUZZ=20000), others each time.
"""

import contextlib
import copy
import math
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from torch import nn

import minidl
from minidl import (
    ELU,
    SELU,
    SGD,
    Adam,
    AdamW,
    BCELoss,
    BCEWithLogitsLoss,
    CosineAnnealingLR,
    CrossEntropyLoss,
    Dropout,
    Each,
    EarlyStopping,
    L1Loss,
    LeakyReLU,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
    Sigmoid,
    StepLR,
    Tanh,
    init,
)

FUZZ = int(os.environ.get("FUZZ", 1000))
F64 = torch.float64
DTYPES = [torch.float32, F64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool, torch.complex64]
SHAPES = [(), (0,), (3,), (1, 3), (2, 3), (0, 3), (2, 0), (4, 2), (4, 1), (4,), (2, 4, 3), (2, 2, 3, 1)]
FILLS = {"zeros": 0.0, "ones": 1.0, "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "huge": 1e30, "-1": -1.0}


@st.composite
def tensors(draw, mostly=None):
    """A tensor of any kind; `mostly` is a shape that half of them have, in a usual dtype."""
    usual = mostly is not None and draw(st.booleans())
    shape = mostly if usual else draw(st.sampled_from(SHAPES))
    dtype = draw(st.sampled_from(DTYPES[:2] if usual else DTYPES))
    fill = draw(st.sampled_from(["random", "random", "shares", *FILLS]))
    g = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    t = torch.randn(shape, generator=g) if fill == "random" else torch.rand(shape, generator=g)
    if fill in FILLS and t.numel():
        t.view(-1)[draw(st.sampled_from([0, -1, slice(None)]))] = FILLS[fill]
    t = t.nan_to_num(0, 9, -9).to(dtype) if not (dtype.is_floating_point or dtype.is_complex) else t.to(dtype)
    layout = draw(st.sampled_from(["as it is", "strided", "expanded", "transposed", "asks for records"]))
    if layout == "strided" and t.dim():
        t = torch.stack([t, t], -1)[..., 0]
    elif layout == "expanded":
        t = t[:1].expand(shape) if t.dim() and t.shape[0] else t
    elif layout == "transposed" and t.dim() > 1:
        t = t.transpose(0, 1).contiguous().transpose(0, 1)
    elif layout == "asks for records" and dtype.is_floating_point:
        t.requires_grad_()
    return t


STRANGE = [None, "a word", [1.0], (), {}, 1j, np.ones((2, 3)), np.float64(0.5), np.int64(2), object, print]
numbers_ = st.sampled_from(
    [-1, 0, 1, 2, 3, 5, 0.5, 2.5, -0.5, math.nan, math.inf, -math.inf, 1e300, True, torch.tensor(0.5), torch.ones(2)]
)
strange = st.sampled_from(STRANGE)
counts = numbers_ | strange
arrays = tensors() | tensors() | tensors() | strange | numbers_


def like(shape):
    return tensors(shape) | tensors(shape) | tensors(shape) | arrays


def network():
    torch.manual_seed(0)
    return Sequential(Linear(3, 2), Tanh())


def twin_of(module):
    """The same module of torch.nn."""
    twin = eval(repr(module), {**vars(nn)})
    twin.load_state_dict(module.state_dict())
    return twin.train(module.training)


def called(make):
    """(who, ours, PyTorch's) of a module on a tensor: values and gradients."""

    def ours(x):
        torch.manual_seed(1)
        module = make()
        y = module(x)
        return y, module.backward(torch.ones_like(y))

    def theirs(x):
        leaf = x.detach().clone().requires_grad_()
        torch.manual_seed(1)
        y = twin_of(make())(leaf)
        y.backward(torch.ones_like(y))
        return y.detach(), leaf.grad

    return repr(make()).split("(")[0], ours, theirs


def lost(make):
    """The same of a loss."""

    def ours(output, target):
        criterion = make()
        return criterion(output, target), criterion.backward()

    def theirs(output, target):
        leaf = output.detach().clone().requires_grad_()
        loss = getattr(nn, type(make()).__name__)()(leaf, target.detach())
        loss.backward()
        return loss.detach(), leaf.grad

    return type(make()).__name__, ours, theirs


def back(make, x):
    """`backward` with anything; then the right one still works."""

    def ours(dy):
        module = make()
        module(x)
        try:
            return module.backward(dy)
        except Exception:
            module.backward(torch.ones_like(module(x)))
            raise

    return ours


def checked(x):
    """A right module has no wrong gradient; where numbers are infinite or huge, nothing can be said."""
    with contextlib.suppress(AssertionError):
        minidl.gradcheck(Tanh(), x)


def each(output, target):
    criterion = Each(MSELoss())
    return criterion(output, target), criterion.backward()


def forecast(x, batch_size):
    return minidl.predict_each(STACK, x, batch_size)


def measured(output, target):
    return minidl.measure_each(minidl.error_rate, MSELoss(), output, target)


def trained(**changes):
    model = network()
    before = [p.clone() for p in model.parameters()]
    data = dict(x=torch.rand(4, 3), t=torch.rand(4, 2), epochs=1, batch_size=2, validation=None) | changes
    pair = (data.pop("x"), data.pop("t"))
    try:
        minidl.fit(model, MSELoss(), SGD(model.parameters(), 0.1), pair, progress=False, **data)
    except Exception as error:
        late = "expected a finite loss" in str(error)  # that step is not taken; others may have been
        assert late or all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
        raise


def loaded(state):
    model = network()
    before = [p.clone() for p in model.parameters()]
    try:
        model.load_state_dict(state)
    except Exception:
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))
        raise


STACK = minidl.stack([network(), network()])
states = st.fixed_dictionaries({"0.weight": like((2, 3)), "0.bias": like((2,))})


def numbered(kind, name):
    """Ours and PyTorch's optimiser with anything as one of its numbers; each then takes a step."""

    def step(make):
        def stepped(value):
            p = torch.ones(2)
            p.grad = torch.ones(2)
            make([p], **{"lr": 0.1} | {name: value}).step()
            return (p,)

        return stepped

    return step(kind), step(getattr(torch.optim, kind.__name__))


def gained(package):
    def fill(gain):
        torch.manual_seed(0)
        return (package.xavier_normal_(torch.ones(2, 3), gain),)

    return fill


def filled(name):
    return lambda w: getattr(init, name)(w.detach().clone() if isinstance(w, torch.Tensor) else w)


labels = st.integers(0, 99).map(lambda s: torch.randint(2, (4,), generator=torch.Generator().manual_seed(s)))
reals = st.sampled_from([-1, 0, 1, 2.5, math.nan, math.inf, -math.inf, 1e300, -1e-300]) | st.floats()

# name: (who speaks in a refusal, ours, PyTorch's or None, a strategy for each argument)
ENTRIES = {
    **{
        repr(make()): (*called(make), like((2, 3)))
        for make in (
            lambda: Linear(3, 2),
            lambda: Linear(3, 2, bias=False),
            ReLU,
            lambda: LeakyReLU(0.2),
            lambda: ELU(0.2),
            SELU,
            Sigmoid,
            Tanh,
            Dropout,
            lambda: Dropout(1.0),
        )
    },
    **{
        f"{loss.__name__} {name}": (*lost(loss), like((4, 2)), second)
        for loss in (MSELoss, L1Loss, BCELoss, BCEWithLogitsLoss, CrossEntropyLoss)
        for name, second in {"shares": like((4, 2)), "labels": labels | like((4,))}.items()
    },
    "Linear backward": ("Linear", back(lambda: Linear(3, 2), torch.ones(4, 3)), None, like((4, 2))),
    "Tanh backward": ("Tanh", back(Tanh, torch.ones(4, 3)), None, like((4, 3))),
    "Sequential backward": ("Sequential", back(network, torch.ones(4, 3)), None, like((4, 2))),
    "Linear made": ("Linear", lambda a, b: Linear(a, b)(torch.ones(1, a)), None, counts, counts),
    "Dropout made": ("Dropout", lambda p: Dropout(p)(torch.ones(3)), None, counts),
    "reduction": ("MSELoss", MSELoss, None, st.sampled_from([None, "none", "means", 1, math.nan, ()])),
    "smoothing": ("CrossEntropyLoss", lambda s: CrossEntropyLoss(label_smoothing=s), None, counts),
    **{
        f"{kind.__name__} {name}": (kind.__name__, *numbered(kind, name), counts.filter(lambda v: v is not True))
        for kind, names in (
            (SGD, ("lr", "momentum", "dampening", "weight_decay")),
            (Adam, ("lr", "eps", "betas", "weight_decay")),
            (AdamW, ("lr", "weight_decay")),
        )
        for name in names
    },
    "parameters": ("SGD", lambda p: SGD([p], 0.1), None, arrays),
    "two betas": ("Adam", lambda a, b: Adam([torch.ones(1)], betas=(a, b)), None, counts, counts),
    "circle": ("circle", minidl.circle, None, counts),
    "one_hot": ("one_hot", minidl.one_hot, None, labels | like((4,)), counts),
    "standardize": ("standardize", minidl.standardize, None, like((4, 3)), like((2, 3))),
    "split": ("split", minidl.split, None, like((4, 3)), like((4,)), counts),
    "batches": ("batches", lambda x, t, n: [*minidl.batches(x, t, n, True)], None, like((4, 3)), like((4,)), counts),
    "numeric_grad": ("numeric_grad", lambda x: minidl.numeric_grad(lambda v: v.square().sum(), x), None, like((2, 3))),
    "gradcheck": ("gradcheck|numeric_grad", checked, None, like((2, 3))),
    "error_rate": ("error_rate", minidl.error_rate, None, like((4, 2)), labels | like((4,))),
    "accuracy": ("error_rate", minidl.accuracy, None, like((4, 1)), labels | like((4,))),
    "predict": ("batches|Linear|Sequential", lambda x, n: minidl.predict(network(), x, n), None, like((4, 3)), counts),
    "fit x": ("fit|batches|Sequential|Linear", lambda x: trained(x=x), None, like((4, 3))),
    "fit t": ("fit|batches|MSELoss", lambda t: trained(t=t), None, like((4, 2))),
    "fit validation": ("fit|batches|MSELoss", lambda t: trained(validation=(torch.ones(4, 3), t)), None, like((4, 2))),
    "fit epochs": ("fit", lambda n: trained(epochs=n), None, counts),
    "fit batch_size": ("batches", lambda n: trained(batch_size=n), None, counts),
    "load_state_dict": ("Sequential", loaded, None, counts | states),
    "EarlyStopping": ("EarlyStopping", EarlyStopping, None, counts),
    "StepLR": ("StepLR", lambda n: StepLR(n).rate(0.1, 7), None, counts),
    "CosineAnnealingLR": ("CosineAnnealingLR", lambda n: CosineAnnealingLR(n).rate(0.1, 7), None, counts),
    "clip_grad_norm_": ("clip_grad_norm_", lambda p: minidl.clip_grad_norm_([p], 1.0), None, arrays),
    **{n: (n, filled(n), None, like((2, 3))) for n in ("uniform_", "normal_", "zeros_")},
    **{n: ("init", filled(n), None, like((2, 3))) for n in ("xavier_uniform_", "kaiming_normal_")},
    "gain": ("xavier_normal_", gained(init), gained(nn.init), counts),
    "calculate_gain": (
        "calculate_gain",
        init.calculate_gain,
        None,
        st.sampled_from(["tanh", "leaky_relu", ""]),
        counts,
    ),
    "Each": ("Each|MSELoss", each, None, like((2, 4, 3)), like((2, 4, 3))),
    "own": ("own", minidl.own, None, like((2, 4, 3)), like((2, 4))),
    "predict_each": ("predict_each|Linear|Sequential", forecast, None, like((4, 3)), counts),
    "measure_each": ("measure_each|error_rate", measured, None, like((2, 4, 3)), like((2, 4))),
    "bootstrap": ("bootstrap", minidl.bootstrap, None, st.lists(reals, max_size=4)),
    "seeds_needed": ("seeds_needed", minidl.seeds_needed, None, reals, reals),
}


def frozen(args):
    """Copies of what was given, to see whether anything has changed."""
    return [(a, a.detach().clone(), a.grad) if isinstance(a, torch.Tensor) else (a, copy.copy(a), None) for a in args]


def unchanged(before):
    for a, was, grad in before:
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a.detach(), was, rtol=0, atol=0, equal_nan=True)
            assert a.grad is grad
        elif isinstance(a, np.ndarray | dict | list | tuple):
            assert str(a) == str(was)


def refuses(who, error):
    """Whether the message says who, the rule and what came; Linear has the values in its name."""
    return re.match(rf"({who})(\(.*\))?: expected .*(got |on each side)", str(error), re.DOTALL)


def agree(ours, theirs, args):
    """Values where PyTorch has one; gradients too, where what came in was finite."""
    finite = all(a.isfinite().all() for a in args if isinstance(a, torch.Tensor))
    for mine, judge in list(zip(ours, theirs, strict=True))[: None if finite else 1]:
        digits = {torch.float64: 1e-12, torch.float32: 1e-5}.get(judge.dtype, 0.05)
        torch.testing.assert_close(mine, judge.detach(), rtol=digits, atol=digits, equal_nan=True)


ALIKE = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=FUZZ == 1000)
ONCE = dict(ALIKE, max_examples=max(3, FUZZ // len(ENTRIES)))


def same(error, other):
    return type(error) is type(other) and str(error) == str(other)


@pytest.mark.filterwarnings("ignore:.*(zero-element|Casting complex|overflow|invalid value|divide by zero)")
@pytest.mark.parametrize("name", ENTRIES)
def test_whatever_comes_in(name):
    """PyTorch's result, or a refusal by name; and what was given is as it was."""
    who, ours, theirs, *strategies = ENTRIES[name]

    @settings(**ONCE)
    @given(st.tuples(*strategies))
    def one(args):
        before = frozen(args)
        found = problem = None
        try:
            found = ours(*args)
        except (ValueError, TypeError, RuntimeError) as error:
            problem = error
        unchanged(before)
        if problem and refuses(who, problem):
            return
        try:
            wanted = theirs(*args) if theirs else None
        except NotImplementedError:
            return  # PyTorch has no kernel for this dtype
        except Exception as error:
            assert problem and same(problem, error), f"{name}: {problem!r}, PyTorch's {error!r}"
            return
        if problem:
            raise problem
        if theirs:
            agree(found, wanted, args)

    one()


# A training, one step after the other, in any order, beside PyTorch's.

RULES = {
    "momentum": (lambda ps: SGD(ps, 0.1, momentum=0.9, weight_decay=0.01), "SGD"),
    "nesterov": (lambda ps: SGD(ps, 0.1, momentum=0.9, nesterov=True), "SGD"),
    "Adam": (lambda ps: Adam(ps, 0.05), "Adam"),
    "AdamW": (lambda ps: AdamW(ps, 0.05), "AdamW"),
}


def small():
    torch.manual_seed(0)
    return Sequential(Linear(2, 4), ReLU(), Linear(4, 1))


class Twins(RuleBasedStateMachine):
    """Ours and PyTorch's: at each moment the same parameters, to the bit, and the same rate."""

    def __init__(self):
        super().__init__()
        self.x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
        self.t = torch.randn(6, 1, generator=torch.Generator().manual_seed(2))
        self.folder = tempfile.TemporaryDirectory()
        self.path, self.saved = pathlib.Path(self.folder.name) / "model.pt", None

    def teardown(self):
        self.folder.cleanup()

    @initialize(name=st.sampled_from([*RULES]))
    def begin(self, name):
        make, judge = RULES[name]
        self.make, self.model = make, small()
        self.optimizer = make(self.model.parameters())
        self.twin = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        self.twin.load_state_dict(self.model.state_dict())
        rules = {n: getattr(self.optimizer, n) for n in self.optimizer.rule_names}
        self.judge = getattr(torch.optim, judge)(self.twin.parameters(), **rules)
        self.criterion, self.schedule = MSELoss(), None

    def their_step(self, x, t):
        self.judge.zero_grad()
        nn.functional.mse_loss(self.twin(x), t).backward()
        self.judge.step()

    @rule(rows=st.integers(1, 6))
    def step_by_hand(self, rows):
        x, t = self.x[:rows], self.t[:rows]
        self.optimizer.zero_grad()
        self.criterion(self.model(x), t)
        self.model.backward(self.criterion.backward())
        self.optimizer.step()
        self.their_step(x, t)

    @rule()
    def step_without_gradients(self):
        for optimizer in (self.optimizer, self.judge):
            optimizer.zero_grad()
            optimizer.step()

    @rule()
    def add_up_two_gradients(self):
        for part in (slice(3), slice(3, 6)):
            self.criterion(self.model(self.x[part]), self.t[part])
            self.model.backward(self.criterion.backward())
            nn.functional.mse_loss(self.twin(self.x[part]), self.t[part]).backward()
        for optimizer in (self.optimizer, self.judge):
            optimizer.step()
            optimizer.zero_grad()

    @rule(epochs=st.integers(1, 3), schedule=st.sampled_from([None, "StepLR", "CosineAnnealingLR"]))
    def fit(self, epochs, schedule):
        """The rate stays where the schedule left it."""
        mine = {
            None: lambda: [],
            "StepLR": lambda: [StepLR(2, 0.5)],
            "CosineAnnealingLR": lambda: [CosineAnnealingLR(4)],
        }
        their = {"StepLR": lambda: (2, 0.5), "CosineAnnealingLR": lambda: (4,)}
        deal = dict(epochs=epochs, batch_size=4, shuffle=False, progress=False, callbacks=mine[schedule]())
        minidl.fit(self.model, self.criterion, self.optimizer, (self.x, self.t), **deal)
        group = self.judge.param_groups[0]
        group.pop("initial_lr", None)
        judge = schedule and getattr(torch.optim.lr_scheduler, schedule)(self.judge, *their[schedule]())
        for _ in range(epochs):
            for part in (slice(4), slice(4, 6)):
                self.their_step(self.x[part], self.t[part])
            if judge:
                judge.step()
        assert math.isclose(self.optimizer.lr, group["lr"], rel_tol=1e-12, abs_tol=1e-15)
        group["lr"] = self.optimizer.lr  # PyTorch multiplies on, we compute from the first: a digit apart

    @rule(lr=st.sampled_from([0.0, 0.01, 0.2]))
    def another_rate(self, lr):
        self.optimizer.lr = self.judge.param_groups[0]["lr"] = lr

    @rule()
    def forget(self):
        self.optimizer.forget()
        self.judge.state.clear()

    @rule()
    def save(self):
        minidl.save(self.path, self.model, self.optimizer)
        self.saved = copy.deepcopy((self.twin.state_dict(), self.judge.state_dict()))

    @rule(anew=st.booleans())
    def load(self, anew):
        """Into what is there, or into what has just been made."""
        if self.saved is None:
            return
        if anew:
            self.model = small()
            self.optimizer = self.make(self.model.parameters())
        minidl.load(self.path, self.model, self.optimizer)
        for part, state in zip((self.twin, self.judge), copy.deepcopy(self.saved)):
            part.load_state_dict(state)
        for optimizer in (self.optimizer, self.judge):
            optimizer.zero_grad()

    @rule(lr=st.sampled_from([-1.0, math.nan, math.inf]))
    def a_state_that_is_refused(self, lr):
        with pytest.raises(ValueError, match="expected lr finite, >= 0, got"):
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"lr": lr})

    @invariant()
    def alike(self):
        if hasattr(self, "twin"):
            for p, q in zip(self.model.parameters(), self.twin.parameters(), strict=True):
                assert torch.equal(p, q.detach())
            assert self.optimizer.lr == self.judge.param_groups[0]["lr"]


def test_a_training_in_any_order_beside_pytorchs():
    how = settings(**ALIKE, max_examples=max(12, FUZZ // 100), stateful_step_count=15)
    run_state_machine_as_test(Twins, settings=how)


# A machine that fails at any moment.

KILLED_SAVES = """
import os, random, signal, sys, time
import torch
import minidl

path, model = sys.argv[1], minidl.Sequential(minidl.Linear(200, 200), minidl.Linear(200, 1))
rng = random.Random(0)

def fill(k):
    for p in model.parameters():
        p.fill_(float(k))

fill(0)
minidl.save(path, model)
began = time.perf_counter()
minidl.save(path, model)
spent = time.perf_counter() - began
least, seen = 0, set()
for turn in range(20):
    came, comes = os.pipe()
    child = os.fork()
    if child == 0:
        for k in range(least + 1, 100_000):
            fill(k)
            minidl.save(path, model)
            os.write(comes, b"s")
        os._exit(0)
    os.read(came, 1)  # a first one was saved; now at any moment of those that follow
    time.sleep(3 * spent * rng.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    fill(-1)
    minidl.load(path, model)
    numbers = torch.cat([p.flatten() for p in model.parameters()])
    assert (numbers == numbers[0]).all() and numbers[0] >= least, (numbers, least)
    least = int(numbers[0])
    seen.add(least)
print(len(seen))
"""

KILLED_SWEEPS = """
import os, random, signal, sys, threading, time
import torch
import tqdm
import minidl

tqdm.tqdm.set_lock(threading.RLock())  # its own is shared with children, and one that is killed would keep it
path, rng = sys.argv[1], random.Random(0)
x, label = minidl.circle(60, torch.Generator().manual_seed(0))
x, t = minidl.standardize(x), minidl.one_hot(label)
pairs = [(x[:20], t[:20]), (x[20:40], t[20:40]), (x[40:], t[40:])]

def build():
    return minidl.Sequential(minidl.Linear(2, 3), minidl.Tanh(), minidl.Linear(3, 2))

def sweep(path, lr=tuple(0.01 * k for k in range(1, 31))):
    return minidl.sweep(build, lambda seed: pairs, minidl.grid(lr=list(lr)), range(2), criterion=minidl.MSELoss,
                        optimizer=minidl.SGD, epochs=2, batch_size=10, memory=1, path=path, progress=False)

def rows():
    return len(open(path).readlines()) - 1 if os.path.exists(path) else 0

counts, left = [0], 0
sweep(None, [0.1])  # the first one is slow
began = time.perf_counter()
sweep(None, [0.1])
spent = (time.perf_counter() - began) / 2  # for a row
for turn in range(20):
    child = os.fork()
    if child == 0:
        sweep(path)
        os._exit(0)
    while rows() == counts[-1]:
        time.sleep(spent / 10)
    time.sleep(2 * spent * rng.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if os.path.exists(path + ".part"):  # what a killed one leaves is given up after ten seconds: make it old
        left += 1
        os.utime(path + ".part", (0, 0))
    counts.append(rows())
    assert counts[-1] >= counts[-2], counts
    found = minidl.sweeps._read(path, ["lr", "criterion", "optimizer", "epochs", "batch_size", "seed"])
    assert len(found) == counts[-1]
assert sweep(path).equals(sweep(None))
print(len(set(counts)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is killed by its parent")
@pytest.mark.parametrize("script", [KILLED_SAVES, KILLED_SWEEPS], ids=["save", "sweep"])
def test_killed_at_twenty_moments(script, tmp_path):
    """The old file or the new one always loads, and what was in it once stays in it."""
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=pathlib.Path(minidl.__file__).parent.parent)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3  # it was killed at different moments


def whole(path):
    """A checkpoint with all parts, and its bytes."""
    model = small()
    optimizer = Adam(model.parameters())
    data = torch.randn(6, 2), torch.randn(6, 1)
    options = dict(epochs=2, batch_size=3, progress=False, validation=data, callbacks=[EarlyStopping(9)])
    history = minidl.fit(model, MSELoss(), optimizer, data, **options)
    minidl.save(path, model, optimizer, history, torch.Generator(), options["callbacks"])
    return path.read_bytes()


def parts():
    """Something to load into, and all of it as text."""
    model = small()
    found = model, Adam(model.parameters(), 0.7), minidl.History(), torch.Generator().manual_seed(3), [EarlyStopping(9)]

    def text():
        generators = [found[3].get_state().tolist(), torch.get_rng_state().tolist()]
        memory = [{k: str(v) for k, v in vars(found[4][0]).items()}]
        return str([p.tolist() for p in model.parameters()]), str((found[1].state_dict(), found[2], generators, memory))

    return found, text


def refused(path, why):
    """A load is refused and changes nothing, or gives what was saved."""
    found, text = parts()
    before = text()
    try:
        minidl.load(path, *found)
    except (ValueError, TypeError, RuntimeError):
        assert text() == before, why
        return True
    return False


def test_a_checkpoint_that_was_cut_or_changed(tmp_path):
    """Each part has a checksum; a changed byte that none of them sees is in the padding between."""
    path, rng = tmp_path / "model.pt", random.Random(0)
    torch.manual_seed(0)
    data = whole(path)
    found, text = parts()
    minidl.load(path, *found)
    right, seen = text(), 0
    for n in [0, 1, len(data) - 1, *(rng.randrange(len(data)) for _ in range(60))]:
        path.write_bytes(data[:n])
        assert refused(path, n)
    for _ in range(FUZZ // 8):
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        if refused(path, at):
            seen += 1
        else:
            found, text = parts()
            minidl.load(path, *found)
            assert text() == right, at
    assert seen > FUZZ // 16


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("part", ["model", "optimizer", "history", "generator", "callbacks", "global", "whole"])
def test_a_hostile_checkpoint_runs_nothing(part, tmp_path):
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    whole(path)
    state = torch.load(path, weights_only=True)
    hostile = Hostile(f"touch {trace}")
    torch.save(hostile if part == "whole" else state | {part: hostile}, path)
    assert refused(path, part) and not trace.exists()
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)  # as someone less careful would
    assert trace.exists()


def test_a_checkpoint_with_anything_in_a_part(tmp_path):
    """Right as a file, wrong inside: refused before the first write, or it fits."""
    path = tmp_path / "model.pt"
    whole(path)
    state = torch.load(path, weights_only=True)
    weight = {"0.weight": torch.ones(3)}
    wrong = [
        5,
        "a word",
        [],
        {},
        [1, 2],
        [torch.ones(3)],
        torch.ones(3),
        torch.ones(3, dtype=torch.uint8),
        {"a": 1},
        weight,
    ]
    refusals = 0
    for part in state:
        for value in wrong:
            torch.save(state | {part: value}, path)
            refusals += refused(path, (part, value))
    for part in ("model", "optimizer"):
        for key in state[part]:
            for value in (None, -1.0, math.nan, "a word", torch.ones(9, 9)):
                torch.save(state | {part: state[part] | {key: value}}, path)
                refusals += refused(path, (part, key, value))
    assert refusals > 80


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that interrupts")
def test_ctrl_c_at_any_moment_leaves_a_whole_step():
    """As many steps as the history says, by hand, are the same model."""
    rng, x, t = random.Random(0), torch.randn(40, 2), torch.randn(40, 1)
    old = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    counts = set()
    try:
        for _ in range(20):
            model, other = small(), small()
            optimizer, judge, criterion = (
                *(SGD(m.parameters(), 0.01, momentum=0.9) for m in (model, other)),
                MSELoss(),
            )

            class Begin:
                def on_fit_start(self, run):
                    signal.setitimer(signal.ITIMER_REAL, 1e-4 + 0.03 * rng.random())

            deal = dict(epochs=10_000, batch_size=4, shuffle=False, progress=False, callbacks=[Begin()])
            history = minidl.fit(model, criterion, optimizer, (x, t), **deal)
            assert history.stopped == "Ctrl-C"
            counts.add(len(history.step_loss))
            for step in range(len(history.step_loss)):
                part = slice(4 * step % 40, 4 * step % 40 + 4)
                judge.zero_grad()
                criterion(other(x[part]), t[part])
                other.backward(criterion.backward(), input_grad=False)
                judge.step()
            assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert len(counts) > 5


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 KiB, and a function that makes it read-only."""

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(tmp_path)]
        return subprocess.run(command, capture_output=True).returncode

    try:
        if mount("size=64k"):
            pytest.skip("no right to mount a small disk")
    except FileNotFoundError:
        pytest.skip("no mount here")
    yield tmp_path, lambda: mount("remount", "ro")
    subprocess.run(["umount", str(tmp_path)], check=True)


def swept(path, rates):
    x, t = torch.randn(20, 2), torch.randn(20, 1)
    options = dict(criterion=MSELoss, optimizer=SGD, epochs=1, batch_size=10, progress=False, memory=1)
    return minidl.sweep(small, lambda seed: [(x, t)] * 3, minidl.grid(lr=rates), [0], path=path, **options)


def test_a_full_disk(disk):
    """A plain error; the old file is whole, and nothing is left lying about."""
    folder, _ = disk
    path, table, model = folder / "model.pt", folder / "sweep.csv", small()
    minidl.save(path, model)
    swept(table, [0.1])
    old, rows = path.read_bytes(), table.read_bytes()
    big = Linear(200, 200)
    with pytest.raises(OSError, match="No space left on device"):
        minidl.save(path, big)
    assert path.read_bytes() == old and sorted(os.listdir(folder)) == ["model.pt", "sweep.csv"]
    minidl.load(path, small())
    (folder / "ballast").write_bytes(bytes(4096 * (os.statvfs(folder).f_bavail)))
    with pytest.raises(OSError, match="No space left on device"):
        swept(table, [0.1, 0.2])
    assert table.read_bytes() == rows and "sweep.csv.part" not in os.listdir(folder)
    (folder / "ballast").unlink()
    assert len(swept(table, [0.1, 0.2])) == 2


def test_a_disk_that_cannot_be_written(disk):
    folder, lock = disk
    path, table = folder / "model.pt", folder / "sweep.csv"
    minidl.save(path, small())
    swept(table, [0.1])
    assert lock() == 0
    with pytest.raises(OSError, match="Read-only file system: .*model.pt"):
        minidl.save(path, small())
    minidl.load(path, small())
    with pytest.raises(OSError, match="Read-only file system"):
        minidl.sweep(
            small,
            lambda seed: pytest.fail("trained"),
            minidl.grid(lr=[0.1, 0.2]),
            [0],
            path=table,
            epochs=1,
            criterion=MSELoss,
            optimizer=SGD,
            progress=False,
        )
