"""One table of modules, and the properties that every one of them has."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import minidl
from minidl import (
    ELU,
    SELU,
    BCELoss,
    BCEWithLogitsLoss,
    Chain,
    CrossEntropyLoss,
    Dropout,
    L1Loss,
    LeakyReLU,
    Linear,
    Module,
    MSELoss,
    Part,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    gradcheck,
    one_hot,
)
from minidl.losses import Loss, Terms
from minidl.replicas import Each

F64 = torch.float64


def mlp(package, chain):
    """A network that nests, from the parts of minidl or torch.nn."""
    inner = chain(package.Linear(5, 4, bias=False), package.ReLU(), package.Linear(4, 2))
    return chain(package.Linear(3, 5), package.Tanh(), inner, package.Sigmoid())


# name: (ours, PyTorch's twin); a sample has 3 features
MODULES = {
    "Linear": (lambda: Linear(3, 2), lambda: nn.Linear(3, 2)),
    "Linear without bias": (lambda: Linear(3, 5, bias=False), lambda: nn.Linear(3, 5, bias=False)),
    "Linear to one": (lambda: Linear(3, 1), lambda: nn.Linear(3, 1)),
    "ReLU": (ReLU, nn.ReLU),
    "Sigmoid": (Sigmoid, nn.Sigmoid),
    "Tanh": (Tanh, nn.Tanh),
    "LeakyReLU": (lambda: LeakyReLU(0.2), lambda: nn.LeakyReLU(0.2)),
    "ELU": (lambda: ELU(0.2), lambda: nn.ELU(0.2)),
    "SELU": (SELU, nn.SELU),
    "Dropout in eval mode": (lambda: Dropout(0.2).eval(), lambda: nn.Dropout(0.2).eval()),
    "Dropout of nothing": (lambda: Dropout(0.0), lambda: nn.Dropout(0.0)),
    "Dropout of all": (lambda: Dropout(1.0), lambda: nn.Dropout(1.0)),
    "Sequential": (lambda: mlp(minidl, Sequential), lambda: mlp(nn, nn.Sequential)),
    "empty Sequential": (Sequential, nn.Sequential),
}
LOSSES = {loss.__name__: loss for loss in (MSELoss, L1Loss, BCELoss, BCEWithLogitsLoss)}
LEADS = [(), (1,), (7,), (2, 4), (2, 1, 3), (0,)]

ORDER = "expected a forward before each backward, got none"

modules = pytest.mark.parametrize("name", MODULES)
losses = pytest.mark.parametrize("name", LOSSES)
leads = pytest.mark.parametrize("lead", LEADS, ids=str)


def pair(name, dtype=F64):
    """Ours and PyTorch's from one seed, cast afterwards."""
    ours, twin = MODULES[name]
    torch.manual_seed(0)
    ours = ours()
    torch.manual_seed(0)
    return ours.to(dtype), twin().to(dtype)


def judged(twin, x, dy):
    """PyTorch's output, dx and parameter gradients."""
    x = x.clone().requires_grad_()
    y = twin(x)
    y.backward(dy)
    return y.detach(), x.grad, [p.grad for p in twin.parameters()]


@modules
def test_at_the_kink_the_choice_is_pytorchs(name):
    ours, twin = pair(name)
    zero = torch.zeros(2, 3, dtype=F64)
    dy = torch.randn_like(ours(zero))
    torch.testing.assert_close(ours.backward(dy), judged(twin, zero, dy)[1])


@modules
@leads
def test_gradcheck(name, lead):
    module, _ = pair(name)
    gradcheck(module, torch.randn(*lead, 3, dtype=F64))


@modules
@leads
@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
def test_agrees_with_pytorch(name, lead, dtype):
    ours, twin = pair(name, dtype)
    x = torch.randn(*lead, 3, dtype=dtype)
    dy = torch.randn_like(ours(x))
    y, dx, grads = judged(twin, x, dy)
    tolerance = dict(rtol=0, atol=1e-12 if dtype == F64 else 1e-5)
    torch.testing.assert_close(ours(x), y, **tolerance)
    torch.testing.assert_close(ours.backward(dy), dx, **tolerance)
    for p, grad in zip(ours.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, grad, **tolerance)


@modules
def test_bit_for_bit_in_float32(name):
    if name in ("ELU", "SELU"):
        pytest.skip("PyTorch's kernel takes another exponential than torch.exp")
    ours, twin = pair(name, torch.float32)
    for n in (1, 50, 64, 100, 1000):
        x = torch.randn(n, 3)
        dy = torch.randn_like(ours(x))
        ours.zero_grad()
        twin.zero_grad()
        y, dx, grads = judged(twin, x, dy)
        assert torch.equal(ours(x), y)
        assert torch.equal(ours.backward(dy), dx)
        assert all(torch.equal(p.grad, g) for p, g in zip(ours.parameters(), grads, strict=True))


@modules
def test_backward_adds_and_zero_grad_forgets(name):
    module, _ = pair(name)
    assert all(p.grad is None for p in module.parameters())
    x = torch.randn(4, 3, dtype=F64)
    dy = torch.randn_like(module(x))
    module.backward(dy)
    once = [p.grad.clone() for p in module.parameters()]
    module(x)
    module.backward(dy)
    for p, g in zip(module.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)
    module.zero_grad()
    assert all(p.grad is None for p in module.parameters())
    assert all(not g.any() for _, g in module.param())


@modules
def test_changes_neither_input_nor_gradient_and_records_nothing(name):
    module, _ = pair(name)
    x = torch.randn(4, 3, dtype=F64, requires_grad=True)
    y = module(x)
    dy = torch.randn_like(y).requires_grad_()
    before, upstream = x.detach().clone(), dy.detach().clone()
    dx = module.backward(dy)
    assert torch.equal(x, before) and torch.equal(dy, upstream)
    assert dx.shape == x.shape and dx.dtype == x.dtype
    assert not y.requires_grad and not dx.requires_grad and x.grad is None
    grads = [p.grad.clone() for p in module.parameters()]
    assert not any(t.requires_grad for t in [*module.parameters(), *grads])
    module(x)
    module.zero_grad()
    assert module.backward(dy, input_grad=False) is None
    assert all(torch.equal(p.grad, g) for p, g in zip(module.parameters(), grads))


@modules
def test_takes_strided_input(name):
    module, _ = pair(name)
    x = torch.randn(3, 8, dtype=F64)[:, ::2].mT
    assert not x.is_contiguous()
    y = module(x)
    dy = torch.randn(*reversed(y.shape), dtype=F64).mT
    dx = module.backward(dy)
    torch.testing.assert_close(module(x.contiguous()), y)
    torch.testing.assert_close(module.backward(dy.contiguous()), dx)


@modules
def test_names_states_and_repr_are_pytorchs(name):
    ours, twin = pair(name)
    assert repr(ours) == repr(twin)
    assert [k for k, _ in ours.named_parameters()] == [k for k, _ in twin.named_parameters()]
    for p, q in zip(ours.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q) and p.shape == q.shape
        q.data.add_(1)
    ours.load_state_dict(twin.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), twin.parameters(), strict=True))
    ours.load_state_dict({k: p - 1 for k, p in twin.named_parameters()})
    assert not any(p.requires_grad for p in ours.parameters())
    twin.load_state_dict(ours.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), twin.parameters(), strict=True))


@modules
def test_order_and_shape_are_guarded(name):
    module, _ = pair(name)
    with pytest.raises(RuntimeError, match=ORDER):
        module.backward(torch.ones(4, 2, dtype=F64))
    y = module(torch.randn(4, 3, dtype=F64))
    with pytest.raises(ValueError, match=r"expected dy of shape \(4, \d\), got \(\d,\)"):
        module.backward(torch.ones(y.shape[-1], dtype=F64))
    with pytest.raises(TypeError, match="expected dy of dtype torch.float64"):
        module.backward(torch.ones_like(y).float())
    with pytest.raises(TypeError, match="expected a tensor of floating numbers, got torch.int64"):
        module(torch.ones(4, 3, dtype=torch.int64))
    for wrong, kind in (([1.0], "list"), (np.ones((4, 3)), "ndarray"), (np.float64(1), "float64")):
        with pytest.raises(TypeError, match=f"expected a tensor of floating numbers, got {kind}"):
            module(wrong)
    assert all(p.grad is None for p in module.parameters())
    module.backward(torch.ones_like(y))  # what was refused has used nothing up
    with pytest.raises(RuntimeError, match=ORDER):
        module.backward(torch.ones_like(y))


@modules
@given(seed=st.integers(0, 10**6))
def test_rows_do_not_see_each_other(name, seed):
    """Another order of the batch is another order of the outputs."""
    module, _ = pair(name)
    g = torch.Generator().manual_seed(seed)
    x, order = torch.randn(6, 3, dtype=F64, generator=g), torch.randperm(6, generator=g)
    torch.testing.assert_close(module(x)[order], module(x[order]))


@given(a=st.floats(-10, 10), b=st.floats(-10, 10))
def test_linear_is_linear(a, b):
    layer = Linear(3, 2, bias=False).to(F64)
    x, y = torch.randn(2, 5, 3, dtype=F64)
    torch.testing.assert_close(layer(a * x + b * y), a * layer(x) + b * layer(y))


@given(x=st.floats(-800, 800))
def test_symmetries(x):
    x = torch.tensor([x], dtype=F64)
    torch.testing.assert_close(Sigmoid()(x) + Sigmoid()(-x), torch.ones(1, dtype=F64))
    torch.testing.assert_close(Tanh()(-x), -Tanh()(x))
    torch.testing.assert_close(ReLU()(x) - ReLU()(-x), x)


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU", "ELU", "SELU", "Sigmoid", "Tanh", "Dropout in eval mode"])
def test_a_single_number(name):
    ours, twin = pair(name)
    x, dy = torch.randn(2, dtype=F64)
    gradcheck(ours, x.clone())
    y, dx, _ = judged(twin, x, dy)
    assert ours(x).shape == () and torch.allclose(ours(x), y) and torch.allclose(ours.backward(dy), dx)


@pytest.mark.parametrize("module", [ReLU(), Sigmoid(), Tanh(), LeakyReLU(), ELU(), SELU()], ids=repr)
def test_activations_stay_finite(module):
    x = torch.tensor([-1e4, -88.0, -0.0, 0.0, 88.0, 1e4])
    assert module(x).isfinite().all()
    assert module.backward(torch.ones_like(x)).isfinite().all()


@losses
@leads
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses(name, lead, reduction):
    criterion, output, target = LOSSES[name](reduction), *torch.rand(2, *lead, 3, dtype=F64) * 0.9 + 0.05
    if output.numel() == 0:
        with pytest.raises(ValueError, match="expected at least one entry"):
            criterion(output, target)
        return
    gradcheck(criterion, output, target)
    judged_loss(criterion, getattr(nn, name)(reduction=reduction), output, target)
    assert repr(criterion) == repr(getattr(nn, name)())


def judged_loss(criterion, twin, output, target):
    """Value and gradient against PyTorch's."""
    leaf = output.clone().requires_grad_()
    loss = twin(leaf, target)
    loss.backward()
    assert criterion(leaf, target).shape == ()
    torch.testing.assert_close(criterion(leaf, target), loss.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(criterion.backward(), leaf.grad, rtol=1e-12, atol=1e-12)
    assert not criterion(leaf, target).requires_grad and not criterion.backward().requires_grad


@losses
def test_losses_refuse(name):
    criterion = LOSSES[name]()
    for _ in range(2):  # before the first forward, and after its backward
        with pytest.raises(RuntimeError, match=f"{name}: {ORDER}"):
            criterion.backward()
        criterion(torch.ones(4), torch.ones(4))
        criterion.backward()
    with pytest.raises(ValueError, match=r"expected a target of shape \(4, 1\), got \(4,\)"):
        criterion(torch.ones(4, 1), torch.ones(4))
    with pytest.raises(TypeError, match="expected a target of dtype torch.float32, got torch.float64"):
        criterion(torch.ones(4), torch.ones(4, dtype=F64))
    for both in ((torch.ones(4).long(), torch.ones(4)), (torch.ones(4), torch.ones(4).long())):
        with pytest.raises(TypeError, match="expected a tensor of floating numbers, got torch.int64"):
            criterion(*both)
    with pytest.raises(ValueError, match="'mean' or 'sum', got 'none'"):
        LOSSES[name]("none")


@pytest.mark.parametrize("name", [*LOSSES, "CrossEntropyLoss"])
@pytest.mark.parametrize("wrong, kind", [([1.0], "list"), (np.ones(1), "ndarray")])
def test_losses_name_the_type_of_what_is_no_tensor(name, wrong, kind):
    criterion, right = getattr(minidl, name)(), torch.ones(1)
    for both in ((wrong, right), (right, wrong)):
        with pytest.raises(TypeError, match=f"{name}: expected a tensor of floating numbers, got {kind}"):
            criterion(*both)


@pytest.mark.parametrize(
    "output, error", [([1.0], TypeError), (np.ones(1), TypeError), (torch.tensor(1.0), ValueError)]
)
def test_cross_entropy_of_classes_names_what_is_no_row(output, error):
    with pytest.raises(error, match="CrossEntropyLoss: expected"):
        CrossEntropyLoss()(output, torch.tensor(0))


@pytest.mark.parametrize("output", [-0.5, 1.5, math.nan, math.inf])
def test_binary_cross_entropy_refuses_outputs_that_are_no_share(output):
    """Of a nan too, as PyTorch does; a logit may be anything."""
    outputs, target = torch.tensor([0.5, output]), torch.ones(2)
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        nn.BCELoss()(outputs, target)
    with pytest.raises(ValueError, match=r"^BCELoss: expected outputs in \[0, 1\], got .* to "):
        BCELoss()(outputs, target)
    theirs = nn.BCEWithLogitsLoss()(outputs, target)
    torch.testing.assert_close(BCEWithLogitsLoss()(outputs, target), theirs, equal_nan=True)


def test_a_loss_of_ones_own():
    """A student's loss writes its terms and their slopes; order, shapes and the reduction are there."""

    class Quartic(Loss):
        def losses(self, output, target):
            self.kept = output, target
            return (output - target) ** 4

        def gradient(self, output, target):
            return 4 * (output - target) ** 3 / self.count

    output, target = torch.randn(2, 4, 3, dtype=F64)
    for reduction, share in (("mean", 12), ("sum", 1)):
        criterion = Quartic(reduction)
        gradcheck(criterion, output, target)
        assert torch.allclose(criterion(output, target), ((output - target) ** 4).sum() / share)
        criterion.backward()
        with pytest.raises(RuntimeError, match=f"Quartic: {ORDER}"):
            criterion.backward()
    with pytest.raises(ValueError, match=r"Quartic: expected a target of shape \(4, 3\), got \(3,\)"):
        criterion(output, target[0])


def test_a_subclass_has_every_check():
    """It is defined here, where a mutant of what a definition does is at work."""

    class Twice(Module):
        def forward(self, x):
            self.kept = x
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    class Flagged(Twice):
        def backward(self, dy, input_grad=True):
            self.asked = input_grad
            return super().backward(dy)

    for module in (Twice(), Flagged()):
        x = torch.randn(3, 2)
        with pytest.raises(TypeError, match="expected a tensor of floating numbers, got torch.int64"):
            module(torch.ones(2, dtype=torch.int64))
        with pytest.raises(RuntimeError, match="expected a forward before each backward"):
            module.backward(x)
        assert torch.equal(module(x), 2 * x) and torch.equal(module.backward(x), 2 * x)
        module(x)
        with pytest.raises(ValueError, match=r"expected dy of shape \(3, 2\), got \(2,\)"):
            module.backward(x[0])
        assert module.backward(x, input_grad=False) is None
    assert module.asked is False  # handed on to who takes it


def test_param_pairs_each_parameter_with_its_gradient():
    module = Linear(3, 2)
    assert [g.any().item() for _, g in module.param()] == [False, False]
    module(torch.randn(4, 3))
    module.backward(torch.randn(4, 2))
    assert all(p is q and g is q.grad for (p, g), q in zip(module.param(), module.parameters(), strict=True))


def test_terms_are_averaged_unless_told_otherwise():
    class Cube(Terms):
        def losses(self, output, target):
            return (output - target) ** 3

    output, target = torch.randn(4, 3, dtype=F64), torch.randn(4, 3, dtype=F64)
    assert torch.equal(Cube()(output, target), ((output - target) ** 3).mean())
    assert torch.equal(Cube("sum")(output, target), ((output - target) ** 3).sum())


@pytest.mark.parametrize("shape", [(5, 3), (1, 2), (5, 1), (3,), (4, 3, 2), (2, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy(shape, smoothing, reduction):
    criterion = CrossEntropyLoss(reduction, smoothing)
    twin = nn.CrossEntropyLoss(reduction=reduction, label_smoothing=smoothing)
    output, axis = torch.randn(shape, dtype=F64), min(len(shape) - 1, 1)
    classes = torch.randint(shape[axis], shape[:axis] + shape[axis + 1 :])
    for target in (classes, torch.rand(shape, dtype=F64).softmax(axis), torch.rand(shape, dtype=F64)):
        gradcheck(criterion, output, target)
        judged_loss(criterion, twin, output, target)
    if axis == len(shape) - 1:
        hot = one_hot(classes, shape[axis]).to(F64)
        torch.testing.assert_close(criterion(output, hot), criterion(output, classes))


def test_cross_entropy_refuses():
    with pytest.raises(RuntimeError, match=f"CrossEntropyLoss: {ORDER}"):
        CrossEntropyLoss().backward()
    criterion, output = CrossEntropyLoss(), torch.randn(4, 3)
    for target, rule in (
        (torch.tensor([0, 1, 2, 3]), r"expected classes in \[0, 3\), got 0 to 3"),
        (torch.tensor([0, 1]), r"expected a target of shape \(4,\), got \(2,\)"),
        (torch.ones(4, 2), r"expected a target of shape \(4, 3\), got \(4, 2\)"),
    ):
        with pytest.raises(ValueError, match=rule):
            criterion(output, target)
    with pytest.raises(ValueError, match=r"label_smoothing in \[0, 1\], got 2"):
        CrossEntropyLoss(label_smoothing=2)
    with pytest.raises(ValueError, match=r"BCELoss: expected outputs in \[0, 1\], got -0.5 to 2"):
        BCELoss()(torch.tensor([-0.5, 2.0]), torch.ones(2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("wrong", [-1.0, 5.0, math.nan, math.inf])
def test_cross_entropy_refuses_targets_that_are_no_share(wrong, smoothing):
    """Smoothing could bring a share of 1.05 back below 1: the target is asked first. PyTorch takes anything."""
    criterion, output, target = CrossEntropyLoss(label_smoothing=smoothing), torch.randn(4, 3), torch.full((4, 3), 0.5)
    criterion(output, target)  # shares that add up to 1.5 pass, as in PyTorch
    criterion.backward()
    target[1, 2] = wrong
    nn.CrossEntropyLoss(label_smoothing=smoothing)(output, target)
    with pytest.raises(ValueError, match=r"^CrossEntropyLoss: expected targets in \[0, 1\], got .* to "):
        criterion(output, target)
    with pytest.raises(RuntimeError, match=ORDER):  # nothing was kept
        criterion.backward()
    with pytest.raises(ValueError, match=r"CrossEntropyLoss: expected targets in \[0, 1\]"):
        Each(CrossEntropyLoss(label_smoothing=smoothing), shared=True)(output.expand(2, 4, 3), target)


@given(shift=st.floats(-1e4, 1e4), seed=st.integers(0, 10**6))
def test_cross_entropy_does_not_see_a_shift(shift, seed):
    """Softmax sums to one, so gradients sum to zero, and a constant added to all logits changes nothing."""
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))
    criterion, classes = CrossEntropyLoss(), torch.tensor([0, 1, 2, 1])
    before = criterion(x, classes)
    torch.testing.assert_close(criterion(x + shift, classes), before, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(criterion.backward().sum(-1), torch.zeros(4, dtype=F64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1e4, -1e4, 88.0, 0.0])
def test_losses_stay_finite_at_extreme_logits(size):
    x, t = torch.tensor([[size, 0.0]]), torch.tensor([[0.0, 1.0]])
    for criterion in (BCEWithLogitsLoss(), CrossEntropyLoss()):
        assert criterion(x, t).isfinite() and criterion.backward().isfinite().all()
    for sure in (torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])):
        criterion = BCELoss()
        judge = nn.BCELoss()(sure, t)
        assert torch.equal(criterion(sure, t), judge) and criterion.backward().isfinite().all()


@pytest.mark.parametrize("loss", [MSELoss, L1Loss], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_bit_for_bit_in_float32(loss, reduction):
    for n in (1, 50, 64, 100, 1000):
        output, target = torch.randn(2, n, 2)
        leaf = output.clone().requires_grad_()
        judge = getattr(nn, loss.__name__)(reduction=reduction)(leaf, target)
        judge.backward()
        criterion = loss(reduction)
        assert torch.equal(criterion(output, target), judge.detach())
        assert torch.equal(criterion.backward(), leaf.grad)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
def test_dropout_draws_pytorchs_mask(p, dtype):
    ours, twin = Dropout(p), nn.Dropout(p)
    gradcheck(ours, torch.randn(4, 3, dtype=F64))
    x = torch.randn(100, 25, dtype=dtype)
    for seed in range(3):
        dy = torch.randn_like(x)
        torch.manual_seed(seed)
        y, dx, _ = judged(twin, x, dy)
        torch.manual_seed(seed)
        assert torch.equal(ours(x), y) and torch.equal(ours.backward(dy), dx)


def test_dropout_keeps_the_mean_and_spreads():
    """At p = 0.2: with p = 0.5 the two shares could be exchanged."""
    ones = torch.ones(400, 500)
    y = Dropout(0.2)(ones)
    assert abs(y.mean() - 1) < 0.01 and abs(y.var() - 0.25) < 0.01 and abs((y == 0).float().mean() - 0.2) < 0.01
    module = Dropout(0.2)
    assert not torch.equal(module(ones), module(ones))
    for p in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"Dropout: expected p in \[0, 1\], got {p}"):
            Dropout(p)


def test_dropout_of_half_is_the_default_and_of_nothing_draws_nothing():
    assert Dropout().p == nn.Dropout().p == 0.5
    state = torch.get_rng_state()
    Dropout(0)(torch.ones(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_linear_refuses():
    with pytest.raises(ValueError, match=r"Linear\(2, 25\): expected an input of shape \(\*, 2\), got \(100, 3\)"):
        Linear(2, 25)(torch.rand(100, 3))
    with pytest.raises(ValueError, match="got \\(\\)"):
        Linear(2, 25)(torch.tensor(1.0))
    with pytest.raises(TypeError, match="expected an input of dtype torch.float32, got torch.float64"):
        Linear(2, 25)(torch.rand(100, 2, dtype=F64))
    for sides in ((0, 2), (2, -1)):
        with pytest.raises(ValueError, match="at least one feature"):
            Linear(*sides)


@pytest.mark.parametrize("n", range(1, 200, 3))
def test_initial_weights_are_pytorchs(n):
    torch.manual_seed(n)
    ours = Linear(n, 4)
    torch.manual_seed(n)
    twin = nn.Linear(n, 4)
    assert torch.equal(ours.weight, twin.weight) and torch.equal(ours.bias, twin.bias)


def test_chain_is_a_list():
    a, b, c = ReLU(), Tanh(), Sigmoid()
    chain = Sequential(a, b)
    assert chain.append(c) is chain and len(chain) == 3 and list(chain) == [a, b, c]
    assert chain[-1] is c and list(chain[:2]) == [a, b] and isinstance(chain[:2], Sequential)
    assert chain.pop() is c and chain.pop(0) is a and list(chain) == [b]
    with pytest.raises(ValueError, match="expected each module once, got one Tanh as '0' and '1'"):
        chain.append(b)
    with pytest.raises(ValueError, match="as '0' and '1.0'"):
        Sequential(b, Sequential(b))
    with pytest.raises(TypeError, match="Sequential: expected modules, got type"):
        Sequential(ReLU)
    assert list(chain) == [b]


def test_modules_that_would_never_learn_are_refused():
    class Holds(minidl.Module):
        def __init__(self, part):
            self.held = part

    for held, where in (
        ([Linear(2, 2)], "Linear in a list, a dict or beside the layers"),
        ({"a": Linear(2, 2)}, "Linear in a list, a dict or beside the layers"),
        (minidl.Part(), "Part as a child"),
    ):
        with pytest.raises(TypeError, match=f"Holds: expected modules, .*, got a {where}"):
            list(Holds(held).parameters())


def test_a_wrong_state_loads_nothing():
    model = Sequential(Linear(2, 3), Linear(3, 1))
    good, before = model.state_dict(), [p.clone() for p in model.parameters()]
    for name, bad in {
        "'1.bias'": {k: v + 1 for k, v in good.items() if k != "1.bias"},
        "'2.bias'": {k: v + 1 for k, v in good.items()} | {"2.bias": torch.ones(1)},
        "'1.weight'": {k: v + 1 for k, v in good.items()} | {"1.weight": torch.ones(3, 1)},
        "'2.bias' of shape none, got int": {k: v + 1 for k, v in good.items()} | {"2.bias": 3},
        "'2.bias' of shape none, got NoneType": {k: v + 1 for k, v in good.items()} | {"2.bias": None},
    }.items():
        with pytest.raises(ValueError, match=name):
            model.load_state_dict(bad)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


def test_to_keeps_the_tensors_and_their_gradients():
    model = Sequential(Linear(2, 3), ReLU())
    model.backward(torch.ones_like(model(torch.ones(4, 2))))
    kept = list(model.parameters())
    assert model.to(F64) is model
    assert all(p is k and p.dtype == p.grad.dtype == F64 for p, k in zip(model.parameters(), kept))
    with pytest.raises(TypeError, match="expected a floating dtype, got torch.int64"):
        model.to(torch.int64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_to_a_gpu_and_back():
    model = Sequential(Linear(2, 3), Tanh(), Linear(3, 1))
    x = torch.randn(4, 2)
    y = model(x)
    on_gpu = model.to("cuda")(x.cuda())
    assert on_gpu.is_cuda and model.backward(torch.ones_like(on_gpu)).is_cuda
    torch.testing.assert_close(on_gpu.cpu(), y)
    assert not any(p.is_cuda or p.grad.is_cuda for p in model.to("cpu").parameters())


def test_modes_go_down_the_tree():
    model = Sequential(ReLU(), Sequential(Tanh()))
    assert model.eval() is model and not model[1][0].training
    assert model.train()[1][0].training


class Shift(Module):
    """A student's module: two plain methods, no super().__init__()."""

    parameter_names = ("by",)

    def __init__(self):
        self.by = torch.zeros(3)
        self.inner = Tanh()

    def forward(self, x):
        return self.inner(x + self.by)

    def backward(self, dy):
        dx = self.inner.backward(dy)
        self.accumulate("by", dx.sum(0))
        return dx


class Gate(Module):
    """y = x sigmoid(linear(x)); its backward reads what a child kept."""

    def __init__(self, features):
        self.linear, self.sigmoid = Linear(features, features), Sigmoid()

    def forward(self, x):
        self.kept = x
        return x * self.sigmoid(self.linear(x))

    def backward(self, dy):
        y = self.sigmoid.kept
        return dy * y + self.linear.backward(self.sigmoid.backward(dy * self.kept))


class First(Linear):
    """The first output of a linear layer, as a column: both methods call their parent's."""

    asked = 0

    def check_input(self, x):
        self.asked += 1
        super().check_input(x)

    def forward(self, x):
        return super().forward(x)[..., :1]

    def backward(self, dy, input_grad=True):
        rest = dy.new_zeros(*dy.shape[:-1], self.out_features - 1)
        return super().backward(torch.cat([dy, rest], -1), input_grad)


class Twice(First):
    """Two calls of super() deep, and without `input_grad`."""

    def forward(self, x):
        return 2 * super().forward(x)

    def backward(self, dy):
        return super().backward(2 * dy)


OWN = {"Shift": Shift, "Gate": lambda: Gate(3), "First": lambda: First(3, 2), "Twice": lambda: Twice(3, 2)}


@pytest.mark.parametrize("name", OWN)
def test_own_modules_have_every_check(name):
    module, x = OWN[name]().to(F64), torch.randn(4, 3, dtype=F64)
    gradcheck(module, x)
    gradcheck(Sequential(module, Tanh()), x)
    module = OWN[name]().to(F64)
    with pytest.raises(RuntimeError, match=f"{ORDER}"):
        module.backward(torch.ones(4, 3, dtype=F64))
    with pytest.raises(TypeError, match="got ndarray"):
        module(np.ones((4, 3)))
    with pytest.raises(TypeError, match="got torch.int64"):
        module(x.long())
    y = module(x.clone().requires_grad_())
    assert not y.requires_grad and module.output_shape == y.shape and module.output_dtype == F64
    with pytest.raises(ValueError, match="expected dy of shape"):
        module.backward(torch.ones(5, dtype=F64))
    with pytest.raises(TypeError, match="expected dy of dtype"):
        module.backward(torch.ones_like(y).float())
    assert module.backward(torch.ones_like(y), input_grad=False) is None
    with pytest.raises(RuntimeError, match=f"{ORDER}"):
        module.backward(torch.ones_like(y))


@pytest.mark.parametrize("make", [First, Twice])
def test_super_is_free_of_checks(make):
    """The outermost method has checked: the parent's is not asked again, and may give another shape."""
    module, x = make(3, 2), torch.randn(4, 3)
    assert module(x).shape == module.output_shape == (4, 1) and module.asked == 1
    assert module.backward(torch.ones(4, 1)).shape == (4, 3)
    with pytest.raises(ValueError, match=r"expected an input of shape \(\*, 3\), got \(4, 2\)"):
        module(x[:, :2])


def test_own_modules_are_named_and_copied():
    module = Shift()
    assert [n for n, _ in module.named_parameters()] == ["by"]
    with pytest.raises(AttributeError):
        module.weigth
    copied = copy.deepcopy(module)
    assert copied.by is not module.by and torch.equal(copied.by, module.by)


def test_a_chain_lets_go_of_what_its_layers_kept():
    inner = Sequential(Linear(4, 4), ReLU(), Gate(4))
    chain, x = Sequential(Linear(3, 4), Tanh(), inner, Dropout(0.5)), torch.randn(5, 3)
    layers = [*chain, *inner]
    for _ in range(2):
        dy = torch.ones_like(chain(x))
        assert all(m.kept is not None for m in layers if m is not inner)
        chain.backward(dy)
        assert all(m.kept is None and not m.waiting for m in layers)
    for part in (chain, *layers):
        with pytest.raises(RuntimeError, match=ORDER):
            part.backward(dy)


def test_parts_make_a_chain_and_add_up_their_gradients():
    """Chapter 03a's: no checks, no names; parameters are a list, and a chain may hold a chain."""

    class Scale(Part):
        parameter_names = ("by",)

        def __init__(self, by):
            self.by = torch.tensor(by, dtype=F64)

        def forward(self, x):
            self.kept = x
            return self.by * x

        def backward(self, dy):
            self.accumulate("by", (dy * self.kept).sum())
            return dy * self.by

    a, b, c = Scale(2.0), Scale(3.0), Scale(5.0)
    chain, x = Chain(a, Chain(b, c)), torch.randn(4, dtype=F64)
    assert torch.allclose(chain(x), 30 * x) and [p.item() for p in chain.parameters()] == [2, 3, 5]
    assert [name for name, _ in chain.named_children()] == ["0", "1"]
    gradcheck(chain, x)
    for _ in range(2):  # a second backward is a sum
        chain(x)
        assert torch.allclose(chain.backward(torch.ones_like(x)), torch.full_like(x, 30))
    assert torch.allclose(a.by.grad, 2 * 15 * x.sum())
    chain.zero_grad()
    assert all(p.grad is None for p in chain.parameters())
    with pytest.raises(NotImplementedError, match="Part: expected a forward"):
        Part()(x)
    with pytest.raises(NotImplementedError, match="Part: expected a backward"):
        Part().backward(x)


def test_a_module_without_its_methods_says_so():
    class Empty(Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty: expected a forward"):
        Empty()(torch.ones(1))
    with pytest.raises(NotImplementedError, match="Empty: expected a backward"):
        Empty().backward(torch.ones(1))


def test_public_names():
    assert minidl.__version__
    assert all(hasattr(minidl, name) for name in minidl.__all__)


def test_a_name_may_be_any():
    class Odd(minidl.Module):
        parameter_names = ("X",)

        def __init__(self):
            self.X = torch.ones(2)

    assert list(Odd().state_dict()) == ["X"]
    assert list(Sequential(Odd()).state_dict()) == ["0.X"]
