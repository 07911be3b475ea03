"""The networks of the five reports, each beside its PyTorch twin: the same seed, the same batches, the same training.

All but 004's network and cross-entropy are held to the bit. Those two meet an exponential on the way back: PyTorch's
kernels take another one than `torch.exp`, a unit in the last place apart in a few entries, and multiply in another
order. They are held to rounding, in float64.
"""

import math

import pytest
import torch
from torch import nn

import minidl
from minidl import batches, circle, fit, one_hot, standardize

X, LABEL = circle(1000, torch.Generator().manual_seed(0))
X = standardize(X)


def linear(package, inputs, outputs, rule, biases=None, **options):
    """A layer with weights, and biases where named, drawn by a rule of `init`."""
    layer = package.Linear(inputs, outputs)
    getattr(package.init, rule)(layer.weight, **options)
    if biases:
        getattr(package.init, biases)(layer.bias)
    return layer


def xavier(package, inputs, outputs):
    """Report 000's layer."""
    return linear(package, inputs, outputs, "xavier_uniform_")


def he(package, inputs, outputs):
    """Report 001's layer, "normal": weights of variance 2 / outputs."""
    return linear(package, inputs, outputs, "kaiming_normal_", mode="fan_out")


def gained(package, inputs, outputs, follows):
    """Report 004's layer: Xavier's normal numbers times the gain of what follows, and biases N(0, 1)."""
    return linear(package, inputs, outputs, "xavier_normal_", "normal_", gain=package.init.calculate_gain(follows))


# name: (the network from the parts of p, which is minidl or torch.nn; the report's losses). There is no gain for ELU:
# it takes ReLU's.
REPORTS = {
    "000": (
        lambda p: p.Sequential(
            *(xavier(p, 2, 25), p.Sigmoid(), xavier(p, 25, 25), p.Sigmoid()),
            *(xavier(p, 25, 25), p.Sigmoid(), xavier(p, 25, 2), p.Sigmoid()),
        ),
        ["MSELoss"],
    ),
    "001": (
        lambda p: p.Sequential(
            *(he(p, 2, 25), p.ReLU(), he(p, 25, 25), p.ReLU()),
            *(he(p, 25, 25), p.ReLU(), he(p, 25, 2), p.Sigmoid()),
        ),
        ["MSELoss", "L1Loss", "CrossEntropyLoss"],
    ),
    "002 ReLU": (
        lambda p: p.Sequential(
            *(p.Linear(2, 25), p.ReLU(), p.Linear(25, 25), p.ReLU()),
            *(p.Linear(25, 25), p.ReLU(), p.Linear(25, 2)),
        ),
        ["MSELoss"],
    ),
    "002 Tanh": (
        lambda p: p.Sequential(
            *(p.Linear(2, 25), p.Tanh(), p.Linear(25, 25), p.Tanh()),
            *(p.Linear(25, 25), p.Tanh(), p.Linear(25, 2)),
        ),
        ["MSELoss"],
    ),
    "003": (
        lambda p: p.Sequential(
            *(p.Linear(2, 25), p.ReLU(), p.Linear(25, 25), p.ReLU()),
            *(p.Linear(25, 25), p.ReLU(), p.Linear(25, 2), p.Tanh()),
        ),
        ["MSELoss"],
    ),
    "004": (
        lambda p: p.Sequential(
            *(gained(p, 2, 25, "relu"), p.ELU(0.2), gained(p, 25, 25, "relu"), p.ReLU()),
            *(gained(p, 25, 25, "selu"), p.SELU(), gained(p, 25, 1, "sigmoid"), p.Sigmoid()),
        ),
        ["MSELoss", "BCELoss"],
    ),
}
OPTIMIZERS = {
    "SGD": ("SGD", dict(lr=0.05)),
    "momentum": ("SGD", dict(lr=0.02, momentum=0.9)),
    "Adam": ("Adam", dict(lr=0.005)),
}
PAIRS = [(name, loss) for name, (_, losses) in REPORTS.items() for loss in losses]
ROUNDED = [(name, loss) for name, loss in PAIRS if name == "004" or loss == "CrossEntropyLoss"]
EXACT = [pair for pair in PAIRS if pair not in ROUNDED]


def build(name, package, seed=0):
    torch.manual_seed(seed)
    return REPORTS[name][0](package)


def side_by_side(name, loss, optimizer, epochs, dtype):
    """Both networks trained; their losses, step by step, and the networks."""
    ours, twin = build(name, minidl).to(dtype), build(name, nn).to(dtype)
    target = LABEL[:, None].to(dtype) if name == "004" else one_hot(LABEL).to(dtype)
    (rule, options), train = OPTIMIZERS[optimizer], (X.to(dtype), target)

    there, criterion = getattr(torch.optim, rule)(twin.parameters(), **options), getattr(nn, loss)()
    losses, generator = [], torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for x, t in batches(*train, 100, True, generator):
            there.zero_grad()
            error = criterion(twin(x), t)
            error.backward()
            there.step()
            losses.append(error.item())

    here, criterion = getattr(minidl, rule)(ours.parameters(), **options), getattr(minidl, loss)()
    deal = dict(epochs=epochs, batch_size=100, generator=torch.Generator().manual_seed(1), progress=False)
    return fit(ours, criterion, here, train, **deal).step_loss, losses, ours, twin


def learns(losses):
    """Finite to the end, and lower in the last epoch than in the first."""
    return all(map(math.isfinite, losses)) and sum(losses[-10:]) < sum(losses[:10])


@pytest.mark.parametrize("name", REPORTS)
def test_is_one_expression_that_draws_pytorchs_numbers(name):
    """From one seed come the same numbers, under the same names."""
    ours, twin = build(name, minidl).state_dict(), build(name, nn).state_dict()
    assert list(ours) == list(twin) and len(ours) == 8
    assert all(torch.equal(ours[key], twin[key]) for key in twin)


@pytest.mark.parametrize("name", REPORTS)
def test_its_state_loads_both_ways(name):
    """Either network takes over the other's state, and then gives its outputs."""
    ours, twin, third = build(name, minidl, 1), build(name, nn, 2), build(name, minidl, 3)
    first = ours(X)
    assert not torch.equal(first, twin(X))
    twin.load_state_dict(ours.state_dict())
    third.load_state_dict(twin.state_dict())
    assert torch.equal(first, twin(X)) and torch.equal(first, third(X))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name, loss", EXACT)
def test_trains_bit_for_bit_like_pytorch(name, loss, optimizer):
    """In float32 the loss is the same number at every step of 100 epochs, and so is every parameter at the end."""
    here, there, ours, twin = side_by_side(name, loss, optimizer, 100, torch.float32)
    assert len(there) == 1000 and learns(there)
    assert here == there
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
@pytest.mark.parametrize("name, loss", ROUNDED)
def test_trains_like_pytorch_to_rounding(name, loss, optimizer):
    """In float64 the losses of ten epochs, and the parameters at the end, differ by no more than 1e-10."""
    here, there, ours, twin = side_by_side(name, loss, optimizer, 10, torch.float64)
    assert len(there) == 100 and learns(there)
    assert max(abs(a - b) for a, b in zip(here, there, strict=True)) <= 1e-10
    for p, q in zip(ours.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q.detach(), rtol=0, atol=1e-10)
