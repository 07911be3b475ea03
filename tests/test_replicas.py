"""A stack of networks is its networks: each replica computes, learns, stops, restarts and diverges as if alone."""

import itertools
import math
import signal
import types

import pytest
import torch
from test_modules import F64, MODULES, mlp
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
    Callback,
    ClipGradNorm,
    Copies,
    CosineAnnealingLR,
    CrossEntropyLoss,
    Dropout,
    Each,
    EarlyStopping,
    L1Loss,
    LeakyReLU,
    Linear,
    Module,
    MSELoss,
    ReLU,
    RestartWhenStuck,
    Sequential,
    Sigmoid,
    Statistics,
    StepLR,
    Tanh,
    accuracy,
    circle,
    clip_grad_norm_,
    each,
    error_rate,
    fit,
    gradcheck,
    load,
    measure_each,
    one_hot,
    own,
    predict,
    predict_each,
    save,
    stack,
    standardize,
    summary,
    unstack,
)
from minidl.replicas import EachRule, StackHistory, replicas

R = 3
X, LABEL = circle(120, torch.Generator().manual_seed(0))
X, T = standardize(X).to(F64), one_hot(LABEL).to(F64)
VALID = circle(60, torch.Generator().manual_seed(5))
VALID = VALID[0].to(F64) * 3 - 1.5, one_hot(VALID[1]).to(F64)


def network(seed, bend=Tanh, width=6, dtype=F64):
    torch.manual_seed(seed)
    return Sequential(Linear(2, width), bend(), Linear(width, width), bend(), Linear(width, 2)).to(dtype)


def networks(seeds=range(R), **options):
    return [network(seed, **options) for seed in seeds]


def learn(model, make, epochs=5, data=(X, T), criterion=MSELoss, generator=None, **options):
    """Train a network or a stack; the history."""
    options = dict(batch_size=30, progress=False) | options
    generator = generator or torch.Generator().manual_seed(1)
    return fit(model, criterion(), make(model.parameters()), data, epochs=epochs, generator=generator, **options)


def column(values, r):
    """What replica r has in each of a list of tensors (R,)."""
    return torch.stack(values)[:, r]


def close(a, b, atol=1e-12):
    if isinstance(a, torch.Tensor):
        b = torch.as_tensor(b, dtype=a.dtype)
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


def same(stacked, singles, atol=1e-12):
    """Every parameter of every replica is that of the single network."""
    for ours, single in zip(unstack(stacked), singles, strict=True):
        for p, q in zip(ours.parameters(), single.parameters(), strict=True):
            close(p, q, atol)


@pytest.mark.parametrize("name", [n for n in MODULES if n != "empty Sequential"])
@pytest.mark.parametrize("shared", [True, False])
def test_modules(name, shared):
    """Outputs, gradients and input gradients are those of the networks; the stack passes gradcheck itself."""
    singles = []
    for seed in range(R):
        torch.manual_seed(seed)
        singles.append(MODULES[name][0]().to(F64))
    stacked = stack(singles)
    x = torch.randn(4, 3, dtype=F64) if shared else torch.randn(R, 4, 3, dtype=F64)
    y = stacked(x)
    dy = torch.randn_like(y)
    dx = stacked.backward(dy)
    has_axis = y.dim() == 3  # nothing tells an activation of shared rows that it is a stack's
    for r, single in enumerate(singles):
        at = r if has_axis else slice(None)
        close(single(x if shared else x[r]), y[at])
        close(single.backward(dy[at]), dx[at])
        for p, q in zip(stacked.parameters(), single.parameters(), strict=True):
            assert p.shape == (R, *q.shape)
            close(p.grad[r], q.grad)
    if not shared:
        gradcheck(stacked, x)


def test_rows_may_have_more_axes():
    stacked = stack(networks())
    x = torch.randn(R, 5, 4, 2, dtype=F64)
    y = stacked(x)
    dx = stacked.backward(y)
    assert y.shape == (R, 5, 4, 2) and dx.shape == x.shape
    for r, single in enumerate(networks()):
        close(single(x[r]), y[r])
    for shape, rule in (((2,), r"\(3, \*, 2\) or \(N, 2\)"), ((R + 1, 4, 2), r"\(3, \*, 2\)"), ((4, 3), r"\(\*, 2\)")):
        with pytest.raises(ValueError, match=rf"Linear\(2, 6\): expected an input of shape {rule}.*, got"):
            stacked(torch.randn(shape, dtype=F64))


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
def test_unstack_gives_the_networks_back(dtype):
    singles = networks(dtype=dtype)
    stacked = stack(singles)
    assert replicas(stacked) == R and replicas(singles[0]) is None
    assert repr(stacked) == repr(singles[0]).replace("Linear", "StackedLinear")
    assert all(m.replicas == R for _, m in stacked.named_modules())
    for ours, single in zip(unstack(stacked), singles, strict=True):
        assert replicas(ours) is None and repr(ours) == repr(single)
        assert torch.equal(ours(X.to(dtype)), single(X.to(dtype)))
        assert list(ours.state_dict()) == list(single.state_dict())
    unstack(stacked)[1][0].weight.fill_(7)  # a view
    assert (stacked[0].weight[1] == 7).all() and not (stacked[0].weight[0] == 7).any()
    assert not (singles[1][0].weight == 7).any()  # a copy
    again = stack(unstack(stacked))
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), stacked.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="expected a forward before each backward, got none"):
        stacked.backward(torch.ones(R, 4, 2, dtype=dtype))
    assert stacked.to(torch.float32)[0].weight.dtype == torch.float32


def test_a_piece_of_a_stack_is_of_as_many_networks():
    stacked, singles = stack(networks()), networks()
    piece, h = stacked[2:], torch.randn(R, 4, 6, dtype=F64)
    assert replicas(stacked[2]) == R
    for r, single in enumerate(singles):
        close(predict_each(piece, h)[r], predict(single[2:], h[r]))
    assert replicas(piece) == R
    for ours, single in zip(unstack(piece), singles, strict=True):
        close(ours(h[0]), single[2:](h[0]))


class Scale(Module):
    """y = factor * x."""

    def __init__(self, factor):
        self.factor = factor

    def forward(self, x):
        return x * self.factor

    def backward(self, dy):
        return dy * self.factor


class Gain(Module):
    """y = gain * x, with a parameter."""

    parameter_names = ("gain",)

    def __init__(self):
        self.gain = torch.ones(2)

    def forward(self, x):
        self.kept = x
        return x * self.gain

    def backward(self, dy):
        self.accumulate("gain", (dy * self.kept).sum(0))
        return dy * self.gain


class Shift(Module):
    """y = x + a constant tensor."""

    def __init__(self):
        self.by = torch.ones(2)

    def forward(self, x):
        return x + self.by

    def backward(self, dy):
        return dy


class Masked(Linear):
    """A user's own subclass of what the table has."""


def test_what_cannot_be_stacked_is_refused():
    for models, rule in (
        ([], "stack: expected at least one network, got none"),
        ([network(0), network(0, ReLU)], "stack: expected networks like number 0, got another structure as number 1"),
        ([network(0), network(0, width=5)], "number 1"),
        ([network(0), network(0, dtype=torch.float32)], "number 1"),
        ([network(0), network(0).eval()], "number 1"),
        ([stack(networks())], "stack: expected single networks, got a stack of 3 as number 0"),
    ):
        with pytest.raises(ValueError, match=rule):
            stack(models)
    with pytest.raises(ValueError, match="unstack: expected a stack, got a single network"):
        unstack(network(0))


def test_a_stack_refuses_numbers_and_modes_that_differ_inside():
    """Nothing of a module that is no parameter may be that of network 0 for all."""
    models = [Sequential(Dropout(0.5), Linear(2, 2)) for _ in range(2)]
    models[1][0].eval()
    for pair in (models, [Sequential(Scale(1.0)), Sequential(Scale(2.0))]):
        with pytest.raises(ValueError, match="stack: expected networks like number 0, got another structure"):
            stack(pair)


@pytest.mark.parametrize("build", [Gain, Shift, lambda: Masked(2, 2)])
def test_a_class_with_tensors_that_the_table_does_not_have_is_refused(build):
    name = type(build()).__name__
    with pytest.raises(TypeError, match=f"stack: expected classes of .*Linear.*, or without tensors, got {name}"):
        stack([Sequential(build(), Linear(2, 2)) for _ in range(R)])


def test_a_class_without_tensors_is_taken_as_it_is():
    singles = [Sequential(Linear(2, 4), Scale(3.0), Linear(4, 2)).to(F64) for _ in range(R)]
    stacked = stack(singles)
    learn(stacked, lambda ps: SGD(ps, 0.1))
    for single in singles:
        learn(single, lambda ps: SGD(ps, 0.1))
    same(stacked, singles)


def test_a_network_with_outputs_that_are_nan_does_not_stop_the_others():
    """Its loss is nan; the others' outputs are still checked."""
    output, target = torch.full((3, 4, 2), 0.5), torch.ones(4, 2)
    output[1, 2, 0] = torch.nan
    losses = Each(BCELoss(), shared=True)(output, target)
    assert losses.isnan().tolist() == [False, True, False]
    assert Each(BCELoss(), shared=True)(output[1:2], target).isnan().all()
    output[2, 0, 0] = 1.5
    with pytest.raises(ValueError, match="BCELoss: expected outputs in"):
        Each(BCELoss(), shared=True)(output, target)


@pytest.mark.parametrize("loss", [MSELoss, L1Loss, BCELoss, BCEWithLogitsLoss, CrossEntropyLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(R, 4), (R, 4, 2), (R, 4, 2, 5), (R, R, 2), (R, R, R), (R, R)], ids=str)
def test_losses(loss, reduction, shape):
    """R losses, of a target that is shared or of their own, as said: R rows, or R classes, confuse nobody."""
    output = torch.rand(shape, dtype=F64) * 0.9 + 0.05
    if loss is CrossEntropyLoss and len(shape) == 2:
        pytest.skip("no axis of classes")
    targets = [torch.rand(shape, dtype=F64)]
    if loss is CrossEntropyLoss:
        targets += [torch.randint(shape[2], shape[:2] + shape[3:])]
    for target, shared in itertools.product(targets, [False, True]):
        target = target[0] if shared else target
        together, alone = Each(loss(reduction), shared), loss(reduction)
        value = together(output, target)
        gradient = together.backward()
        assert value.shape == (R,) and gradient.shape == output.shape
        for r in range(R):
            close(alone(output[r], target if shared else target[r]), value[r])
            close(alone.backward(), gradient[r])
        with pytest.raises(RuntimeError, match="expected a forward before each backward"):
            together.backward()
        with pytest.raises(ValueError, match="expected a target of shape"):
            together(output, torch.rand(*shape[shared:], 1, dtype=F64))
        with pytest.raises(ValueError, match="Each: expected a target of 3 networks and as many rows, got"):
            together(output, target[: -1 if shared else None, :0] if len(shape) > 3 else target[:-1])


def test_a_loss_of_each_needs_rows():
    for criterion in (MSELoss(), BCELoss()):
        with pytest.raises(ValueError, match="Each: expected a target of 3 networks and as many rows, got"):
            Each(criterion)(torch.rand(R), torch.rand(R))


RULES = {
    "SGD": (SGD, dict(lr=0.1)),
    "momentum": (SGD, dict(lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01)),
    "SGD with a rate each": (SGD, dict(lr=torch.tensor([0.1, 0.0, 0.3]))),
    "momentum each": (SGD, dict(lr=0.05, momentum=torch.tensor([0.9, 0.0, 0.5]), dampening=0.2)),
    "nesterov each": (
        SGD,
        dict(lr=torch.tensor([0.1, 0.2, 0.3]), momentum=torch.tensor([0.9, 0.1, 0.5]), nesterov=True),
    ),
    "decay each": (SGD, dict(lr=0.1, momentum=0.5, weight_decay=torch.tensor([0.0, 0.1, 0.01]))),
    "Adam": (Adam, dict(lr=0.01)),
    "AdamW": (AdamW, dict(lr=0.01)),
    "Adam with a rate each": (
        Adam,
        dict(lr=torch.tensor([0.1, 0.0, 0.01]), weight_decay=torch.tensor([0.0, 0.1, 0.2])),
    ),
    "AdamW with a rate each": (AdamW, dict(lr=torch.tensor([0.1, 0.0, 0.01]), weight_decay=0.1)),
    "AdamW with a decay each": (AdamW, dict(lr=0.01, weight_decay=torch.tensor([0.0, 0.1, 0.2]))),
}
rules = pytest.mark.parametrize("name", RULES)


def made(kind, **options):
    """From parameters an optimiser of a stack: plain where all numbers are common."""
    several = any(isinstance(value, torch.Tensor) for value in options.values())
    return lambda ps: (each(kind) if several else kind)(ps, **options)


def one(options, r):
    """The rules of replica r."""
    return {k: v[r].item() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


@rules
def test_optimizers(name):
    """100 steps of a stack are those of its networks, with a number for each where a number is a tensor."""
    make, options = RULES[name]
    options = {k: v.to(F64) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    stacked, singles = stack(networks()), networks()
    history = learn(stacked, made(make, **options), 25)
    for r, single in enumerate(singles):
        alone = learn(single, lambda ps, r=r: make(ps, **one(options, r)), 25)
        close(column(history.step_loss, r), torch.tensor(alone.step_loss, dtype=F64))
        close(column(history.metric, r), torch.tensor(alone.metric, dtype=F64))
    assert len(history.step_loss) == 100
    same(stacked, singles)


@pytest.mark.parametrize(
    "kind, arguments, rule",
    [
        (SGD, dict(lr=torch.tensor([0.1, -0.1, 0.1])), "EachSGD: expected 0 <= lr < inf, got"),
        (SGD, dict(lr=torch.tensor([0.1, math.nan, 0.1])), "EachSGD: expected 0 <= lr < inf, got"),
        (SGD, dict(lr=torch.tensor([0.1, math.inf, 0.1])), "EachSGD: expected 0 <= lr < inf, got"),
        (
            SGD,
            dict(lr=torch.tensor([0.1, 0.2])),
            r"EachSGD: expected lr of shape \(R,\) for parameters .*, got \(2,\) for \[\(3,\)\]",
        ),
        (SGD, dict(lr=0.1, momentum=torch.tensor([0.0, 0.1, 0.1]), nesterov=True), "nesterov with momentum > 0"),
        (AdamW, dict(weight_decay=torch.tensor([0.1, -0.1, 0.1])), "EachAdamW: expected 0 <= weight_decay < inf"),
    ],
)
def test_bad_numbers_of_replicas(kind, arguments, rule):
    with pytest.raises(ValueError, match=rule):
        each(kind)(stack(networks()).parameters(), **arguments)


@pytest.mark.parametrize("kind, name", [(Adam, "eps"), (Adam, "betas"), (SGD, "dampening")])
def test_other_numbers_are_common_to_all(kind, name):
    """`eps` of shape (R,), for one, would be added along the last axis of a weight (R, out, R)."""
    value = torch.tensor([0.1, 0.2, 0.3])
    with pytest.raises(ValueError):
        each(kind)(stack(networks()).parameters(), lr=0.1, **{name: (value, 0.9) if name == "betas" else value})


@pytest.mark.parametrize("kind, name", [(SGD, "lr"), (SGD, "momentum"), (Adam, "weight_decay"), (AdamW, "lr")])
def test_a_plain_optimizer_refuses_several_numbers(kind, name):
    for model in (stack(networks()), network(0)):
        with pytest.raises(ValueError, match=f"{kind.__name__}: expected one number as {name}, got tensor"):
            kind(model.parameters(), **{"lr": 0.1} | {name: torch.tensor([0.1, 0.2, 0.3])})
        assert kind(model.parameters(), **{"lr": 0.1} | {name: torch.tensor([0.25])}).state_dict()[name] == 0.25


def test_which_optimizers_each_has():
    for kind in (SGD, Adam, AdamW):
        assert issubclass(each(kind), (kind, EachRule)) and each(each(kind)) is each(kind)
    for other in (torch.optim.SGD, type("Mine", (SGD,), {})):
        with pytest.raises(TypeError, match=f"each: expected one of .*'AdamW'.*, got {other.__name__}"):
            each(other)


@pytest.mark.parametrize("mine", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("orders", [False, True], ids=["one order", "orders"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("rows", [70, R])
def test_fit_deals_to_each_what_it_would_get_alone(mine, orders, shuffle, rows):
    """Data are shared unless `own` says otherwise, also where there are as many rows as networks."""
    g = torch.Generator().manual_seed(3)
    xs, ts = torch.randn(R, rows, 2, dtype=F64, generator=g), torch.rand(R, rows, 2, dtype=F64, generator=g)
    stacked, singles = stack(networks()), networks()
    seeds = range(R) if orders else [1] * R
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    history = learn(
        stacked,
        lambda ps: SGD(ps, 0.1),
        data=own(xs, ts) if mine else (xs[0], ts[0]),
        generator=generators if orders else generators[0],
        validation=own(xs[:, :30], ts[:, :30]) if mine else (xs[0, :30], ts[0, :30]),
        shuffle=shuffle,
    )
    for r, single in enumerate(singles):
        x, t = (xs[r], ts[r]) if mine else (xs[0], ts[0])
        g = torch.Generator().manual_seed(seeds[r])
        options = dict(data=(x, t), generator=g, validation=(x[:30], t[:30]), shuffle=shuffle)
        alone = learn(single, lambda ps: SGD(ps, 0.1), **options)
        for name in ("step_loss", "loss", "metric", "validation_loss", "validation_metric"):
            close(column(getattr(history, name), r), torch.tensor(getattr(alone, name), dtype=F64))
    same(stacked, singles)
    found = predict_each(stacked, xs if mine else xs[0], 33)
    for r, single in enumerate(singles):
        close(found[r], predict(single, xs[r] if mine else xs[0], 33))


@pytest.mark.parametrize("train_own, validation_own", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("labels", [False, True])
def test_training_and_validation_are_shared_or_own_each_for_itself(train_own, validation_own, labels):
    """With R rows to validate by, and R classes: no shape says which axis is that of the networks."""
    g = torch.Generator().manual_seed(3)
    xs, label = torch.randn(R, 20 + R, 2, dtype=F64, generator=g), torch.randint(R, (R, 20 + R), generator=g)
    ts = label if labels else one_hot(label, R).to(F64)
    seeds = range(R)

    def build(seed):
        torch.manual_seed(seed)
        return Sequential(Linear(2, 4), Tanh(), Linear(4, R)).to(F64)

    def pair(rows, mine, r=None):
        x, t = xs[:, rows], ts[:, rows]
        if r is None:
            return own(x, t) if mine else (x[0], t[0])
        return (x[r], t[r]) if mine else (x[0], t[0])

    stacked = stack(map(build, seeds))
    first, last = slice(20), slice(20, None)
    options = dict(criterion=CrossEntropyLoss if labels else MSELoss, metric=error_rate)
    make = lambda ps: SGD(ps, 0.1)  # noqa: E731
    history = learn(
        *(stacked, make),
        data=pair(first, train_own),
        validation=pair(last, validation_own),
        **options,
    )
    for r in seeds:
        single = build(r)
        alone = learn(
            *(single, make),
            data=pair(first, train_own, r),
            validation=pair(last, validation_own, r),
            **options,
        )
        for name in ("loss", "metric", "validation_loss", "validation_metric"):
            close(column(getattr(history, name), r), torch.tensor(getattr(alone, name), dtype=F64))
        for p, q in zip(unstack(stacked)[r].parameters(), single.parameters(), strict=True):
            close(p, q)


@pytest.mark.parametrize("rows", [20, R])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("orders", [False, True])
@pytest.mark.parametrize("which", ["train", "validation"])
def test_data_with_an_axis_of_networks_must_be_said_to_be_their_own(rows, labels, orders, which):
    """Not said, they are refused before anything is changed, whatever the sizes."""
    x = torch.randn(R, rows, 2, dtype=F64)
    t = torch.randint(2, (R, rows)) if labels else torch.rand(R, rows, 2, dtype=F64)
    stacked = stack(networks())
    before = stacked.state_dict()
    before = {name: p.clone() for name, p in before.items()}
    criterion = CrossEntropyLoss if labels else MSELoss
    shared = (X, LABEL if labels else T)
    data, validation = ((x, t), None) if which == "train" else (shared, (x, t))
    orders = [torch.Generator().manual_seed(r) for r in range(R)] if orders else None
    with pytest.raises(ValueError, match="expected a target of"):
        learn(
            *(stacked, lambda ps: SGD(ps, 0.1)),
            **dict(data=data, validation=validation, criterion=criterion, generator=orders),
        )
    assert all(torch.equal(p, before[name]) for name, p in stacked.state_dict().items())


def test_own_refuses_what_does_not_belong_together():
    x, t = X[:20].expand(R, 20, 2), T[:20].expand(R, 20, 2)
    for wrong in ((x, t[:, :19]), (x, t[:2]), (x[:2], t), (x, LABEL[:R])):
        with pytest.raises(ValueError, match="own: expected x and t with the same networks and rows, got"):
            own(*wrong)
    stacked = stack(networks())
    for count, which in itertools.product((2, 4), ("data", "validation")):
        pair = own(X[:20].expand(count, 20, 2), T[:20].expand(count, 20, 2))
        with pytest.raises(ValueError, match=f"fit: expected data of 3 networks, got {count}"):
            learn(stacked, lambda ps: SGD(ps, 0.1), **{which: pair})
    with pytest.raises(ValueError, match="batches: expected at least one row"):
        learn(stacked, lambda ps: SGD(ps, 0.1), data=own(x[:, :0], t[:, :0]))


def test_predictions():
    stacked, singles = stack(networks()), networks()
    x = torch.randn(R, 5, 4, 2, dtype=F64)
    for size in (1000, 2, 3):
        found = predict_each(stacked, x, size)
        assert found.shape == (R, 5, 4, 2)
        for r, single in enumerate(singles):
            close(found[r], single(x[r]))
            close(predict_each(stacked, x[0, 0], size)[r], single(x[0, 0]))
    assert all(m.kept is None and m.training for _, m in stacked.named_modules())
    for wrong in ((X[:0],), (x[:, :0],), (X, 0)):
        with pytest.raises(ValueError):
            predict_each(stacked, *wrong)
    tossing = stack([Sequential(Dropout(0.9), Linear(2, 2)) for _ in range(R)])
    assert torch.equal(predict_each(tossing, X.float()), predict_each(tossing, X.float(), 7))


@pytest.mark.parametrize("bend", [ReLU, Tanh])
def test_report_002_and_003_over_whole_trainings(bend):
    """500 epochs of 002's networks, rate 0.1, and 003's with its tanh at the end: to 1e-8 in double precision."""
    for last in ([], [Tanh]):

        def build(seed, last=last):
            torch.manual_seed(seed)
            layers = [Linear(2, 25), bend(), Linear(25, 25), bend(), Linear(25, 25), bend(), Linear(25, 2)]
            return Sequential(*layers, *(m() for m in last)).to(F64)

        stacked, singles = stack(map(build, range(2))), [build(seed) for seed in range(2)]
        for model in (stacked, *singles):
            learn(model, lambda ps: SGD(ps, 0.1), 500)
        same(stacked, singles, 1e-8)


def test_early_stopping_stops_each_alone():
    stacked, singles, rate = stack(networks()), networks(), torch.tensor([1.0, 0.2, 0.5])
    stopping = Copies(EarlyStopping(patience=3), R)
    make = lambda ps: each(SGD)(ps, rate)  # noqa: E731
    history = learn(stacked, make, 60, callbacks=[stopping], validation=VALID)
    lengths = set()
    for r, single in enumerate(singles):
        rule = EarlyStopping(patience=3)
        alone = learn(single, lambda ps, r=r: SGD(ps, rate[r].item()), 60, callbacks=[rule], validation=VALID)
        for name in ("loss", "metric", "validation_loss", "validation_metric"):
            seen = column(getattr(history, name), r)
            assert seen.isfinite().sum() == len(alone) and seen[len(alone) :].isnan().all()
            close(seen[: len(alone)], torch.tensor(getattr(alone, name), dtype=F64))
        assert history.stopped[r] == alone.stopped
        close(stopping[r].best, rule.best)
        assert stopping[r].waited == rule.waited
        lengths.add(len(alone))
    assert len(lengths) == R and min(lengths) < len(history)
    same(stacked, singles)
    ended = sum(map(bool, history.stopped))
    assert isinstance(history, StackHistory) and f"{ended} of 3 networks stopped" in repr(history)


def test_after_the_end_step_losses_are_nan_too():
    history = learn(stack(networks()), lambda ps: SGD(ps, 0.1), 4, callbacks=[Copies(StopAt([2, 3, 99]), R)])
    assert history.stopped == ["callback"] * 2 + [""]
    for r, steps in enumerate((8, 12, 16)):
        seen = column(history.step_loss, r)
        assert seen[:steps].isfinite().all() and seen[steps:].isnan().all()
    rate = torch.tensor([0.1, 1e30, 0.1])
    history = learn(stack(networks(bend=ReLU)), lambda ps: each(SGD)(ps, rate.double() ** 10), 1)
    assert column(history.step_loss, 1).isfinite().tolist() == [True, False, False, False]


def test_the_best_model_comes_back_at_every_way_out():
    """The epochs run out, a network diverges, or Ctrl-C: each has its best parameters, as alone."""

    class CtrlC:
        whole = True

        def on_batch_end(self, run):
            if run.epoch == 5 and run.batch == 2:
                signal.raise_signal(signal.SIGINT)

    rates = torch.tensor([1.0, 0.2, 1e9])
    for patience, others, word in ((50, [], ""), (2, [], "callback"), (50, [CtrlC()], "Ctrl-C")):
        stacked, singles = stack(networks(bend=ReLU)), networks(bend=ReLU)
        options = dict(epochs=9, validation=VALID)
        history = learn(
            *(stacked, lambda ps: each(SGD)(ps, rates, momentum=0.9)),
            **(options | dict(callbacks=[EarlyStopping(patience), *others])),
        )
        for r, single in enumerate(singles):
            make = lambda ps, r=r: SGD(ps, rates[r].item(), momentum=0.9)  # noqa: E731
            try:
                ended = learn(single, make, callbacks=[EarlyStopping(patience), *others], **options).stopped
            except RuntimeError:
                ended = "a loss that is not finite"
            assert history.stopped[r].startswith(ended) and bool(history.stopped[r]) == bool(ended)
        same(stacked, singles)
        assert word in history.stopped and (patience == 2 or "not finite" in history.stopped[2])


@pytest.mark.parametrize("patience", [3, 100])
def test_a_second_training_begins_anew(patience):
    """After early stopping, or an end by the epochs: all train again, with callbacks that have forgotten the first."""
    stacked, singles = stack(networks()), networks()
    rules = [Copies(EarlyStopping(patience), R), Copies(StepLR(2, 0.5), R)]
    optimizer = SGD(stacked.parameters(), 1.0)
    options = dict(epochs=12, batch_size=30, validation=VALID, progress=False)

    def train(model, optimizer, callbacks):
        g = torch.Generator().manual_seed(1)
        return fit(model, MSELoss(), optimizer, (X, T), generator=g, callbacks=callbacks, **options)

    histories = [train(stacked, optimizer, rules) for _ in range(2)]
    for r, single in enumerate(singles):
        alone, mine = SGD(single.parameters(), 1.0), [EarlyStopping(patience), StepLR(2, 0.5)]
        for history in histories:
            expected = train(single, alone, mine)
            seen = column(history.loss, r)
            close(seen[seen.isfinite()], torch.tensor(expected.loss, dtype=F64))
            assert history.stopped[r] == expected.stopped
    same(stacked, singles)
    for copies in rules:
        assert len(copies) == R


def test_who_was_stopped_once_is_not_stopped_after_a_second_training(tmp_path):
    """What a checkpoint knows of the end of each network is that of the last training."""
    stacked, rule = stack(networks()), Copies(EarlyStopping(1), R)
    learn(stacked, lambda ps: SGD(ps, 0.0), 5, callbacks=[rule], validation=VALID)
    history = learn(stacked, lambda ps: SGD(ps, 0.1), 1, callbacks=[rule], validation=VALID)
    assert history.stopped == [""] * R
    save(tmp_path / "stack.pt", stacked, callbacks=[rule])
    load(tmp_path / "stack.pt", stacked, callbacks=[rule])
    history = learn(stacked, lambda ps: SGD(ps, 0.1), 1, callbacks=[rule], validation=VALID)
    assert history.loss[0].isfinite().all()


def test_a_replica_that_diverges_is_left_as_it_was_before_that_step():
    rate = torch.tensor([0.1, 1e9, 0.2])
    for kind, rules in ((SGD, dict(momentum=0.5)), (Adam, {}), (AdamW, dict(weight_decay=1.0))):
        stacked, singles = stack(networks(bend=ReLU)), networks(bend=ReLU)
        for p in stacked.parameters():
            p[1] *= 1e150  # for Adam, whose steps are bounded
        broken = [p[1].clone() for p in stacked.parameters()]
        optimizer = each(kind)(stacked.parameters(), rate, **rules)
        criterion = MSELoss()
        g = torch.Generator().manual_seed(1)
        history = fit(stacked, criterion, optimizer, (X, T), epochs=4, batch_size=30, generator=g, progress=False)
        for r in (0, 2):
            learn(singles[r], lambda ps, r=r: kind(ps, rate[r].item(), **rules), 4)
            for p, q in zip(unstack(stacked)[r].parameters(), singles[r].parameters()):
                close(p, q)
        assert history.stopped[1] == "a loss that is not finite in epoch 1, batch 1"
        assert history.stopped[0] == history.stopped[2] == ""
        assert all(torch.equal(p[1], q) for p, q in zip(stacked.parameters(), broken))
        assert column(history.loss, 1).isnan().all() and column(history.loss, 0).isfinite().all()
        assert all(t.isfinite().all() for t in optimizer.tensors()[len(optimizer.params) :])
        more = fit(stacked, criterion, optimizer, (X, T), epochs=1, batch_size=30, generator=g, progress=False)
        assert all(torch.equal(p[1], q) for p, q in zip(stacked.parameters(), broken))  # tried again, to the same end
        assert more.loss[0].isfinite().tolist() == [True, False, True] and more.stopped[1] == history.stopped[1]


def test_when_all_have_ended_the_training_ends():
    stacked = stack(networks())
    history = learn(stacked, lambda ps: SGD(ps, 1e200), 50)
    assert all(word.startswith("a loss that is not finite in epoch 1, batch") for word in history.stopped)
    assert len(history) < 50 and all(history.stopped)

    class Stop:
        def on_epoch_end(self, run):
            return run.epoch == 2

    history = learn(stack(networks()), lambda ps: SGD(ps, 0.1), 50, callbacks=[Stop()])
    assert len(history) == 2 and history.stopped == ["callback"] * R


@pytest.mark.parametrize(
    "make",
    [lambda ps: SGD(ps, 0.1, momentum=0.9, dampening=0.5), lambda ps: Adam(ps, 0.05), lambda ps: AdamW(ps, 0.05)],
)
def test_a_restart_is_alone(make):
    """With its own step count: the restarted replica goes on like a network whose optimiser is new."""

    class RestartInEpoch3(RestartWhenStuck):
        on = False

        def on_epoch_end(self, run):
            metric = run.history.metric[-1]
            run.history.metric[-1] = float(run.epoch == 3 and self.on)
            super().on_epoch_end(run)
            run.history.metric[-1] = metric

    def init(model, generator):
        for p in model.parameters():
            p.uniform_(-0.5, 0.5, generator=generator)

    stacked, singles = stack(networks()), networks()
    rule = Copies(RestartInEpoch3(init, tolerance=1e9), R)
    rule[1].on = True
    generators = [torch.Generator().manual_seed(r) for r in range(R)]
    learn(stacked, make, 6, callbacks=[rule], generator=generators)
    assert [c.restarts for c in rule.copies] == [0, 1, 0]
    for r, single in enumerate(singles):
        alone = RestartInEpoch3(init, tolerance=1e9)
        alone.on = r == 1
        learn(single, make, 6, callbacks=[alone], generator=torch.Generator().manual_seed(r))
    same(stacked, singles)


def test_restarts_of_the_stuck():
    """Those in the epochs in which the network alone would be restarted, from the replica's own generator."""

    def zero(model):
        for p in model.parameters():
            p.zero_()

    def init(model, generator):
        for p in model.parameters():
            p.normal_(0, 0.3, generator=generator)

    singles = networks()
    zero(singles[1])  # a network of zeros learns its last bias only
    stacked = stack(singles)
    rule = Copies(RestartWhenStuck(init, tolerance=0.05, error=0.4), R)
    learn(
        *(stacked, lambda ps: SGD(ps, 0.2, momentum=0.5), 10),
        **dict(callbacks=[rule], generator=[torch.Generator().manual_seed(r) for r in range(R)]),
    )
    assert rule[1].restarts >= 1 and stacked[0].weight[1].any()
    for r, single in enumerate(singles):
        alone = RestartWhenStuck(init, tolerance=0.05, error=0.4)
        g = torch.Generator().manual_seed(r)
        learn(single, lambda ps: SGD(ps, 0.2, momentum=0.5), 10, callbacks=[alone], generator=g)
        assert alone.restarts == rule[r].restarts
    same(stacked, singles)


def test_callbacks_are_asked_in_their_order():
    """What a later one does in the epoch in which an earlier one says stop is part of the result, as alone."""

    class Shrink:
        def on_epoch_end(self, run):
            for p in run.model.parameters():
                p.mul_(0.5)

    stacked, singles = stack(networks()), networks()
    learn(stacked, lambda ps: SGD(ps, 0.1), 4, callbacks=[Copies(StopAt([2, 3, 99]), R), Shrink()])
    for single, at in zip(singles, (2, 3, 99)):
        learn(single, lambda ps: SGD(ps, 0.1), 4, callbacks=[StopAt([at]), Shrink()])
    same(stacked, singles)


def test_a_callback_sees_its_own_network_alone():
    """`run` has the network, its data, its generator, its numbers and its history; `whole = True` has the stack's."""
    stacked, seen = stack(networks()).eval(), []
    xs, ts = X[:60].reshape(R, 20, 2), T[:60].reshape(R, 20, 2)
    generators, rates = [torch.Generator().manual_seed(r) for r in range(R)], torch.tensor([0.1, 0.2, 0.4]).to(F64)

    class Look:
        def on_epoch_end(self, run):
            r = generators.index(run.generator)
            assert replicas(run.model) is None and run.model.training
            assert all(torch.equal(p, q[r]) for p, q in zip(run.model.parameters(), stacked.parameters(), strict=True))
            assert all(
                torch.equal(p.grad, q.grad[r])
                for p, q in zip(run.model.parameters(), stacked.parameters(), strict=True)
            )
            assert torch.equal(run.train[0], xs[r]) and torch.equal(run.validation[1], ts[r])
            assert run.optimizer.lr == rates[r].item() and isinstance(run.loss, float)
            assert len(run.history) == run.epoch and all(isinstance(n, float) for n in run.history.step_loss)
            seen.append(r)

    class Whole:
        whole = True

        def on_batch_end(self, run):
            assert run.model is stacked and run.loss.shape == (R,)
            seen.append("batch")

        def on_epoch_end(self, run):
            assert run.history.loss[-1].shape == (R,)

        def on_fit_end(self, run):
            seen.append([p.clone() for p in run.model.parameters()])

    learn(
        *(stacked, lambda ps: each(SGD)(ps, rates), 2),
        **dict(data=own(xs, ts), validation=own(xs, ts), batch_size=10, generator=generators),
        callbacks=[Look(), Whole()],
    )
    *others, at_end = seen
    assert others == ["batch", "batch", 0, 1, 2] * 2
    assert all(torch.equal(p, q) for p, q in zip(at_end, stacked.parameters()))
    assert not stacked.training  # as it was


class GiveUp:
    """Ctrl-C in the middle of the third epoch; at the end, looks at the stack."""

    whole = True

    def on_batch_end(self, run):
        if run.epoch == 3 and run.batch == 2:
            raise KeyboardInterrupt

    def on_fit_end(self, run):
        self.end = [p.clone() for p in run.model.parameters()]


def test_who_has_ended_stays_as_it_was_at_every_way_out():
    """Also where training breaks off in the middle of an epoch, and for a callback of the whole stack."""
    stacked, singles, look = stack(networks()), networks(), GiveUp()
    with pytest.raises(KeyboardInterrupt):
        learn(stacked, lambda ps: SGD(ps, 0.1), 9, callbacks=[look, Copies(StopAt([1, 2, 99]), R)])
    for single, epochs in zip(singles[:2], (1, 2)):
        learn(single, lambda ps: SGD(ps, 0.1), epochs)
    for r in range(2):
        for p, end, q in zip(stacked.parameters(), look.end, singles[r].parameters(), strict=True):
            close(p[r], q)
            close(end[r], q)


def test_clipping_is_alone():
    """Each network's gradients have a length of their own, in a training as in a loop by hand."""
    stacked, singles = stack(networks()), networks()
    learn(stacked, lambda ps: SGD(ps, 0.5, momentum=0.9), callbacks=[ClipGradNorm(0.3)])
    short = 0
    for single in singles:
        rule = ClipGradNorm(0.3)
        learn(single, lambda ps: SGD(ps, 0.5, momentum=0.9), callbacks=[rule])
        short += sum(norm < 0.3 for norm in rule.norms)
    same(stacked, singles)
    assert 0 < short < 20 * R  # some are clipped, others not
    for model in (stacked, *singles):
        model.zero_grad()
        model.backward(torch.ones_like(model(X)))
    views = unstack(stacked)
    for r, single in enumerate(singles):
        for p, q in zip(views[r].parameters(), stacked.parameters(), strict=True):
            p.grad = q.grad[r]
        close(clip_grad_norm_(views[r].parameters(), 20.0), clip_grad_norm_(single.parameters(), 20.0))
        for p, q in zip(stacked.parameters(), single.parameters()):
            close(p.grad[r], q.grad)


def mse(output, target):
    """A metric that is no class's."""
    return (output - target).square().mean()


def test_metrics():
    """R numbers, those of the networks; what has an axis of networks is told by the number of axes alone."""
    for rows, k in ((20, 2), (R, 2), (R, R), (20, 1), (R, 1)):
        output, label = torch.randn(R, rows, k, dtype=F64), torch.randint(max(k, 2), (R, rows))
        spread = torch.rand(R, rows, k, dtype=F64)
        for target in (label, spread) if k > 1 else (label, spread, (spread > 0.5).double()):
            for metric, criterion in itertools.product((error_rate, accuracy), (MSELoss(), BCEWithLogitsLoss())):
                found = measure_each(metric, criterion, output, target)
                shared = measure_each(metric, criterion, output, target[0])
                assert found.dtype == F64 and found.shape == (R,)
                close(found, [metric(o, t, criterion.threshold) for o, t in zip(output, target)])
                close(shared, [metric(o, target[0], criterion.threshold) for o in output])
        close(measure_each(mse, MSELoss(), output, spread), [mse(o, t).item() for o, t in zip(output, spread)])
        close(measure_each(mse, MSELoss(), output, spread[0]), [mse(o, spread[0]).item() for o in output])


@pytest.mark.parametrize("rows", [20, R])
def test_metrics_of_one_number_a_row(rows):
    """Outputs (R, N), of a yes or no."""
    output, target = torch.rand(R, rows, dtype=F64), (torch.rand(R, rows) > 0.5).to(F64)
    for metric in (error_rate, lambda o, t: error_rate(o, t)):
        close(measure_each(metric, BCELoss(), output, target), [error_rate(o, t) for o, t in zip(output, target)])
        close(measure_each(metric, BCELoss(), output, target[0]), [error_rate(o, target[0]) for o in output])


@pytest.mark.parametrize("wrong", [(R, 5), (R, 1), (5,), (1,), (2, 20), (4, 20)], ids=str)
def test_metrics_refuse_another_number_of_targets(wrong):
    for metric in (error_rate, lambda o, t: error_rate(o, t)):
        with pytest.raises(ValueError, match="expected"):
            measure_each(metric, MSELoss(), torch.randn(R, 20, 2), torch.zeros(wrong, dtype=torch.int64))


def test_statistics():
    """Each network's own, plain numbers."""
    looking, stacked = Copies(Statistics(), R), stack(networks())
    learn(stacked, lambda ps: SGD(ps, 0.1), 2, callbacks=[looking])
    for r, single in enumerate(networks()):
        alone = Statistics()
        learn(single, lambda ps: SGD(ps, 0.1), 2, callbacks=[alone])
        for ours, theirs in ((looking[r].gradients, alone.gradients), (looking[r].activations, alone.activations)):
            assert list(ours) == list(theirs)
            for name in ours:
                assert ours[name] == pytest.approx(theirs[name], rel=0, abs=1e-12)
    assert f"{3 * sum(p.numel() for p in network(0).parameters())}" in summary(stacked)


def test_dropout_tosses_for_each():
    stacked = stack([Sequential(Dropout(0.5), Linear(2, 2)) for _ in range(R)])
    x = torch.ones(50, 2)
    stacked(x)
    masks = stacked[0].kept
    assert masks.shape == (R, 50, 2) and not torch.equal(masks[0], masks[1])
    assert stacked.eval()(x).shape == (R, 50, 2)


class StopAt(Callback):
    """Ends the copy of number r after so many epochs, each once in its life."""

    memory = ("epochs", "at")

    def __init__(self, at):
        self.at, self.epochs = list(at), 0

    def __deepcopy__(self, memo):  # each copy takes the next of the epochs
        made = StopAt([self.at.pop(0)]) if len(self.at) > 1 else StopAt(self.at)
        made.epochs, made.loaded = self.epochs, self.loaded
        return made

    def on_epoch_end(self, run):
        self.epochs += 1
        return self.epochs == self.at[0]


KEEPING = {
    "plain": lambda ps: SGD(ps, 0.2, momentum=0.9),
    "each": lambda ps: each(SGD)(ps, 0.2, momentum=torch.tensor([0.9, 0.5, 0.0])),
    "Adam": lambda ps: Adam(ps, 0.03),
    "each Adam": lambda ps: each(Adam)(ps, torch.tensor([0.1, 0.01, 0.03])),
}


@pytest.mark.parametrize("make", KEEPING.values(), ids=KEEPING)
@pytest.mark.parametrize("scheduled", [False, True])
def test_checkpoints(make, scheduled, tmp_path):
    """Twelve epochs, saved after four, are twelve epochs: with generators, stopping and replicas that have ended."""

    def parts():
        model = stack(networks())
        callbacks = [Copies(StopAt([2, 5, 99]), R), Copies(EarlyStopping(90), R)]
        callbacks += [Copies(StepLR(3, 0.5), R)] if scheduled else []
        return model, make(model.parameters()), [torch.Generator().manual_seed(r) for r in range(R)], callbacks

    def go_on(parts, epochs):
        model, optimizer, generators, callbacks = parts
        return fit(
            *(model, MSELoss(), optimizer, (X, T)),
            **dict(epochs=epochs, batch_size=30, generator=generators, callbacks=callbacks, progress=False),
            validation=VALID,
        )

    whole, first, second = parts(), parts(), parts()
    history = go_on(whole, 12)
    half, before = go_on(first, 4), StackHistory()
    assert half.stopped == ["callback", "", ""]
    save(tmp_path / "half.pt", first[0], first[1], half, first[2], first[3])
    load(tmp_path / "half.pt", second[0], second[1], before, second[2], second[3])
    assert before.stopped == half.stopped and len(before) == 4
    rest = go_on(second, 12 - 4)
    assert rest.stopped == ["callback", "callback", ""] == history.stopped
    for name in ("loss", "metric", "validation_loss", "validation_metric"):
        joined = torch.stack(getattr(before, name) + getattr(rest, name))
        expected = torch.stack(getattr(history, name))
        torch.testing.assert_close(joined, expected, rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(p, q) for p, q in zip(whole[0].parameters(), second[0].parameters(), strict=True))


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_checkpoint_right_after_a_restart(kind, tmp_path):
    """Who has just forgotten has forgotten in the file as well."""

    class RestartOne(Callback):
        def on_epoch_end(self, run):
            if run.epoch == 3 and self.on:
                run.optimizer.forget()

    def parts():
        model, rule = stack(networks()), Copies(RestartOne(), R)
        for r in range(R):
            rule[r].on = r == 1
        rules = dict(momentum=0.9) if kind is SGD else {}
        return model, each(kind)(model.parameters(), lr=0.05, **rules), torch.Generator().manual_seed(1), [rule]

    def go_on(parts, epochs):
        model, optimizer, g, callbacks = parts
        options = dict(batch_size=30, generator=g, callbacks=callbacks, progress=False)
        fit(model, MSELoss(), optimizer, (X, T), epochs=epochs, **options)

    whole, first, second = parts(), parts(), parts()
    go_on(whole, 5)
    go_on(first, 3)
    save(tmp_path / "half.pt", first[0], first[1], None, first[2])
    load(tmp_path / "half.pt", second[0], second[1], None, second[2])
    go_on(second, 2)
    assert all(torch.equal(p, q) for p, q in zip(whole[0].parameters(), second[0].parameters(), strict=True))


class EachBatch:
    """Looks at each step, and says nothing of stacks."""

    def on_batch_end(self, run):
        raise AssertionError("asked")


class EachGradient:
    """Looks at each gradient, and says nothing of stacks."""

    def after_backward(self, run):
        raise AssertionError("asked")


def test_fit_refuses_what_does_not_fit():
    stacked = stack(networks())
    with pytest.raises(TypeError, match="fit: expected an optimizer of minidl for a stack, got SGD"):
        learn(stacked, lambda ps: torch.optim.SGD(ps, 0.1))
    for kind in (EachBatch, EachGradient):
        rule = f"fit: expected a callback of .*ClipGradNorm.* whole = True .*, got {kind.__name__}"
        with pytest.raises(TypeError, match=rule):
            learn(stacked, lambda ps: SGD(ps, 0.1), callbacks=[kind()])
        with pytest.raises(TypeError, match=kind.__name__):
            learn(stacked, lambda ps: SGD(ps, 0.1), callbacks=[Copies(kind(), R)])
    for count in (1, 2, 4):
        with pytest.raises(ValueError, match=f"fit: expected a generator for each network, 3, got {count}"):
            learn(stacked, lambda ps: SGD(ps, 0.1), generator=[torch.Generator() for _ in range(count)])
    with pytest.raises(TypeError, match="fit: expected callbacks with any of"):
        learn(stacked, lambda ps: SGD(ps, 0.1), callbacks=[object()])
    with pytest.raises(ValueError, match="fit: expected at least one epoch, got 0"):
        learn(stacked, lambda ps: SGD(ps, 0.1), epochs=0)
    with pytest.raises(ValueError, match="EarlyStopping: expected fit.validation"):
        learn(stacked, lambda ps: SGD(ps, 0.1), callbacks=[EarlyStopping(3)])
    with pytest.raises(ValueError, match=r"expected classes in \[0, 2\), got 0 to 2"):
        wrong = torch.cat([LABEL[:-1], torch.tensor([2])])
        learn(stacked, lambda ps: SGD(ps, 0.1), data=(X, wrong), criterion=CrossEntropyLoss)
    assert all(p.grad is None for p in stacked.parameters())
    same(stacked, networks(), 0)


def test_fit_refuses_a_callback_whose_moment_was_set_by_hand():
    """A namespace has no class that says what it does."""
    seen = []
    callback = types.SimpleNamespace(on_batch_end=seen.append)
    with pytest.raises(TypeError, match="fit: expected a callback of"):
        learn(stack(networks()), lambda ps: SGD(ps, 0.1), callbacks=[callback])
    learn(network(0), lambda ps: SGD(ps, 0.1), 1, callbacks=[callback])
    assert len(seen) == 4


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fit_refuses_another_number_of_copies(count):
    with pytest.raises(ValueError, match="3"):
        learn(
            *(stack(networks()), lambda ps: SGD(ps, 0.1)),
            **dict(validation=VALID, callbacks=[Copies(EarlyStopping(3), count)]),
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("many", [False, True])
def test_trains_on_a_gpu(many):
    def build():
        return stack(networks()) if many else network(0)

    here, there = build(), build().to("cuda")
    learn(here, lambda ps: Adam(ps, 0.01))
    history = learn(there, lambda ps: Adam(ps, 0.01), data=(X.cuda(), T.cuda()))
    for p, q in zip(here.parameters(), there.parameters()):
        close(p, q.cpu(), 1e-9)
    assert len(history) == 5


def test_the_schedule_keeps_the_ratio_of_rates():
    model, rates = stack(networks()), torch.tensor([0.1, 0.2, 0.4])
    optimizer = each(SGD)(model.parameters(), rates)
    fit(
        *(model, MSELoss(), optimizer, (X, T)),
        **dict(epochs=3, batch_size=60, callbacks=[CosineAnnealingLR(6)], progress=False),
    )
    close(torch.Tensor(optimizer.lr.tolist()).double(), rates.double() / 2, 1e-7)
    plain = SGD(model.parameters(), 0.1)  # a schedule may make several numbers of one
    fit(
        *(model, MSELoss(), plain, (X, T)),
        **dict(epochs=4, batch_size=60, callbacks=[Copies(StopAt([2, 3, 99]), R), StepLR(1, 0.5)], progress=False),
    )
    assert plain.lr.tolist() == [0.1 / 4, 0.1 / 8, 0.1 / 16]


# name: networks, (criterion, target of labels), (optimiser, rules); each with every other
BUILDS = {
    "relu, tanh": lambda: [Linear(2, 7), ReLU(), Linear(7, 5), Tanh(), Linear(5, 2)],
    "elu, selu": lambda: [Linear(2, 5), ELU(), Linear(5, 3), SELU(), Linear(3, 2)],
    "no bias": lambda: [Linear(2, 6, bias=False), LeakyReLU(), Sequential(Linear(6, 4), Sigmoid(), Linear(4, 2))],
}
CRITERIA = {
    "MSE": (MSELoss(), lambda label: one_hot(label).to(F64)),
    "cross-entropy": (CrossEntropyLoss(label_smoothing=0.1), lambda label: label),
    "L1, sum": (L1Loss(reduction="sum"), lambda label: one_hot(label).to(F64)),
    "logits": (BCEWithLogitsLoss(), lambda label: one_hot(label).to(F64)),
}
KINDS = {
    "SGD": (SGD, {}, 1.0),
    "momentum": (SGD, dict(momentum=0.9, dampening=0.1, weight_decay=1e-3), 1.0),
    "Adam": (Adam, {}, 0.1),
    "AdamW": (AdamW, {}, 0.1),
}
HABITS = [
    (build, loss, kind, mine)
    for (i, build), (j, loss), (k, kind) in itertools.product(*map(enumerate, (BUILDS, CRITERIA, KINDS)))
    for mine in [bool((i + j + k) % 2)]
    if (i + j) % 3 == k % 3 or kind == "SGD" and i == 0
]


@pytest.mark.parametrize("build, loss, kind, mine", HABITS)
def test_all_habits_at_once(build, loss, kind, mine):
    """Rates of their own, one of them too large; stopping, a schedule, restarts and clipping: each as if alone."""
    (criterion, target), (make, rules, scale) = CRITERIA[loss], KINDS[kind]
    rates = [scale * rate for rate in (0.2, 0.05, 1e4, 0.5)]
    vx, label = circle(100, torch.Generator().manual_seed(9))
    validation = vx.to(F64), target(label)

    def init(model, generator):
        for p in model.parameters():
            p.normal_(0, 0.5, generator=generator)

    def single(r):
        torch.manual_seed(r)
        return Sequential(*BUILDS[build]()).to(F64)

    def data(r):
        x, label = circle(120, torch.Generator().manual_seed(100 + r * mine))
        return x.to(F64), target(label)

    def callbacks():
        return [EarlyStopping(4), StepLR(3, 0.5), RestartWhenStuck(init, 0.02, 0.3)]

    def train(model, optimizer, data, generator, callbacks):
        return fit(
            *(model, criterion, optimizer, data),
            **dict(epochs=10, batch_size=50, validation=validation, generator=generator, progress=False),
            callbacks=[*callbacks, ClipGradNorm(1.0)],
        )

    every = range(len(rates))
    stacked, copies = stack(map(single, every)), [Copies(c, len(rates)) for c in callbacks()]
    history = train(
        *(stacked, each(make)(stacked.parameters(), lr=torch.tensor(rates, dtype=F64), **rules)),
        own(*map(torch.stack, zip(*map(data, every)))) if mine else data(0),
        *([torch.Generator().manual_seed(r) for r in every], copies),
    )
    for r, ours in enumerate(unstack(stacked)):
        alone, rule = single(r), callbacks()
        optimizer, generator = make(alone.parameters(), lr=rates[r], **rules), torch.Generator().manual_seed(r)
        try:
            expected = train(alone, optimizer, data(r), generator, rule)
        except RuntimeError as error:
            expected = error.history
            assert history.stopped[r].startswith("a loss that is not finite")
        else:
            assert history.stopped[r] == expected.stopped
        assert column(history.loss, r).isfinite().sum() == len(expected)
        assert copies[2][r].restarts == rule[2].restarts
        if r != 2:  # at the rate that is too large, the last bit of the first step decides the second
            close(column(history.loss, r)[: len(expected)], torch.tensor(expected.loss, dtype=F64))
            for p, q in zip(ours.parameters(), alone.parameters(), strict=True):
                close(p, q)


def test_a_stack_of_torchs_linear_agrees_with_vmap():
    stacked = stack(networks())
    base = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).to(F64)
    params = {name: p for name, p in stacked.state_dict().items()}

    def loss(params, x, t):
        return nn.functional.mse_loss(torch.func.functional_call(base, params, (x,)), t)

    grads, values = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(0, None, None))(params, X, T)
    criterion = Each(MSELoss(), shared=True)
    close(criterion(stacked(X), T), values.detach())
    stacked.backward(criterion.backward())
    for name, p in stacked.named_parameters():
        close(p.grad, grads[name])


def test_mlp_of_other_tests_nests():
    torch.manual_seed(0)
    stacked = stack([mlp(minidl, Sequential).to(F64) for _ in range(R)])
    gradcheck(stacked, torch.randn(R, 4, 3, dtype=F64))
    assert replicas(stacked[2]) == R


def test_an_error_in_the_first_step_is_not_hidden_by_the_end():
    """There is no loss to show yet when the copies are asked `on_fit_end`."""

    class Fails(MSELoss):
        armed = False

        def losses(self, output, target):
            if self.armed:
                raise MemoryError("no room")
            return super().losses(output, target)

    class Arms:
        asked = 0

        def on_fit_start(self, run):
            criterion.armed = True

        def on_fit_end(self, run):
            Arms.asked += 1

    criterion, models = Fails(), stack([network(seed) for seed in range(R)])
    pair = own(X.expand(R, -1, -1), T.expand(R, -1, -1))
    with pytest.raises(MemoryError, match="no room"):
        fit(models, criterion, SGD(models.parameters(), 0.1), pair, epochs=1, batch_size=60,
            callbacks=[Arms()], progress=False)  # fmt: skip
    assert Arms.asked == R
