"""A stack of networks is its networks: each replica computes, learns, stops, restarts and diverges as if alone."""

import copy
import itertools
import math

import pytest
import torch
from test_modules import F64, MODULES, mlp
from torch import nn

import minidl
import minidl.train as train
from minidl import (
    SGD,
    Adam,
    AdamW,
    BCELoss,
    BCEWithLogitsLoss,
    CosineAnnealingLR,
    CrossEntropyLoss,
    Dropout,
    EarlyStopping,
    History,
    L1Loss,
    Linear,
    MSELoss,
    ReLU,
    RestartWhenStuck,
    Sequential,
    Statistics,
    Tanh,
    accuracy,
    circle,
    clip_grad_norm_,
    error_rate,
    fit,
    gradcheck,
    load,
    one_hot,
    predict,
    save,
    stack,
    standardize,
    summary,
    unstack,
)

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
    criterion = criterion(replicas=bool(model.replicas))
    generator = generator or torch.Generator().manual_seed(1)
    return fit(model, criterion, make(model.parameters()), data, epochs=epochs, generator=generator, **options)


def close(a, b, atol=1e-12):
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
        own = r if has_axis else slice(None)
        close(single(x if shared else x[r]), y[own])
        close(single.backward(dy[own]), dx[own])
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
    for wrong in (torch.randn(2, dtype=F64), torch.randn(R + 1, 4, 2, dtype=F64), torch.randn(4, 3, dtype=F64)):
        with pytest.raises(ValueError, match=r"Linear\(2, 6\): expected an input of shape \(3, \*, 2\), got"):
            stacked(wrong)


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
def test_unstack_gives_the_networks_back(dtype):
    singles = networks(dtype=dtype)
    stacked = stack(singles)
    assert stacked.replicas == R and repr(stacked) == repr(singles[0])
    assert all(m.replicas == R for _, m in stacked.named_modules())
    for ours, single in zip(unstack(stacked), singles, strict=True):
        assert ours.replicas is None and torch.equal(ours(X.to(dtype)), single(X.to(dtype)))
        assert list(ours.state_dict()) == list(single.state_dict())
    unstack(stacked)[1][0].weight.fill_(7)  # a view
    assert (stacked[0].weight[1] == 7).all() and not (stacked[0].weight[0] == 7).any()
    assert not (singles[1][0].weight == 7).any()  # a copy
    again = stack(unstack(stacked))
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), stacked.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="expected forward before backward"):
        stacked.backward(torch.ones(R, 4, 2, dtype=dtype))
    assert stacked[1:].replicas == R and stacked.to(torch.float32)[0].weight.dtype == torch.float32


def test_what_cannot_be_stacked_is_refused():
    for models, rule in (
        ([], "stack: expected at least one network, got none"),
        ([network(0), network(0, ReLU)], "stack: expected networks like number 0, got another structure as number 1"),
        ([network(0), network(0, width=5)], "number 1"),
        ([network(0), network(0, dtype=torch.float32)], "number 1"),
        ([stack(networks())], "stack: expected single networks, got a stack of 3 as number 0"),
    ):
        with pytest.raises(ValueError, match=rule):
            stack(models)
    with pytest.raises(ValueError, match="unstack: expected a stack, got a single network"):
        unstack(network(0))


@pytest.mark.parametrize("loss", [MSELoss, L1Loss, BCELoss, BCEWithLogitsLoss, CrossEntropyLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(R,), (R, 4), (R, 4, 2), (R, 4, 2, 5)], ids=str)
def test_losses(loss, reduction, shape):
    output = torch.rand(shape, dtype=F64) * 0.9 + 0.05
    if loss is CrossEntropyLoss and len(shape) == 1:
        pytest.skip("no axis of classes")
    targets = [torch.rand(shape, dtype=F64), torch.rand(shape[1:], dtype=F64)]
    if loss is CrossEntropyLoss:
        axis = min(len(shape) - 1, 2)
        places = shape[:axis] + shape[axis + 1 :]
        targets += [torch.randint(shape[axis], places), torch.randint(shape[axis], places[1:])]
    for target in targets:
        together, alone = loss(reduction, replicas=True), loss(reduction)
        value = together(output, target)
        gradient = together.backward()
        own = (
            target.shape[:1] == (R,)
            and target.dim() == (targets[0] if target.is_floating_point() else targets[2]).dim()
        )
        assert value.shape == (R,) and gradient.shape == output.shape
        for r in range(R):
            close(alone(output[r], target[r] if own else target), value[r])
            close(alone.backward(), gradient[r])
    with pytest.raises(ValueError, match="expected a target of shape"):
        together(output, torch.rand(*shape, 1, dtype=F64))


RULES = {
    "SGD": (SGD, dict(lr=0.1)),
    "SGD with a rate each": (SGD, dict(lr=torch.tensor([0.1, 0.0, 0.3]))),
    "momentum each": (SGD, dict(lr=0.05, momentum=torch.tensor([0.9, 0.0, 0.5]), dampening=0.2)),
    "nesterov each": (
        SGD,
        dict(lr=torch.tensor([0.1, 0.2, 0.3]), momentum=torch.tensor([0.9, 0.1, 0.5]), nesterov=True),
    ),
    "decay each": (SGD, dict(lr=0.1, momentum=0.5, weight_decay=torch.tensor([0.0, 0.1, 0.01]))),
    "Adam": (Adam, dict(lr=0.01)),
    "Adam with a rate each": (
        Adam,
        dict(lr=torch.tensor([0.1, 0.0, 0.01]), weight_decay=torch.tensor([0.0, 0.1, 0.2])),
    ),
    "AdamW with a rate each": (AdamW, dict(lr=torch.tensor([0.1, 0.0, 0.01]), weight_decay=0.1)),
    "AdamW with a decay each": (AdamW, dict(lr=0.01, weight_decay=torch.tensor([0.0, 0.1, 0.2]))),
}
rules = pytest.mark.parametrize("name", RULES)


def one(options, r):
    """The rules of replica r."""
    return {k: v[r].item() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


@rules
def test_optimizers(name):
    """100 steps of a stack are those of its networks, with a number for each where a number is a tensor."""
    make, options = RULES[name]
    options = {k: v.to(F64) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    stacked, singles = stack(networks()), networks()
    history = learn(stacked, lambda ps: make(ps, **options), 25)
    for r, single in enumerate(singles):
        alone = learn(single, lambda ps, r=r: make(ps, **one(options, r)), 25)
        close(torch.stack(history.step_loss)[:, r], torch.tensor(alone.step_loss, dtype=F64))
        close(torch.stack(history.metric)[:, r], torch.tensor(alone.metric, dtype=F64))
    assert len(history.step_loss) == 100
    same(stacked, singles)


@pytest.mark.parametrize(
    "arguments, rule",
    [
        (dict(lr=torch.tensor([0.1, -0.1, 0.1])), "SGD: expected lr >= 0, got tensor"),
        (
            dict(lr=torch.tensor([0.1, 0.2])),
            r"SGD: expected lr of shape \(R,\) for parameters .*, got \(2,\) for \[\(3,\)\]",
        ),
        (dict(lr=0.1, momentum=torch.tensor([0.0, 0.1, 0.1]), nesterov=True), "nesterov with momentum > 0"),
    ],
    ids=str,
)
def test_bad_numbers_of_replicas(arguments, rule):
    with pytest.raises(ValueError, match=rule):
        SGD(stack(networks()).parameters(), **arguments)


@pytest.mark.parametrize("own_x, own_t", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("orders", [False, True])
def test_fit_deals_to_each_what_it_would_get_alone(own_x, own_t, orders):
    g = torch.Generator().manual_seed(3)
    xs, ts = torch.randn(R, 70, 2, dtype=F64, generator=g), torch.rand(R, 70, 2, dtype=F64, generator=g)
    x, t = xs if own_x else xs[0], ts if own_t else ts[0]
    stacked, singles = stack(networks()), networks()
    seeds = range(R) if orders else [1] * R
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    validation = (x[..., :30, :], t[..., :30, :])
    history = learn(
        stacked,
        lambda ps: SGD(ps, 0.1),
        data=(x, t),
        generator=generators if orders else generators[0],
        validation=validation,
    )
    for r, single in enumerate(singles):
        alone_x, alone_t = xs[r if own_x else 0], ts[r if own_t else 0]
        g = torch.Generator().manual_seed(seeds[r])
        alone = learn(
            single,
            lambda ps: SGD(ps, 0.1),
            data=(alone_x, alone_t),
            generator=g,
            validation=(alone_x[:30], alone_t[:30]),
        )
        for name in ("step_loss", "loss", "metric", "validation_loss", "validation_metric"):
            close(torch.stack(getattr(history, name))[:, r], torch.tensor(getattr(alone, name), dtype=F64))
    same(stacked, singles)
    close(predict(stacked, x, 33)[2], predict(singles[2], xs[2] if own_x else x, 33))


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
    stopping = EarlyStopping(patience=3)
    make = lambda ps: SGD(ps, rate)  # noqa: E731
    history = learn(stacked, make, 60, callbacks=[stopping], validation=VALID)
    lengths = set()
    for r, single in enumerate(singles):
        rule = EarlyStopping(patience=3)
        alone = learn(single, lambda ps, r=r: SGD(ps, rate[r].item()), 60, callbacks=[rule], validation=VALID)
        seen = torch.stack(history.validation_loss)[:, r]
        assert seen.isfinite().sum() == len(alone) and seen[len(alone) :].isnan().all()
        assert history.stopped[r] == alone.stopped
        close(stopping.best[r], rule.best)
        lengths.add(len(alone))
    assert len(lengths) == R and min(lengths) < len(history)
    same(stacked, singles)
    assert "replicas stopped" in repr(history)


def test_a_replica_that_diverges_is_left_as_it_was_before_that_step():
    rate = torch.tensor([0.1, 1e9, 0.2])
    for make in (lambda ps, lr: SGD(ps, lr, momentum=0.5), Adam, lambda ps, lr: AdamW(ps, lr, weight_decay=1.0)):
        stacked, singles = stack(networks(bend=ReLU)), networks(bend=ReLU)
        for p in stacked.parameters():
            p[1] *= 1e150  # for Adam, whose steps are bounded
        broken = [p[1].clone() for p in stacked.parameters()]
        optimizer = make(stacked.parameters(), rate)
        criterion = MSELoss(replicas=True)
        g = torch.Generator().manual_seed(1)
        history = fit(stacked, criterion, optimizer, (X, T), epochs=4, batch_size=30, generator=g, progress=False)
        for r in (0, 2):
            learn(singles[r], lambda ps, r=r: make(ps, rate[r].item()), 4)
            for p, q in zip(unstack(stacked)[r].parameters(), singles[r].parameters()):
                close(p, q)
        assert history.stopped[1] == "a loss that is not finite in epoch 1, batch 1"
        assert history.stopped[0] == history.stopped[2] == ""
        assert all(torch.equal(p[1], q) for p, q in zip(stacked.parameters(), broken))
        assert torch.stack(history.loss)[:, 1].isnan().all() and torch.stack(history.loss)[:, 0].isfinite().all()
        assert all(t.isfinite().all() for (name, _), t in optimizer.all_tensors() if name)
        assert optimizer.frozen.tolist() == [1]
        more = fit(stacked, criterion, optimizer, (X, T), epochs=1, batch_size=30, generator=g, progress=False)
        assert all(torch.equal(p[1], q) for p, q in zip(stacked.parameters(), broken))
        assert more.loss[0].isfinite().tolist() == [True, False, True]


def test_when_all_have_ended_the_training_ends():
    stacked = stack(networks())
    history = learn(stacked, lambda ps: SGD(ps, 1e200), 50)
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

    class RestartOne(RestartWhenStuck):
        def on_epoch_end(self, run):
            if run.epoch == 3:
                metric = run.history.metric[-1]
                run.history.metric[-1] = torch.tensor([0.0, 1.0, 0.0]) if run.model.replicas else 1.0
                super().on_epoch_end(run)
                run.history.metric[-1] = metric

    def init(model):
        for p, q in zip(model.parameters(), network(9).parameters(), strict=True):
            p.copy_(q)

    stacked, singles = stack(networks()), networks()
    rule = RestartOne(init, tolerance=1e9)
    learn(stacked, make, 6, callbacks=[rule])
    assert rule.restarts.tolist() == [0, 1, 0]
    for r, single in enumerate(singles):
        learn(single, make, 6, callbacks=[RestartOne(init, tolerance=1e9)] if r == 1 else [])
    same(stacked, singles)


def test_restarts_of_the_stuck():
    def zero(model):
        for p in model.parameters():
            p.zero_()

    singles = networks()
    zero(singles[1])  # a network of zeros learns its last bias only
    stacked = stack(singles)
    rule = RestartWhenStuck(lambda m: m.load_state_dict(network(7).state_dict()), tolerance=0.05, error=0.4)
    learn(stacked, lambda ps: SGD(ps, 0.2), 10, callbacks=[rule])
    assert rule.restarts[1] >= 1 and stacked[0].weight[1].any()


def test_clipping_is_alone():
    stacked, singles = stack(networks()), networks()
    for model in (stacked, *singles):
        model.backward(torch.ones_like(model(X)))
    norms = clip_grad_norm_(stacked.parameters(), 20.0, replicas=True)
    for r, single in enumerate(singles):
        close(clip_grad_norm_(single.parameters(), 20.0), norms[r])
        for p, q in zip(stacked.parameters(), single.parameters()):
            close(p.grad[r], q.grad)
    assert norms.shape == (R,)


def test_metrics_and_statistics():
    output, label = torch.randn(R, 20, 2), torch.randint(2, (R, 20))
    for target, each in (
        (label, label),
        (one_hot(label), label),
        (label[0], label[:1].expand(R, 20)),
        (one_hot(label[0]), None),
    ):
        found = error_rate(output, target)
        each = label[:1].expand(R, 20) if each is None else each
        assert found.tolist() == [error_rate(o, t) for o, t in zip(output, each)]
        assert accuracy(output, target).tolist() == (1 - found).tolist()
    with pytest.raises(ValueError, match="error_rate: expected classes"):
        error_rate(output, label[:, :5])
    looking, model = Statistics(), stack(networks())
    learn(model, lambda ps: SGD(ps, 0.1), 2, callbacks=[looking])
    assert looking.gradients["0.bias"][-1].shape == looking.activations["4"][-1].shape == (R,)
    assert f"{3 * sum(p.numel() for p in network(0).parameters())}" in summary(model)


def test_dropout_tosses_for_each():
    stacked = stack([Sequential(Dropout(0.5), Linear(2, 2)) for _ in range(R)])
    x = torch.ones(50, 2)
    stacked(x)
    masks = stacked[0].factor
    assert masks.shape == (R, 50, 2) and not torch.equal(masks[0], masks[1])
    assert stacked.eval()(x).shape == (R, 50, 2)


class StopAt:
    """Ends replica 0 after two epochs, replica 1 after five."""

    epochs = 0

    def on_epoch_end(self, run):
        self.epochs += 1
        return torch.tensor([2, 5, 99]) == self.epochs

    def state_dict(self):
        return vars(self)

    def load_state_dict(self, state):
        vars(self).update(state)


@pytest.mark.parametrize(
    "make", [lambda ps: SGD(ps, 0.2, momentum=0.9), lambda ps: Adam(ps, torch.tensor([0.1, 0.01, 0.03]))]
)
def test_checkpoints(make, tmp_path):
    """Six epochs, saved after three, are six epochs: with generators, stopping and replicas that have ended."""

    def parts():
        model = stack(networks())
        return model, make(model.parameters()), [torch.Generator().manual_seed(r) for r in range(R)], [StopAt()]

    def go_on(parts, epochs):
        model, optimizer, generators, callbacks = parts
        return fit(
            *(model, MSELoss(replicas=True), optimizer, (X, T)),
            **dict(epochs=epochs, batch_size=30, generator=generators, callbacks=callbacks, progress=False),
            validation=VALID,
        )

    whole, first, second = parts(), parts(), parts()
    history = go_on(whole, 12)
    half, before = go_on(first, 4), History()
    assert half.stopped == ["callback", "", ""]
    save(tmp_path / "half.pt", first[0], first[1], half, first[2], first[3])
    load(tmp_path / "half.pt", second[0], second[1], before, second[2], second[3])
    rest = go_on(second, 12 - 4)
    assert rest.stopped == ["", "callback", ""] and history.stopped == ["callback", "callback", ""]
    joined = torch.stack(before.loss + rest.loss)
    torch.testing.assert_close(joined, torch.stack(history.loss)[: len(joined)], rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(p, q) for p, q in zip(whole[0].parameters(), second[0].parameters(), strict=True))


def test_fit_refuses_what_does_not_fit():
    stacked, single = stack(networks()), network(0)
    optimizer = SGD(stacked.parameters(), 0.1)
    for arguments, error, rule in (
        ((stacked, MSELoss(), optimizer), ValueError, "fit: expected a criterion with replicas = True, got False"),
        ((single, MSELoss(replicas=True), optimizer), ValueError, "criterion with replicas = False, got True"),
        (
            (stacked, MSELoss(replicas=True), torch.optim.SGD(stacked.parameters(), 0.1)),
            TypeError,
            "fit: expected an optimizer of minidl for a stack, got SGD",
        ),
    ):
        with pytest.raises(error, match=rule):
            fit(*arguments, (X, T), epochs=1, batch_size=10)
    with pytest.raises(ValueError, match="fit: expected a generator for each replica, 3, got 2"):
        learn(stacked, lambda ps: SGD(ps, 0.1), generator=[torch.Generator()] * 2)
    assert all(p.grad is None for p in stacked.parameters())


def test_what_outlives_a_step_is_an_ordinary_tensor():
    """Inference mode stays inside fit: stepping by hand, changing gradients and memory in place, works afterwards."""
    for model, make in itertools.product(
        (network(0), stack(networks())), (lambda ps: SGD(ps, 0.1, momentum=0.9, weight_decay=0.1), Adam, AdamW)
    ):
        model, criterion = copy.deepcopy(model), MSELoss(replicas=bool(model.replicas))
        optimizer, stopping = make(model.parameters()), EarlyStopping(9)
        history = fit(
            model,
            criterion,
            optimizer,
            (X, T),
            epochs=2,
            batch_size=30,
            progress=False,
            validation=VALID,
            callbacks=[stopping],
        )
        kept = [t for name in optimizer.memory_names for t in getattr(optimizer, name).values()]
        tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *kept, *stopping.state.values()]
        tensors += [*history.step_loss, *history.loss, *history.validation_loss]
        assert not any(t.is_inference() for t in tensors if isinstance(t, torch.Tensor))
        for hand in (optimizer, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)):
            for _ in range(2):
                criterion(model(X), T)
                model.backward(criterion.backward())  # adds in front of what fit left
                hand.step()
        clip_grad_norm_(model.parameters(), 1e-3)


def test_on_a_gpu_losses_are_read_once_an_epoch(monkeypatch):
    """Here the CPU plays the GPU: between two epochs nothing is read, and the numbers are the same."""
    reads = []
    item = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda self: reads.append(1) or item(self))

    class Between:
        def on_batch_end(self, run):
            self.seen = getattr(self, "seen", []) + [len(reads)]

    for build in (lambda: network(0), lambda: stack(networks())):
        now, late, between = build(), build(), Between()
        here = learn(now, lambda ps: SGD(ps, 0.1, momentum=0.5))
        with monkeypatch.context() as patch:
            patch.setattr(train, "_reads_late", lambda x: True)
            there = learn(late, lambda ps: SGD(ps, 0.1, momentum=0.5), callbacks=[between])
        for epoch in zip(*[iter(between.seen)] * 4):
            assert len(set(epoch)) == 1
        assert torch.equal(torch.as_tensor(here.step_loss[0]), torch.as_tensor(there.step_loss[0]))
        assert list(map(str, here.step_loss)) == list(map(str, there.step_loss))
        assert list(map(str, here.loss)) == list(map(str, there.loss))
        assert all(torch.equal(p, q) for p, q in zip(now.parameters(), late.parameters(), strict=True))


def test_on_a_gpu_a_bad_epoch_is_undone(monkeypatch):
    monkeypatch.setattr(train, "_reads_late", lambda x: True)

    class Spoil:
        def on_batch_end(self, run):
            if run.epoch == 2 and run.batch == 2:
                run.model[0].weight[..., 0, 0] = math.nan

        def on_epoch_end(self, run):
            self.state = copy.deepcopy(run.model.state_dict())

    spoil, model = Spoil(), network(0)
    with pytest.raises(RuntimeError, match="expected a finite loss, got nan in epoch 2, batch 3") as error:
        learn(model, lambda ps: SGD(ps, 0.1, momentum=0.5), callbacks=[spoil])
    assert len(error.value.history) == 1
    assert all(torch.equal(p, spoil.state[name]) for name, p in model.state_dict().items())

    class SpoilOne(Spoil):
        def on_batch_end(self, run):
            if run.epoch == 2 and run.batch == 2:
                run.model[0].weight[1, 0, 0] = math.nan

        def on_epoch_end(self, run):
            if run.epoch == 1:
                super().on_epoch_end(run)

    spoil, stacked, singles = SpoilOne(), stack(networks()), networks()
    history = learn(stacked, lambda ps: Adam(ps, 0.01), 4, callbacks=[spoil])
    assert history.stopped == ["", "a loss that is not finite in epoch 2", ""]
    assert all(torch.equal(p[1], spoil.state[name][1]) for name, p in stacked.state_dict().items())
    for r in (0, 2):
        learn(singles[r], lambda ps: Adam(ps, 0.01), 4)
        for p, q in zip(unstack(stacked)[r].parameters(), singles[r].parameters()):
            close(p, q)


@pytest.mark.parametrize("replicas", [False, True])
@pytest.mark.parametrize("loss", [MSELoss, L1Loss, BCELoss, BCEWithLogitsLoss, CrossEntropyLoss])
@pytest.mark.parametrize("make", [lambda ps: SGD(ps, 0.1, momentum=0.9, nesterov=True), Adam, AdamW])
def test_a_step_never_waits_for_the_device(replicas, loss, make):
    """Tensors on the device "meta" have no values: whatever looks at one, as a hidden wait on a GPU does, fails."""
    torch.manual_seed(0)
    bends = (minidl.ReLU, minidl.Tanh, minidl.Sigmoid, minidl.ELU, minidl.SELU, minidl.LeakyReLU)
    model = Sequential(Linear(2, 5), *(bend() for bend in bends), Dropout(0.1), Linear(5, 2), minidl.Sigmoid())
    model = stack([model, copy.deepcopy(model)]) if replicas else model
    model = copy.deepcopy(model, {id(p): p.to("meta") for p in model.parameters()})
    x, t = torch.empty(7, 2, device="meta"), torch.empty(7, 2, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        x.sum().item()
    optimizer, criterion = make(model.parameters()), loss(replicas=replicas)
    for _ in range(2):
        optimizer.zero_grad()
        value = criterion(model(x), t)
        model.backward(criterion.backward(), input_grad=False)
        optimizer.step()
    assert value.shape == ((2,) if replicas else ())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("replicas", [False, True])
def test_trains_on_a_gpu(replicas):
    def build():
        return stack(networks()) if replicas else network(0)

    here, there = build(), build().to("cuda")
    learn(here, lambda ps: Adam(ps, 0.01))
    torch.cuda.set_sync_debug_mode("default")
    history = learn(there, lambda ps: Adam(ps, 0.01), data=(X.cuda(), T.cuda()))
    for p, q in zip(here.parameters(), there.parameters()):
        close(p, q.cpu(), 1e-9)
    assert len(history) == 5
    optimizer, criterion = Adam(there.parameters(), 0.01), MSELoss(replicas=replicas)
    x, t = X.cuda(), T.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            optimizer.zero_grad()
            criterion(there(x), t)
            there.backward(criterion.backward(), input_grad=False)
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_schedule_keeps_the_ratio_of_rates():
    model, rates = stack(networks()), torch.tensor([0.1, 0.2, 0.4])
    optimizer = SGD(model.parameters(), rates)
    fit(
        *(model, MSELoss(replicas=True), optimizer, (X, T)),
        **dict(epochs=3, batch_size=60, callbacks=[CosineAnnealingLR(6)], progress=False),
    )
    close(optimizer.lr, rates.double() / 2, 1e-7)


def test_a_stack_of_torchs_linear_agrees_with_vmap():
    stacked = stack(networks())
    base = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).to(F64)
    params = {name: p for name, p in stacked.state_dict().items()}

    def loss(params, x, t):
        return nn.functional.mse_loss(torch.func.functional_call(base, params, (x,)), t)

    grads, values = torch.func.vmap(torch.func.grad_and_value(loss), in_dims=(0, None, None))(params, X, T)
    criterion = MSELoss(replicas=True)
    close(criterion(stacked(X), T), values.detach())
    stacked.backward(criterion.backward())
    for name, p in stacked.named_parameters():
        close(p.grad, grads[name])


def test_mlp_of_other_tests_nests():
    torch.manual_seed(0)
    stacked = stack([mlp(minidl, Sequential).to(F64) for _ in range(R)])
    gradcheck(stacked, torch.randn(R, 4, 3, dtype=F64))
    assert stacked[2].replicas == R
