"""The callbacks that come with `fit`, checkpoints, and the table of a network."""

import itertools
import math
import os
import subprocess
import sys
import time
import types

import pytest
import torch

from minidl import (
    SGD,
    Adam,
    CosineAnnealingLR,
    EarlyStopping,
    History,
    Linear,
    MSELoss,
    RestartWhenStuck,
    Sequential,
    Statistics,
    StepLR,
    Tanh,
    circle,
    clip_grad_norm_,
    fit,
    load,
    one_hot,
    predict,
    save,
    standardize,
    summary,
)

X, LABEL = circle(150, torch.Generator().manual_seed(0))
X, T = standardize(X), one_hot(LABEL)


def network(seed=0, width=6):
    torch.manual_seed(seed)
    return Sequential(Linear(2, width), Tanh(), Linear(width, 2))


def train(model, optimizer, epochs, callbacks=(), generator=None, **options):
    generator = generator or torch.Generator().manual_seed(1)
    return fit(
        model,
        MSELoss(),
        optimizer,
        (X[:100], T[:100]),
        epochs=epochs,
        batch_size=30,
        generator=generator,
        callbacks=callbacks,
        progress=False,
        **options,
    )


def test_early_stopping_goes_back_to_the_best():
    model, stopping = network(), EarlyStopping(patience=3)
    history = train(model, SGD(model.parameters(), 3.0), 300, [stopping], validation=(X[100:], T[100:]))
    losses = history.validation_loss
    assert history.stopped == "callback" and len(losses) == losses.index(min(losses)) + 4
    assert MSELoss()(predict(model, X[100:]), T[100:]).item() == min(losses) == stopping.best
    with pytest.raises(ValueError, match="patience of at least 1, got 0"):
        EarlyStopping(0)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="EarlyStopping: expected fit.validation=...., got none"):
        train(model, SGD(model.parameters(), 1.0), 1, [EarlyStopping()])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


class Rates:
    """The learning rate of each epoch."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, run):
        if run.batch == 1:
            self.seen.append(run.optimizer.lr)


@pytest.mark.parametrize(
    "make, judge, options",
    [
        (StepLR, torch.optim.lr_scheduler.StepLR, dict(step_size=3)),
        (StepLR, torch.optim.lr_scheduler.StepLR, dict(step_size=2, gamma=0.5)),
        (CosineAnnealingLR, torch.optim.lr_scheduler.CosineAnnealingLR, dict(T_max=9)),
        (CosineAnnealingLR, torch.optim.lr_scheduler.CosineAnnealingLR, dict(T_max=5, eta_min=0.01)),
    ],
    ids=str,
)
def test_schedules_are_pytorchs(make, judge, options):
    model, rates = network(), Rates()
    train(model, SGD(model.parameters(), 0.2), 9, [make(**options), rates])
    theirs = torch.optim.SGD([torch.zeros(1)], 0.2)
    schedule, wanted = judge(theirs, **options), []
    for _ in range(9):
        wanted.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    assert all(math.isclose(a, b, abs_tol=1e-15) for a, b in zip(rates.seen, wanted, strict=True))


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_clipping_is_pytorchs(limit, dtype):
    ours, theirs = network().to(dtype), network().to(dtype)
    for model in (ours, theirs):
        model.backward(torch.ones_like(model(X.to(dtype))))
    theirs.append(Linear(2, 2))  # no gradient there
    norms = [f(m.parameters(), limit) for f, m in ((clip_grad_norm_, ours), (torch.nn.utils.clip_grad_norm_, theirs))]
    assert torch.equal(*norms)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters()))


def test_restarts_when_still_and_wrong():
    def constant(model, value=0.0):
        for p in model.parameters():
            p.fill_(value)

    for tolerance, error, restarts in ((1e-9, 0.4, 0), (0.5, 0.9, 0), (0.5, -1.0, 3)):
        model, rule = network(), RestartWhenStuck(constant, tolerance, error)
        optimizer = SGD(model.parameters(), 0.01, momentum=0.9)
        train(model, optimizer, 4, [rule])
        assert rule.restarts == restarts
        assert (len(optimizer.velocity) == 0) == (restarts == 3)
        assert any(p.any() for p in model.parameters()) == (restarts < 3)


@pytest.mark.parametrize(
    "losses, restarts", [([10.0, 10.05], 1), ([10.0, 10.2], 0), ([0.1, 0.1005], 1), ([0.1, 0.102], 0)]
)
def test_still_is_relative(losses, restarts):
    model, rule = network(), RestartWhenStuck(lambda model: None, tolerance=0.01)
    optimizer, history = SGD(model.parameters(), 0.1), History(losses, [0.5, 0.5])
    rule.on_epoch_end(types.SimpleNamespace(model=model, optimizer=optimizer, history=history))
    assert rule.restarts == restarts


def test_statistics():
    looking, model = Statistics(), network()
    train(model, SGD(model.parameters(), 0.1), 4, [looking])
    assert list(looking.gradients) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(looking.activations) == ["0", "1", "2"]
    assert all(len(seen) == 4 for seen in [*looking.gradients.values(), *looking.activations.values()])
    assert math.isclose(looking.activations["2"][-1], model(X[:100]).square().mean().sqrt().item(), rel_tol=1e-6)
    assert math.isclose(looking.gradients["0.weight"][-1], model[0].weight.grad.square().mean() ** 0.5, rel_tol=1e-6)


def test_summary():
    model = Sequential(Linear(2, 3), Sequential(Tanh(), Linear(3, 2, bias=False)))
    assert "-" in summary(model).splitlines()[1]
    model(X)
    table = summary(model)
    assert repr(table) == str(table)
    assert [line.split()[0] for line in table.splitlines()] == ["name", "0", "1.0", "1.1", "15"]
    assert "(150, 3)" in table and table.splitlines()[1].endswith(" 9")


def parts(make):
    """All that a training consists of, fresh."""
    model = network()
    callbacks = [CosineAnnealingLR(12), EarlyStopping(50), RestartWhenStuck(lambda model: None)]
    return model, make(model.parameters()), torch.Generator().manual_seed(1), callbacks


def go_on(parts, epochs):
    model, optimizer, generator, callbacks = parts
    return train(model, optimizer, epochs, callbacks, generator, validation=(X[100:], T[100:]))


@pytest.mark.parametrize("make", [lambda ps: SGD(ps, 0.5, momentum=0.9), lambda ps: Adam(ps, 0.05)])
def test_a_resumed_training_ends_where_the_whole_one_ends(make, tmp_path):
    whole, first, second = parts(make), parts(make), parts(make)
    steps = go_on(whole, 12).step_loss
    history = go_on(first, 5)
    save(tmp_path / "half.pt", first[0], first[1], history, *first[2:])
    drawn = torch.rand(3)
    go_on(first, 1)  # the checkpoint keeps copies
    before = History()
    load(tmp_path / "half.pt", second[0], second[1], before, *second[2:])
    assert torch.equal(torch.rand(3), drawn)  # the global generator too
    rest = go_on(second, 7)
    assert before == history and before.step_loss + rest.step_loss == steps
    assert all(torch.equal(p, q) for p, q in zip(second[0].parameters(), whole[0].parameters(), strict=True))
    assert second[1].lr == whole[1].lr and second[3][1].best == whole[3][1].best
    assert os.listdir(tmp_path) == ["half.pt"]


def test_a_model_alone(tmp_path):
    model, other = network(0), network(1)
    buffer = torch.randn(1000)
    model[0].bias = buffer[:6]  # a view must not carry its whole buffer
    save(tmp_path / "model.pt", model)
    assert (tmp_path / "model.pt").stat().st_size < 10_000
    load(tmp_path / "model.pt", other)
    assert torch.equal(model(X), other(X))


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path):
    model = network()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    train(model, optimizer, 1)
    save(tmp_path / "bare.pt", model)
    save(tmp_path / "full.pt", model, optimizer, callbacks=[StepLR(3)])
    small = network(width=4)
    mine = SGD(small.parameters(), 7.0)
    before = [p.clone() for p in small.parameters()]
    for path, arguments, rule in (
        ("bare.pt", dict(optimizer=mine), "load: expected a checkpoint with its optimizer, got none"),
        ("bare.pt", dict(history=History()), "with its history"),
        ("bare.pt", dict(generator=torch.Generator()), "with its generator"),
        ("full.pt", dict(), "load: expected 1 callbacks, got 0"),
        (
            "full.pt",
            dict(optimizer=mine, callbacks=[StepLR(3)]),
            r"expected '0.weight' of shape \(4, 2\), got \(6, 2\)",
        ),
    ):
        with pytest.raises(ValueError, match=rule):
            load(tmp_path / path, small, **arguments)
    with pytest.raises(ValueError, match="keys"):
        load(tmp_path / "full.pt", network(), Adam(model.parameters()), callbacks=[StepLR(3)])
    assert mine.lr == 7.0 and all(torch.equal(p, q) for p, q in itertools.zip_longest(small.parameters(), before))


def test_a_killed_save_leaves_the_old_file(tmp_path, monkeypatch):
    save(tmp_path / "model.pt", network(0))
    old = (tmp_path / "model.pt").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "model.pt", network(1))
    assert (tmp_path / "model.pt").read_bytes() == old


def test_a_process_killed_while_saving_leaves_a_whole_file(tmp_path):
    path = tmp_path / "model.pt"
    code = f"import minidl; m = minidl.Linear(500, 500)\nwhile True: minidl.save({str(path)!r}, m)"
    process = subprocess.Popen([sys.executable, "-c", code])
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.3)
    process.kill()
    process.wait()
    load(path, Linear(500, 500))
