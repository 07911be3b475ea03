"""The callbacks that come with `fit`, checkpoints, and the table of a network."""

import itertools
import math
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch

from minidl import (
    SGD,
    Adam,
    Callback,
    ClipGradNorm,
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


def train(model, optimizer, epochs, callbacks=(), generator=None, criterion=None, **options):
    generator = generator or torch.Generator().manual_seed(1)
    return fit(
        model,
        criterion or MSELoss(),
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


class Leave:
    """Ends a training after an epoch, in one of the ways; a bad loss comes in the next step."""

    def __init__(self, way, epoch):
        self.way, self.epoch = way, epoch

    def on_epoch_end(self, run):
        if run.epoch == self.epoch:
            run.criterion.spoil = self.way == "bad loss"
            if self.way == "Ctrl-C":
                signal.raise_signal(signal.SIGINT)
            return self.way == "callback"


class Spoilt(MSELoss):
    """Says nan where it is told to, once."""

    spoil = False

    def losses(self, output, target):
        terms, spoil, self.spoil = super().losses(output, target), self.spoil, False
        return terms * math.nan if spoil else terms


WAYS = ["epochs", "callback", "Ctrl-C", "bad loss"]
HELD = (X[100:], T[100:])


def leave(way, model, optimizer, epoch, callbacks, generator=None):
    """A training that ends after `epoch` epochs, in one of the ways; its history."""
    epochs, callbacks = epoch if way == "epochs" else epoch + 5, [*callbacks, Leave(way, epoch)]
    options = dict(criterion=Spoilt(), validation=HELD, shuffle=False)
    try:
        return train(model, optimizer, epochs, callbacks, generator, **options)
    except RuntimeError as error:
        assert way == "bad loss"
        return error.history


@pytest.mark.parametrize("way", WAYS)
def test_early_stopping_gives_the_best_model_at_every_way_out(way):
    model, stopping = network(), EarlyStopping(50)
    history = leave(way, model, SGD(model.parameters(), 1.5), 12, [stopping])
    losses = history.validation_loss
    assert len(losses) == 12 and min(losses) < losses[-1]  # the last model is another
    assert history.stopped == (way if way in ("callback", "Ctrl-C") else "")
    assert MSELoss()(predict(model, HELD[0]), HELD[1]).item() == min(losses) == stopping.best
    assert type(stopping.best) is float and stopping.waited == 11 - losses.index(min(losses))


def test_early_stopping_gives_the_best_model_after_half_an_epoch():
    class Press:
        def on_batch_end(self, run):
            if run.epoch == 13 and run.batch == 2:
                signal.raise_signal(signal.SIGINT)

    model, stopping = network(), EarlyStopping(50)
    history = train(model, SGD(model.parameters(), 1.5), 20, [stopping, Press()], validation=HELD, shuffle=False)
    losses = history.validation_loss
    assert history.stopped == "Ctrl-C" and len(losses) == 12 and len(history.step_loss) == 50
    assert MSELoss()(predict(model, HELD[0]), HELD[1]).item() == min(losses) < losses[-1]


def test_early_stopping_before_the_first_epoch_has_nothing_to_go_back_to():
    class Spoil:
        def on_fit_start(self, run):
            run.criterion.spoil = True

    model = network()
    before = [p.clone() for p in model.parameters()]
    options = dict(criterion=Spoilt(), validation=HELD)
    with pytest.raises(RuntimeError, match="expected a finite loss"):
        train(model, SGD(model.parameters(), 3.0), 2, [EarlyStopping(), Spoil()], **options)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


@pytest.mark.parametrize("make", [lambda ps: SGD(ps, 0.5, momentum=0.9), lambda ps: Adam(ps, 0.3)])
@pytest.mark.parametrize("way", WAYS)
def test_early_stopping_goes_on_from_the_last_model(way, make, tmp_path):
    """The file has the best model, and the last one in the callback's memory: from there training goes on."""

    def fresh():
        model = network()
        return model, make(model.parameters()), torch.Generator(), [CosineAnnealingLR(99), EarlyStopping(99)]

    whole, first, second = fresh(), fresh(), fresh()
    losses = leave("epochs", *whole[:2], 20, whole[3]).validation_loss
    history = leave(way, *first[:2], 12, first[3])
    assert history.validation_loss == losses[:12] and min(losses[:12]) < losses[11]
    save(tmp_path / "half.pt", *first[:2], history, *first[2:])
    load(tmp_path / "half.pt", *second[:2], History(), *second[2:])
    assert torch.equal(second[0](X), first[0](X))
    rest = leave("epochs", *second[:2], 8, second[3])
    assert losses[:12] + rest.validation_loss == losses
    assert second[3][1].best == min(losses) and second[3][1].waited == whole[3][1].waited
    assert all(torch.equal(p, q) for p, q in zip(second[0].parameters(), whole[0].parameters(), strict=True))


class Saver:
    """A checkpoint an epoch."""

    def __init__(self, path, callbacks):
        self.path, self.callbacks = path, callbacks

    def on_epoch_end(self, run):
        save(self.path, run.model, run.optimizer, callbacks=self.callbacks)


def test_a_checkpoint_within_a_resumed_training_has_its_own_last_model(tmp_path):
    """Saved after a fit, gone on with, saved in an epoch's end, gone on with: as if never interrupted."""
    path, whole = tmp_path / "model.pt", network()
    wanted = leave("epochs", whole, SGD(whole.parameters(), 1.5), 18, [EarlyStopping(99)]).validation_loss
    found = []
    for turn in range(3):
        model, stopping = network(), EarlyStopping(99)
        optimizer = SGD(model.parameters(), 1.5)
        if turn:
            load(path, model, optimizer, callbacks=[stopping])
        saver = Saver(path, [stopping])
        found += leave("epochs", model, optimizer, 6, [stopping, saver]).validation_loss
        if not turn:
            saver.on_epoch_end(types.SimpleNamespace(model=model, optimizer=optimizer))
    assert found == wanted


def used(callback):
    """The callback, after a training."""
    model = network(seed=5)
    train(model, SGD(model.parameters(), 1.0), 6, [callback], validation=HELD)
    return callback


CALLBACKS = {
    "EarlyStopping": lambda: EarlyStopping(3),
    "StepLR": lambda: StepLR(2),
    "CosineAnnealingLR": lambda: CosineAnnealingLR(4),
    "RestartWhenStuck": lambda: RestartWhenStuck(lambda model, generator: model[0].bias.fill_(0.5), 9.0, -1.0),
    "ClipGradNorm": lambda: ClipGradNorm(0.1),
    "Statistics": Statistics,
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_begins_anew_in_each_training(name):
    found = []
    for make in (lambda: CALLBACKS[name](), lambda: used(CALLBACKS[name]())):
        callback, model = make(), network()
        optimizer = SGD(model.parameters(), 0.05)
        history = train(model, optimizer, 8, [callback], validation=HELD)
        memory = {k: v for k, v in vars(callback).items() if k not in ("init", "state", "last")}
        found.append((history, optimizer.lr, memory, [p.tolist() for p in model.parameters()]))
    assert found[0] == found[1]


def test_a_callback_of_ones_own_has_a_memory():
    class Count(Callback):
        memory = ("steps",)

        def begin(self, run):
            self.steps = 0

        def on_batch_end(self, run):
            self.steps += 1

    count, other, model = Count(), Count(), network()
    assert count.state_dict() == {"callback": "Count", "steps": None}
    for _ in range(2):
        train(model, SGD(model.parameters(), 0.1), 2, [count])
        assert count.steps == 8
    other.load_state_dict(count.state_dict())
    train(model, SGD(model.parameters(), 0.1), 2, [other])
    assert other.steps == 16
    with pytest.raises(ValueError, match=r"Count: expected its own state, \['callback', 'steps'\], got .* of StepLR"):
        other.load_state_dict(StepLR(3).state_dict())


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


def test_clipping_refuses_what_has_no_length():
    with pytest.raises(TypeError, match=r"^clip_grad_norm_: expected a tensor of floating numbers, got torch.int64"):
        clip_grad_norm_([torch.ones(2), torch.ones(2, dtype=torch.int64)], 1.0)


def test_clipping_in_every_step():
    class ByHand:
        norms = []

        def after_backward(self, run):
            self.norms.append(clip_grad_norm_(run.model.parameters(), 0.05).item())

    models = network(), network()
    for model, clip in zip(models, (ClipGradNorm(0.05), ByHand())):
        train(model, SGD(model.parameters(), 0.5), 3, [clip])
        assert len(clip.norms) == 12 and clip.norms == (ByHand.norms or clip.norms) and max(clip.norms) > 0.05
    assert all(torch.equal(p, q) for p, q in zip(*(m.parameters() for m in models)))


def test_restarts_when_still_and_wrong():
    generator = torch.Generator().manual_seed(3)

    def constant(model, own):
        assert own is generator
        for p in model.parameters():
            p.fill_(0.0)

    for tolerance, error, restarts in ((1e-9, 0.4, 0), (0.5, 0.9, 0), (0.5, -1.0, 3)):
        model, rule = network(), RestartWhenStuck(constant, tolerance, error)
        optimizer = SGD(model.parameters(), 0.01, momentum=0.9)
        train(model, optimizer, 4, [rule], generator)
        assert rule.restarts == restarts
        assert (len(optimizer.velocity) == 0) == (restarts == 3)
        assert any(p.any() for p in model.parameters()) == (restarts < 3)


@pytest.mark.parametrize(
    "losses, restarts, metric, options",
    [
        ([10.0, 10.05], 1, 0.5, {"tolerance": 0.01}),
        ([10.0, 10.2], 0, 0.5, {"tolerance": 0.01}),
        ([0.1, 0.1005], 1, 0.5, {"tolerance": 0.01}),
        ([0.1, 0.102], 0, 0.5, {"tolerance": 0.01}),
        ([1.0, 1.0009], 1, 0.41, {}),  # one in a thousand, and above 0.4
        ([1.0, 1.0011], 0, 0.41, {}),
        ([1.0, 1.0], 0, 0.4, {}),  # and not at 0.4
    ],
)
def test_still_is_relative(losses, restarts, metric, options):
    model, rule = network(), RestartWhenStuck(lambda model, generator: None, **options)
    run = types.SimpleNamespace(model=model, optimizer=SGD(model.parameters(), 0.1), history=History(), generator=None)
    rule.on_fit_start(run)
    for loss in losses:
        run.history.loss.append(loss)
        run.history.metric.append(metric)
        rule.on_epoch_end(run)
    assert rule.restarts == restarts


def test_a_restart_goes_on_after_a_resume():
    """The loss that the next one is compared with is in the checkpoint, not in the history alone."""

    def run(history):
        model = network()
        return types.SimpleNamespace(
            model=model, optimizer=SGD(model.parameters(), 0.1), history=history, generator=None
        )

    old, new = (RestartWhenStuck(lambda model, generator: None, tolerance=0.01) for _ in range(2))
    before, after = run(History([1.0], [0.5])), run(History([1.001], [0.5]))
    old.on_fit_start(before)
    old.on_epoch_end(before)
    new.load_state_dict(old.state_dict())
    new.on_fit_start(after)
    new.on_epoch_end(after)
    assert (old.restarts, new.restarts) == (0, 1)


def test_statistics():
    looking, model = Statistics(), network()
    train(model, SGD(model.parameters(), 0.1), 4, [looking])
    assert list(looking.gradients) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(looking.activations) == ["0", "1", "2"]
    assert all(len(seen) == 4 for seen in [*looking.gradients.values(), *looking.activations.values()])
    assert math.isclose(looking.activations["2"][-1], model(X[:100]).square().mean().sqrt().item(), rel_tol=1e-6)
    looking.on_epoch_end(types.SimpleNamespace(model=model, train=(X, T)))  # of 150 rows, the first 100
    assert looking.activations["0"][-1] == looking.activations["0"][-2] != predict(model[0], X).square().mean().sqrt()
    assert math.isclose(looking.gradients["0.weight"][-1], model[0].weight.grad.square().mean() ** 0.5, rel_tol=1e-6)


def test_summary():
    model = Sequential(Linear(2, 3), Sequential(Tanh(), Linear(3, 2, bias=False)))
    assert "-" in summary(model).splitlines()[1]
    model(X)
    table = summary(model)
    assert repr(table) == str(table)
    assert [line.split()[0] for line in table.splitlines()] == ["name", "0", "1.0", "1.1", "15"]
    assert table.splitlines() == [
        "name  module                                             output    parameters",
        "0     Linear(in_features=2, out_features=3, bias=True)   (150, 3)           9",
        "1.0   Tanh()                                             (150, 3)           0",
        "1.1   Linear(in_features=3, out_features=2, bias=False)  (150, 2)           6",
        "15".rjust(77),
    ]


def parts(make):
    """All that a training consists of, fresh."""
    model = network()
    callbacks = [CosineAnnealingLR(12), EarlyStopping(50), RestartWhenStuck(lambda model, generator: None)]
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


def changed(parts):
    """All that a load could change, as plain values."""
    model, optimizer, history, generators, callbacks = parts
    memory = [{k: v for k, v in vars(c).items() if k != "init"} for c in callbacks]
    tensors = [*model.parameters(), *(g.get_state() for g in generators), torch.get_rng_state()]
    return str(([t.tolist() for t in tensors], optimizer.state_dict(), history, memory))


def test_early_stopping_waits_for_a_loss_that_is_less():
    """A rate of zero: all losses are equal, and the first is the best."""
    model = network()
    history = train(model, SGD(model.parameters(), 0.0), 9, [EarlyStopping(2)], validation=HELD)
    assert len(history) == 3 and EarlyStopping().patience == 10


def test_a_state_is_copied_when_it_is_loaded():
    first, second = EarlyStopping(3), EarlyStopping(3)
    model = network()
    train(model, SGD(model.parameters(), 0.1), 2, [first], validation=HELD)
    state = first.state_dict()
    second.load_state_dict(state)
    second.state["0.weight"].zero_()
    assert state["state"]["0.weight"].any() and first.state["0.weight"].any()


def test_generators_are_set_all_or_none(tmp_path):
    save(tmp_path / "model.pt", network(), generator=[torch.Generator().manual_seed(i) for i in (1, 2)])
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    state["generator"][1] = torch.zeros(3, dtype=torch.uint8)
    torch.save(state, tmp_path / "model.pt")
    own = [torch.Generator().manual_seed(i) for i in (5, 6)]
    with pytest.raises(RuntimeError):
        load(tmp_path / "model.pt", network(1), generator=own)
    assert torch.equal(own[0].get_state(), torch.Generator().manual_seed(5).get_state())


@pytest.mark.parametrize(
    "generators, callbacks, rule",
    [
        (3, [StepLR, EarlyStopping], "load: expected 1 generators, got 3"),
        (1, [EarlyStopping, StepLR], "EarlyStopping: expected its own state, .* of StepLR"),
        (1, [CosineAnnealingLR, EarlyStopping], "CosineAnnealingLR: expected its own state, .* of StepLR"),
        (1, [StepLR, StepLR], "StepLR: expected its own state, .* of EarlyStopping"),
        (1, [StepLR], "load: expected 2 callbacks, got 1"),
        (1, [StepLR, EarlyStopping, StepLR], "load: expected 2 callbacks, got 3"),
    ],
    ids=["generators", "order", "another callback", "another behind", "too few", "too many"],
)
def test_load_refuses_other_parts_and_changes_nothing(generators, callbacks, rule, tmp_path):
    model, saved = network(0), [StepLR(3), EarlyStopping(3)]
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    history = train(model, optimizer, 4, saved, validation=HELD)
    save(tmp_path / "model.pt", model, optimizer, history, torch.Generator(), saved)
    mine = network(1)
    parts = mine, SGD(mine.parameters(), 7.0), History(), [torch.Generator().manual_seed(9) for _ in range(generators)]
    parts = *parts, [make(3) for make in callbacks]
    before = changed(parts)
    with pytest.raises(ValueError, match=rule):
        load(tmp_path / "model.pt", *parts)
    assert changed(parts) == before


def damaged(kind, tmp_path):
    """The bytes of a checkpoint: nothing, a part, or with bytes changed that are no numbers."""
    save(tmp_path / "whole.pt", network(0))
    whole = (tmp_path / "whole.pt").read_bytes()
    at = whole.index(b"optimizer")
    changed = {n: whole[: at + n] + b"\xff" + whole[at + n + 1 :] for n in (0, -4)}
    return {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "end missing": whole[:-1],
        "start": whole[:10],
        "a byte of a word": changed[0],
        "a byte of a length": changed[-4],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "half", "end missing", "start", "a byte of a word", "a byte of a length"])
def test_load_refuses_a_damaged_checkpoint(kind, tmp_path):
    path, mine = tmp_path / "damaged.pt", network(1)
    path.write_bytes(damaged(kind, tmp_path))
    before = [p.clone() for p in mine.parameters()]
    with pytest.raises(ValueError, match="load: expected a checkpoint"):
        load(path, mine)
    assert all(torch.equal(p, q) for p, q in zip(mine.parameters(), before))


def test_no_file_is_no_damaged_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere.pt", network(1))


@pytest.mark.parametrize("kind", ["state_dict", "list", "whole module", "text"])
def test_load_refuses_what_is_no_checkpoint(kind, tmp_path):
    path, mine = tmp_path / "other.pt", network(1)
    before = [p.clone() for p in mine.parameters()]
    if kind == "text":
        path.write_text("hello")
    else:
        there = torch.nn.Linear(2, 2)
        torch.save({"state_dict": network(0).state_dict(), "list": [1.0], "whole module": there}[kind], path)
    with pytest.raises(ValueError, match="load: expected a checkpoint"):
        load(path, mine)
    assert all(torch.equal(p, q) for p, q in zip(mine.parameters(), before))


def test_what_save_takes_load_gives_back(tmp_path):
    """Numbers of NumPy's and PyTorch's from outside have become plain ones on their way in."""
    parts = [], []
    for own in parts:
        model = network()
        callbacks = [StepLR(2, 0.5), EarlyStopping(np.int64(50)), ClipGradNorm(np.float32(0.5))]
        own += [model, SGD(model.parameters(), np.logspace(-2, -1, 2)[0], momentum=torch.tensor(0.5)), callbacks]
    model, optimizer, callbacks = parts[0]
    metric = lambda output, target: np.float64((output - target).abs().mean())  # noqa: E731
    history, loaded = train(model, optimizer, 4, callbacks, metric=metric, validation=HELD), History()
    save(tmp_path / "model.pt", model, optimizer, history, callbacks=callbacks[:2])
    load(tmp_path / "model.pt", *parts[1][:2], loaded, callbacks=parts[1][2][:2])
    assert loaded == history and str(parts[1][1].state_dict()) == str(optimizer.state_dict())
    assert torch.equal(parts[1][0](X), model(X)) and parts[1][2][1].best == callbacks[1].best


def test_save_refuses_what_load_could_not_read(tmp_path):
    class Own(Callback):
        memory = ("seen",)

    model, path = network(), tmp_path / "model.pt"
    save(path, model)
    old = path.read_bytes()
    optimizer, history, own, by_key = SGD(model.parameters(), 0.1), History([0.5, np.float64(0.4)]), Own(), Own()
    optimizer.lr, own.seen, by_key.seen = np.float64(0.1), {"a": [1, (2, np.bool_(True))]}, {(1, np.int64(3)): 0.5}
    for arguments, where in (
        (dict(optimizer=optimizer), r"float64 as checkpoint\['optimizer'\]\['lr'\]"),
        (dict(history=history), r"float64 as checkpoint\['history'\]\['loss'\]\[1\]"),
        (dict(callbacks=[own]), r"bool as checkpoint\['callbacks'\]\[0\]\['seen'\]\['a'\]\[1\]\[1\]"),
        (dict(callbacks=[by_key]), r"int64 as a key of checkpoint\['callbacks'\]\[0\]\['seen'\]\[1\]"),
        (dict(callbacks=[ClipGradNorm(1.0)]), "expected callbacks with state_dict, got ClipGradNorm"),
    ):
        with pytest.raises(TypeError, match=f"save: .*{where}"):
            save(path, model, **arguments)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ["model.pt"]


def test_a_killed_save_leaves_the_old_file(tmp_path, monkeypatch):
    save(tmp_path / "model.pt", network(0))
    old = (tmp_path / "model.pt").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "model.pt", network(1))
    assert (tmp_path / "model.pt").read_bytes() == old and os.listdir(tmp_path) == ["model.pt"]


def test_a_save_that_cannot_clean_up_says_why_it_failed(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save(tmp_path / "nowhere" / "model.pt", network(0))


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
