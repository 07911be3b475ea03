"""PyTorch's own database as a peer: the inputs, right and wrong, that it tries its modules and optimisers with.

It is private, so it is asked on the pinned version alone. It has every module of minidl's but Dropout and Sequential;
those have their twins in `test_modules.py`.
"""

import re

import pytest
import torch

import chapters
import minidl

PINNED = re.search(r"^torch==(.*)$", (chapters.ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)[1]
if torch.__version__.split("+")[0] != PINNED:
    pytest.skip(f"PyTorch's database is private, and asked on {PINNED} alone", allow_module_level=True)
pytest.importorskip("expecttest", reason="a part of PyTorch's database needs expecttest")

from torch.testing._internal.common_modules import module_db  # noqa: E402
from torch.testing._internal.common_optimizers import optim_db  # noqa: E402

F32, F64 = torch.float32, torch.float64
MODULES = {info.module_cls.__name__: info for info in module_db if hasattr(minidl, info.module_cls.__name__)}
RULES = {info.optim_cls.__name__: info for info in optim_db if hasattr(minidl, info.optim_cls.__name__)}
LOSSES = {name for name in MODULES if name.endswith("Loss")}

# What minidl does not have, and why. A sample with one of these is refused, by name, at construction.
NO_OPTION = {
    "weight": "a weight for each class or entry: no chapter derives it",
    "ignore_index": "rows that do not count: leave them out of the batch",
    "maximize": "turn the sign of the loss",
    "amsgrad": "no chapter derives it",
    "foreach": "a speed of PyTorch's own",
}
NO_VALUE = {"none": "a loss is one number, or there is no gradient to start with"}  # of `reduction`

# To the bit, in values and gradients, as the contract says; else within this many units of the last place, times the
# largest entry: another exponential or another order of a sum.
EXACT = {"Linear", "ReLU", "LeakyReLU", "Sigmoid", "Tanh", "L1Loss", "MSELoss"}
UNITS = 8


def samples(name, dtype, wrong=False):
    """(description, what the constructor gets, what forward gets) of PyTorch's database."""
    info = MODULES[name]
    make = info.module_error_inputs_func if wrong else info.module_inputs_func
    torch.manual_seed(0)
    found = make(info, device="cpu", dtype=dtype, requires_grad=False, training=True) if make else []
    found = [sample.module_error_input if wrong else sample for sample in found]
    return [(s.desc, s.constructor_input, (*s.forward_input.args, *s.forward_input.kwargs.values())) for s in found]


def option_refused(options):
    """Whether minidl lacks one of these options, by the lists above."""
    return bool(set(options) & set(NO_OPTION)) or options.get("reduction") in NO_VALUE


def agree(name, ours, theirs):
    if name in EXACT:
        assert torch.equal(ours, theirs), (ours - theirs).abs().max()
    else:
        limit = UNITS * torch.finfo(theirs.dtype).eps * max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=limit)


CASES = [
    pytest.param(name, dtype, *sample, id=f"{name}-{str(dtype)[6:]}-{i}-{sample[0]}")
    for name in MODULES
    for dtype in (F32, F64)
    for i, sample in enumerate(samples(name, dtype))
]


def test_the_database_has_what_minidl_has():
    known = {n for n in minidl.__all__ if isinstance(getattr(minidl, n), type) and hasattr(torch.nn, n)}
    assert known - set(MODULES) == {"Dropout", "Module", "Sequential"}
    assert set(RULES) == {"SGD", "Adam", "AdamW"}
    assert len(CASES) > 250


@pytest.mark.parametrize("name, dtype, description, made, given", CASES)
def test_modules(name, dtype, description, made, given):
    kind = getattr(minidl, name)
    if option_refused(made.kwargs):
        with pytest.raises((TypeError, ValueError), match="|".join([*NO_OPTION, *map(repr, NO_VALUE)])):
            kind(*made.args, **made.kwargs)
        return
    ours, twin = kind(*made.args, **made.kwargs), getattr(torch.nn, name)(*made.args, **made.kwargs).to(dtype)
    x, *target = given
    leaf = x.clone().requires_grad_()
    wanted = twin(leaf, *target)
    if name in LOSSES:
        wanted.backward()
        agree(name, ours(x, *target), wanted.detach())
        agree(name, ours.backward(), leaf.grad)
        return
    ours.to(dtype).load_state_dict(twin.state_dict())
    dy = torch.randn_like(wanted)
    wanted.backward(dy)
    agree(name, ours(x), wanted.detach())
    agree(name, ours.backward(dy), leaf.grad)
    for p, q in zip(ours.parameters(), twin.parameters(), strict=True):
        agree(name, p.grad, q.grad)


@pytest.mark.parametrize("name, number", [(n, i) for n in MODULES for i in range(len(samples(n, F32, True)))])
def test_wrong_inputs_of_modules(name, number):
    _, made, given = samples(name, F32, True)[number]
    if option_refused(made.kwargs):
        with pytest.raises(TypeError, match=f"{name}.*({'|'.join(NO_OPTION)})"):
            getattr(minidl, name)(**made.kwargs)
        return
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected .*, got "):
        getattr(minidl, name)(*made.args, **made.kwargs)(*given)


def path(make, rules, twin):
    """Where 50 steps on a bowl and a wave go, with gradients missing at times."""
    torch.manual_seed(0)
    params = [torch.randn(2, 3, dtype=F64), torch.randn(3, dtype=F64)]
    optimizer, seen = make([torch.nn.Parameter(p) for p in params] if twin else params, **rules), []
    params = optimizer.param_groups[0]["params"] if twin else params
    for step in range(50):
        for i, p in enumerate(params):
            p.grad = None if step % 4 == 1 and i else (3 * p + torch.sin(3 * p)).detach()
        optimizer.step()
        seen += [p.detach().clone().flatten() for p in params]
    return torch.cat(seen)


@pytest.mark.parametrize("name", RULES)
def test_optimizers(name):
    """To the bit, where minidl has the option; SGD's default rate is PyTorch's alone."""
    tried = 0
    for sample in RULES[name].optim_inputs_func(device="cpu", dtype=F64):
        if set(sample.kwargs) & set(NO_OPTION):
            with pytest.raises(TypeError, match=f"{name}.*({'|'.join(NO_OPTION)})"):
                getattr(minidl, name)([torch.ones(1)], **{"lr": 0.1} | sample.kwargs)
            continue
        rules = ({"lr": 1e-3} if name == "SGD" else {}) | sample.kwargs
        theirs = path(getattr(torch.optim, name), rules, True)
        assert torch.equal(path(getattr(minidl, name), rules, False), theirs), sample.desc
        tried += 1
    assert tried >= 3


@pytest.mark.parametrize("name", RULES)
def test_wrong_inputs_of_optimizers(name):
    """Each is refused at construction, by the name of the class or of the option that is not there."""
    wrong = RULES[name].optim_error_inputs_func(device="cpu", dtype=F32)
    assert len(wrong) >= 7
    for sample in wrong:
        given = sample.optimizer_error_input
        params = [torch.ones(1)] if given.params is None else given.params
        with pytest.raises(
            (TypeError, ValueError), match=rf"^{name}: expected .*, got |__init__\w*\(\) got .* 'foreach'"
        ):
            getattr(minidl, name)(params, **{"lr": 0.1} | given.kwargs)
            pytest.fail(given.desc)


def test_a_wrong_module_disagrees():
    class Tanh(minidl.Tanh):
        def backward(self, dy):
            return dy * (1 - self.kept * self.kept) * (1 + 1e-6)

    (_, made, given), *_ = samples("Tanh", F32)
    x = given[0]
    leaf = x.clone().requires_grad_()
    torch.tanh(leaf).sum().backward()
    module = Tanh()
    with pytest.raises(AssertionError):
        agree("Tanh", module.backward(torch.ones_like(module(x))), leaf.grad)
    with pytest.raises(AssertionError):
        agree("Tanh is not exact", module(x) * (1 + 1e-5), torch.tanh(x))
