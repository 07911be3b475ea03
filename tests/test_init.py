"""First weights: PyTorch's very numbers, and the spread that the formulas promise."""

import math

import pytest
import torch

from minidl import init

NAMES = ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
CALLS = [
    *(("xavier_uniform_", {"gain": g}) for g in (1.0, 5 / 3)),
    *(("xavier_normal_", {"gain": g}) for g in (1.0, 5 / 3)),
    *(
        (f"kaiming_{kind}_", {"a": a, "mode": mode, "nonlinearity": name})
        for kind in ("uniform", "normal")
        for a in (0, 0.2)
        for mode in ("fan_in", "fan_out")
        for name in NAMES
    ),
    ("uniform_", {"a": -0.3, "b": 0.1}),
    ("normal_", {"mean": 1.0, "std": 0.2}),
    ("zeros_", {}),
    *((f"{name}_", {}) for name in ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "normal")),
]


@pytest.mark.parametrize("name, options", CALLS, ids=str)
def test_draws_pytorchs_numbers(name, options):
    drawn = []
    for module in (init, torch.nn.init):
        torch.manual_seed(3)
        tensor = torch.empty(7, 30)
        assert getattr(module, name)(tensor, **options) is tensor
        drawn.append(tensor)
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name, options", [call for call in CALLS if call[0] != "zeros_"], ids=str)
def test_draws_from_the_generator(name, options):
    drawn = []
    for module in (init, torch.nn.init):
        state, g = torch.get_rng_state(), torch.Generator().manual_seed(3)
        drawn.append(getattr(module, name)(torch.empty(7, 30), **options, generator=g))
        assert torch.equal(torch.get_rng_state(), state)  # and from no other
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("param", [None, 0.3])
def test_gains_are_pytorchs(name, param):
    assert init.calculate_gain(name, param) == torch.nn.init.calculate_gain(name, param)


def test_spread_on_a_rectangle():
    w, g = torch.empty(400, 100), torch.Generator().manual_seed(0)
    for fill, std in (
        (lambda: init.xavier_uniform_(w, generator=g), math.sqrt(2 / 500)),
        (lambda: init.xavier_normal_(w, generator=g), math.sqrt(2 / 500)),
        (lambda: init.he_uniform_(w, nonlinearity="relu", generator=g), math.sqrt(2 / 100)),
        (lambda: init.he_normal_(w, mode="fan_out", generator=g), math.sqrt(2 / 400)),
    ):
        assert abs(fill().std() / std - 1) < 0.02 and abs(w.mean()) < 0.02 * std * 10


def test_a_stack_has_the_fans_of_one_network():
    one, many = torch.empty(400, 100), torch.empty(3, 400, 100)
    for tensor in (one, many):
        init.kaiming_uniform_(tensor)
    assert abs(many.std() / one.std() - 1) < 0.02


def test_refuses():
    with pytest.raises(ValueError, match=r"init: expected a weight of shape \(..., out, in\), got \(3,\)"):
        init.xavier_normal_(torch.ones(3))
    with pytest.raises(ValueError, match=r"init: expected a weight of shape \(..., out, in\), got \(0, 3\)"):
        init.xavier_normal_(torch.ones(0, 3))
    with pytest.raises(TypeError, match="^init: expected a tensor of floating numbers"):
        init.xavier_normal_(torch.ones(2, 3, dtype=torch.int64))
    assert init.xavier_normal_(torch.zeros(1, 1)) != 0  # the smallest weight
    with pytest.raises(ValueError, match="'fan_in' or 'fan_out', got 'fan'"):
        init.kaiming_normal_(torch.ones(2, 3), mode="fan")
    with pytest.raises(ValueError, match="expected one of .* got 'gelu'"):
        init.calculate_gain("gelu")
