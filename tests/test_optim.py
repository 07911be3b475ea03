"""Optimisers against torch.optim, and parts swapped between the two."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from minidl import SGD, Adam, AdamW, Linear, MSELoss, Optimizer, Sequential, Tanh

F64 = torch.float64
CURVATURE = torch.tensor([[1.0, 10.0, 3.0]], dtype=F64)


def path(make, dtype=F64, steps=200):
    """Two parameters under an optimiser, one of which has no gradient at times."""
    torch.manual_seed(0)
    params = [torch.randn(2, 3, dtype=dtype), torch.randn(3, dtype=dtype), torch.randn(1, dtype=dtype)]
    optimizer, seen = make(params), []
    for step in range(steps):
        optimizer.zero_grad()
        for p in params[:2]:
            p.grad = (CURVATURE.to(dtype) * p + torch.sin(3 * p)).reshape(p.shape)
        if step % 3 == 1:
            params[1].grad = None
        optimizer.step()
        seen += [p.clone() for p in params]
    return torch.cat([p.flatten() for p in seen])


SETTINGS = [
    dict(lr=0.03, momentum=m, dampening=d, weight_decay=w, nesterov=n)
    for m, d, w, n in itertools.product((0, 0.5, 0.9), (0, 0.3), (0, 0.1), (False, True))
    if not n or (m and not d)
]


ADAMS = [
    dict(lr=0.05, betas=b, eps=e, weight_decay=w)
    for b, e, w in itertools.product(((0.9, 0.999), (0.5, 0.9), (0.0, 0.0)), (1e-8, 1e-2), (0, 0.1))
]
CASES = [(SGD, rules) for rules in SETTINGS] + [(make, rules) for make in (Adam, AdamW) for rules in ADAMS]


@pytest.mark.parametrize("make, rules", CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_is_pytorchs(make, rules):
    twin = getattr(torch.optim, make.__name__)
    for dtype in (F64, torch.float32):
        assert torch.equal(path(lambda ps: make(ps, **rules), dtype), path(lambda ps: twin(ps, **rules), dtype))


@pytest.mark.parametrize("make", [Adam, AdamW])
def test_defaults_are_pytorchs(make):
    twin = getattr(torch.optim, make.__name__)
    assert torch.equal(path(make), path(twin))


def test_a_parameter_without_gradient_stays():
    p, q = torch.ones(2), torch.ones(2)
    q.grad = torch.ones(2)
    optimizer = SGD([p, q], lr=0.5)
    optimizer.step()
    assert p.tolist() == [1, 1] and q.tolist() == [0.5, 0.5]
    optimizer.zero_grad()
    optimizer.step()
    assert q.tolist() == [0.5, 0.5] and q.grad is None


def test_a_step_leaves_the_gradient_alone():
    p = torch.ones(2)
    p.grad = torch.ones(2)
    optimizer = SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.step()
        assert p.grad.tolist() == [1, 1]


@pytest.mark.parametrize(
    "arguments, rule",
    [
        (dict(lr=-0.1), "SGD: expected lr finite, >= 0, got -0.1"),
        (dict(lr=float("nan")), "SGD: expected lr finite, >= 0, got nan"),
        (dict(lr=1, momentum=-1), "expected momentum finite, >= 0, got -1"),
        (dict(lr=1, weight_decay=-1), "expected weight_decay finite, >= 0, got -1"),
        (dict(lr=1, nesterov=True), "nesterov with momentum > 0 and dampening = 0"),
        (dict(lr=1, nesterov=True, momentum=0.9, dampening=0.1), "dampening = 0.1"),
    ],
    ids=str,
)
def test_bad_hyper_parameters(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        SGD([torch.ones(1)], **arguments)


@pytest.mark.parametrize("make", [Adam, AdamW])
@pytest.mark.parametrize(
    "name, value, rule",
    [
        ("lr", -1, "finite, >= 0, got -1"),
        ("betas", (1.0, 0.9), r"in \[0, 1\), got 1.0"),
        ("betas", (0.9, -0.1), r"in \[0, 1\), got -0.1"),
        ("eps", -1, "finite, >= 0, got -1"),
        ("weight_decay", -1, "finite, >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters_of_adam(make, name, value, rule):
    with pytest.raises(ValueError, match=f"{make.__name__}: expected {name} {rule}"):
        make([torch.ones(1)], **{name: value})


TWO = torch.tensor([0.1, 0.2])


@pytest.mark.parametrize("numbers", [TWO, TWO.numpy(), TWO.tolist()], ids=["tensor", "array", "list"])
def test_a_single_network_has_single_numbers(numbers):
    p = torch.ones(2)
    for name in ("lr", "momentum", "weight_decay"):
        with pytest.raises(ValueError, match=f"SGD: expected one number as {name}, got "):
            SGD([p], **{"lr": 1.0, name: numbers})
    for name, value in (("lr", numbers), ("eps", numbers), ("weight_decay", numbers), ("betas", (numbers, numbers))):
        for make in (Adam, AdamW):
            with pytest.raises(ValueError, match=f"{make.__name__}: expected one number as {name}, got "):
                make([p], **{name: value})
    with pytest.raises(ValueError, match="SGD: expected one number as dampening, got "):
        SGD([p], 1.0, momentum=0.9, dampening=numbers)


def test_hyper_parameters_become_plain_numbers():
    """A number of NumPy's or of PyTorch's counts for what it is, and a checkpoint can hold it."""
    lr, half = np.logspace(-2, -1, 2)[0], torch.tensor(0.5)
    sgd = SGD([torch.ones(2)], lr, momentum=half, dampening=half, weight_decay=np.float32(0.5))
    adam = Adam([torch.ones(2)], half, betas=(half, half), eps=lr, weight_decay=half)
    assert sgd.state_dict() == dict(lr=0.01, momentum=0.5, dampening=0.5, weight_decay=0.5, nesterov=False, velocity={})
    assert adam.state_dict() == dict(lr=0.5, betas=(0.5, 0.5), eps=0.01, weight_decay=0.5, mean={}, square={}, steps={})
    rules = [getattr(o, name) for o in (sgd, adam) for name in o.rule_names if name != "betas"]
    assert {type(rule) for rule in [*rules, *adam.betas]} == {float, bool}


def test_memory_set_by_hand_counts():
    for name, value in (("mean", 0.5), ("square", 7.0), ("steps", 90)):
        moved = []
        for own in (False, True):
            p = torch.ones(2)
            optimizer = Adam([p], 0.1)
            run(3, optimizer, p)
            if own:
                getattr(optimizer, name)[0] = value if name == "steps" else torch.full_like(p, value)
            run(1, optimizer, p)
            moved.append(p)
        assert not torch.equal(*moved), name
    theirs = torch.ones(2)
    twin = torch.optim.Adam([theirs], 0.1)
    run(3, twin, theirs)
    twin.state[theirs]["exp_avg_sq"] = torch.full_like(theirs, 7.0)
    run(1, twin, theirs)
    p = torch.ones(2)
    optimizer = Adam([p], 0.1)
    run(3, optimizer, p)
    optimizer.square[0] = torch.full_like(p, 7.0)
    run(1, optimizer, p)
    assert torch.equal(p, theirs)
    p, velocity = torch.ones(2), torch.full((2,), 5.0)
    sgd = SGD([p], 0.1, momentum=0.5)
    run(1, sgd, p)
    before, sgd.velocity[0] = p.clone(), velocity.clone()
    run(1, sgd, p)
    assert torch.allclose(p, before - 0.1 * (0.5 * velocity + 3 * before))


@pytest.mark.parametrize("make", [lambda ps: SGD(ps, 0.1, momentum=0.9), Adam, AdamW])
def test_forget_is_a_fresh_start(make):
    p = torch.ones(2)
    optimizer = make([p])
    run(3, optimizer, p)
    optimizer.forget()
    fresh = p.clone()
    run(2, optimizer, p)
    run(2, make([fresh]), fresh)
    assert torch.equal(p, fresh)


def test_bad_parameters():
    p = torch.ones(1)
    with pytest.raises(ValueError, match="each once, got 0"):
        SGD([], lr=1)
    with pytest.raises(ValueError, match="each once, got 2, of which 1 differ"):
        SGD([p, p], lr=1)
    with pytest.raises(TypeError, match="SGD: expected a tensor of floating numbers, got float"):
        SGD([0.5], lr=1)


def run(steps, optimizer, p):
    for _ in range(steps):
        p.grad = 3 * p
        optimizer.step()


@pytest.mark.parametrize("make", [lambda ps, lr: SGD(ps, lr, momentum=0.9), Adam, AdamW])
def test_state_goes_on_where_it_stopped(make):
    whole, p = torch.ones(2), torch.ones(2)
    run(6, make([whole], 0.1), whole)
    first = make([p], 0.1)
    run(3, first, p)
    state = first.state_dict()
    getattr(first, first.memory_names[0])[0].zero_()  # the state is a copy
    second = make([p], 5)
    second.load_state_dict(state)
    assert second.lr == 0.1
    middle = p.clone()
    run(3, second, p)
    assert torch.equal(p, whole)
    third = make([middle], 5)
    third.load_state_dict(dict(sorted(state.items())))  # in any order; the second copied it, and left it as it was
    run(3, third, middle)
    assert torch.equal(middle, whole)


def test_a_wrong_state_loads_nothing():
    optimizer = SGD([torch.ones(2)], lr=0.1, momentum=0.9)
    good = optimizer.state_dict()
    for bad, rule in (
        ({"lr": 1.0}, "expected the keys"),
        (good | {"lr": 7.0, "velocity": {0: torch.ones(3)}}, r"velocity\[0\] of shape \(2,\), got \(3,\)"),
        (good | {"lr": 7.0, "velocity": {1: torch.ones(2)}}, "velocity for 1 parameters, got number 1"),
        (good | {"velocity": {-1: torch.ones(2)}}, "velocity for 1 parameters, got number -1"),
        (good | {"velocity": {0: 3}}, r"velocity\[0\] of shape \(2,\), got \(\)"),
        (good | {"lr": -5.0}, "SGD: expected lr finite, >= 0, got -5.0"),
        (good | {"momentum": float("nan")}, "SGD: expected momentum finite, >= 0, got nan"),
        (good | {"momentum": 0.0, "nesterov": True}, "nesterov with momentum > 0"),
    ):
        with pytest.raises(ValueError, match=rule):
            optimizer.load_state_dict(bad)
    assert optimizer.lr == 0.1 and optimizer.velocity == {}


@pytest.mark.parametrize("make", [Adam, AdamW])
def test_a_wrong_state_of_adam_loads_nothing(make):
    """A memory is like its parameter; a count is one number, or one for each entry of the first axis."""
    w = torch.ones(3, 3)
    first, second = make([w], 0.1), make([torch.ones(3, 3)], 0.2)
    run(2, first, w)
    good, before = first.state_dict(), str(second.state_dict())
    for bad, rule in (
        (good | {"betas": (0.9, 1.0)}, r"betas in \[0, 1\), got 1.0"),
        (good | {"betas": (0.9,)}, "two betas"),
        (good | {"eps": -1.0}, "eps finite, >= 0, got -1.0"),
        (good | {"mean": {0: torch.ones(3)}}, r"mean\[0\] of shape \(3, 3\), got \(3,\)"),
        (good | {"square": {0: 2}}, r"square\[0\] of shape \(3, 3\), got \(\)"),
        (good | {"steps": {0: torch.ones(2)}}, r"steps\[0\] of shape \(\), got \(2,\)"),
        (good | {"steps": {0: torch.ones(3, 3)}}, r"steps\[0\] of shape \(\), got \(3, 3\)"),
    ):
        with pytest.raises(ValueError, match=rule):
            second.load_state_dict(bad)
        assert str(second.state_dict()) == before
    for steps in (2, torch.full((3,), 2.0)):
        second.load_state_dict(good | {"steps": {0: steps}})


def test_a_velocity_is_like_its_parameter():
    sgd = SGD([torch.ones(25, 25)], 0.1, momentum=0.9)
    state = sgd.state_dict() | {"velocity": {0: torch.ones(25)}}
    with pytest.raises(ValueError, match=r"velocity\[0\] of shape \(25, 25\), got \(25,\)"):
        sgd.load_state_dict(state)


def test_the_dampening_is_any_number_as_in_pytorch():
    for dampening in (-1.0, 7.0):
        rules = dict(lr=0.001, momentum=0.5, dampening=dampening)
        assert torch.equal(
            path(lambda ps: SGD(ps, **rules), steps=9), path(lambda ps: torch.optim.SGD(ps, **rules), steps=9)
        )


def test_parts_can_be_swapped():
    """PyTorch's Adam drives our network, our SGD PyTorch's, and both train like PyTorch alone."""
    torch.manual_seed(0)
    x, target = torch.randn(50, 2, dtype=F64), torch.randn(50, 1, dtype=F64)
    for make in (lambda ps: torch.optim.Adam(ps, 0.01), lambda ps: SGD(ps, 0.1, momentum=0.9)):
        ours = Sequential(Linear(2, 8), Tanh(), Linear(8, 1)).to(F64)
        twin = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).to(F64)
        twin.load_state_dict(ours.state_dict())
        criterion, losses = MSELoss(), []
        a, b = make(ours.parameters()), make(twin.parameters())
        for _ in range(200):
            a.zero_grad()
            losses.append(criterion(ours(x), target).item())
            ours.backward(criterion.backward(), input_grad=False)
            a.step()
            b.zero_grad()
            nn.functional.mse_loss(twin(x), target).backward()
            b.step()
        assert losses[-1] < losses[0]
        for p, q in zip(ours.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p, q.detach(), rtol=0, atol=1e-12)


def test_an_optimizer_of_ones_own():
    class Signs(Optimizer):
        rule_names = ("lr",)

        def __init__(self, params, lr):
            super().__init__(params)
            self.lr = lr

        def update(self, at):
            for i in at:
                p = self.params[i]
                self.add_(p, p.grad.sign(), -self.lr)

    still, p = torch.ones(2), torch.ones(2)
    p.grad = torch.tensor([3.0, -2.0])
    optimizer = Signs([still, p], 0.5)
    optimizer.step()
    assert p.tolist() == [0.5, 1.5] and optimizer.state_dict() == {"lr": 0.5}
    assert still.tolist() == [1, 1]
    with pytest.raises(ValueError, match="Signs: expected lr in"):
        optimizer.number("lr", 2.0, below=1)
