"""The loop, against PyTorch's and against interruptions."""

import contextlib
import math
import re
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

from minidl import (
    SGD,
    Adam,
    CrossEntropyLoss,
    Dropout,
    History,
    Linear,
    Module,
    MSELoss,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    accuracy,
    batches,
    circle,
    error_rate,
    fit,
    one_hot,
    predict,
    standardize,
)
from minidl.train import epoch_loss

X, LABEL = circle(230, torch.Generator().manual_seed(0))
X, T = standardize(X), one_hot(LABEL)


def network(activation=Tanh, seed=0):
    torch.manual_seed(seed)
    return Sequential(Linear(2, 25), activation(), Linear(25, 25), activation(), Linear(25, 2))


def train(model, epochs=3, lr=0.1, momentum=0, criterion=None, data=(X, T), **options):
    options = dict(batch_size=50, progress=False, generator=torch.Generator().manual_seed(1)) | options
    optimizer = SGD(model.parameters(), lr, momentum=momentum)
    return fit(model, criterion or MSELoss(), optimizer, data, epochs=epochs, **options)


@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("activation", [ReLU, Tanh])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_trains_bit_for_bit_like_pytorch(activation, momentum, reduction):
    lr = 0.05 if reduction == "mean" else 0.0005
    ours = network(activation)
    there = getattr(nn, activation.__name__)
    twin = nn.Sequential(nn.Linear(2, 25), there(), nn.Linear(25, 25), there(), nn.Linear(25, 2))
    twin.load_state_dict(ours.state_dict())
    history = train(ours, 100, lr, momentum, MSELoss(reduction))
    optimizer = torch.optim.SGD(twin.parameters(), lr, momentum=momentum)
    criterion, losses, generator = nn.MSELoss(reduction=reduction), [], torch.Generator().manual_seed(1)
    for _ in range(100):
        for x, t in batches(X, T, 50, True, generator):
            optimizer.zero_grad()
            loss = criterion(twin(x), t)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert history.step_loss == losses
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), twin.parameters(), strict=True))
    if reduction == "mean":
        assert error_rate(predict(ours, X), LABEL) < 0.15


def test_history_weighs_every_row_once():
    for reduction, share in (("mean", lambda n: n / 230), ("sum", lambda n: 1)):
        history = train(network(), 3, 1e-4, criterion=MSELoss(reduction), validation=(X[:20], T[:20]))
        assert len(history) == 3 and len(history.step_loss) == 15 and not history.stopped
        for epoch, recorded in enumerate(history.loss):
            steps = zip([50, 50, 50, 50, 30], history.step_loss[5 * epoch :])
            assert math.isclose(recorded, sum(share(n) * loss for n, loss in steps))
        assert len(history.validation_loss) == len(history.validation_metric) == 3
    assert repr(History()) == "History(0 epochs)"
    assert "3 epochs, loss=" in repr(history) and "validation_metric=" in repr(history)


def test_validation_is_the_model_at_the_end_of_the_epoch():
    model = network()
    history = train(model, validation=(X[:40], T[:40]), metric=accuracy)
    output = predict(model, X[:40])
    assert history.validation_loss[-1] == MSELoss()(output, T[:40]).item()
    assert history.validation_metric[-1] == accuracy(output, LABEL[:40])


@pytest.mark.parametrize("name", ["on_epoch_ends", "forward"])
def test_a_misspelt_callback_is_refused(name):
    callback = type("Mine", (), {name: lambda self, run: True})()
    with pytest.raises(TypeError, match=r"fit: expected callbacks with any of .*, got Mine with \["):
        train(network(), callbacks=[callback])


def test_metrics():
    output = torch.tensor([[0.9, 0.2], [0.4, 0.6], [0.1, 0.0], [0.3, 0.8]])
    truth = torch.tensor([0, 1, 1, 1])
    for target in (truth, one_hot(truth)):
        assert error_rate(output, target) == 0.25 and accuracy(output, target) == 0.75
    assert error_rate(output[:, 1:], truth) == 0.25
    assert error_rate(output[:, 1:], truth[:, None].float()) == 0.25
    with pytest.raises(ValueError, match=r"error_rate: expected classes of shape \(4,\), got \(4, 1\)"):
        error_rate(output, truth[:, None])


def test_metrics_at_the_threshold_and_with_more_axes():
    assert error_rate(torch.tensor([0.5, 0.51]), torch.tensor([0, 1])) == 0  # a yes is above it
    assert error_rate(torch.tensor([[[0.1, 0.9, 0.0]], [[0.1, 0.0, 0.9]]]), torch.tensor([[1], [2]])) == 0


def test_the_loss_of_an_epoch_is_a_mean_unless_each_is_a_sum():
    assert epoch_loss([1.0, 4.0], [3, 1]) == 1.75 and epoch_loss([1.0, 4.0], [3, 1], False) == 5


def test_a_metric_becomes_a_plain_number():
    for value in (np.float64(0.5), np.float32(0.5), torch.tensor(0.5)):
        history = train(network(), 1, metric=lambda output, target: value, validation=(X, T))
        assert [type(v) for v in history.metric + history.validation_metric] == [float, float]
        assert history.metric == history.validation_metric == [0.5]


class Watch:
    """Writes down what it is asked, and stops after some epochs."""

    def __init__(self, epochs):
        self.epochs, self.seen = epochs, []

    def on_fit_start(self, run):
        self.seen.append(("start", run.epoch, run.model.training))

    def after_backward(self, run):
        self.seen.append(("gradients", run.batch, all(p.grad is not None for p in run.model.parameters())))

    def on_batch_end(self, run):
        self.seen.append(("batch", run.batch, run.loss == run.history.step_loss[-1]))

    def on_epoch_end(self, run):
        self.seen.append(("epoch", run.epoch, len(run.history) == run.epoch))
        return run.epoch == self.epochs

    def on_fit_end(self, run):
        self.seen.append(("end", run.epoch, run.history.stopped == "callback"))


def test_callbacks_are_asked_in_order_and_may_stop():
    watch = Watch(2)
    model = network().eval()
    history = train(model, 9, batch_size=150, callbacks=[watch])
    epoch = [(moment, batch, True) for batch in (1, 2) for moment in ("gradients", "batch")]
    assert watch.seen == [("start", 0, True), *epoch, ("epoch", 1, True), *epoch, ("epoch", 2, True), ("end", 2, True)]
    assert history.stopped == "callback" and len(history) == 2
    assert not model.training and not model[0].training


class Press:
    """Ctrl-C at one moment of one step."""

    def __init__(self, moment, step, times=1):
        setattr(self, moment, self.press)
        self.step, self.times = step, times

    def press(self, run):
        if len(run.history.step_loss) == self.step:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "moment, step, steps",
    [
        ("after_backward", 6, 7),
        ("on_batch_end", 7, 7),
        ("after_backward", 4, 5),
        ("on_batch_end", 5, 5),
        ("on_epoch_end", 5, 5),
    ],
)
def test_ctrl_c_ends_after_a_whole_step(moment, step, steps):
    before = signal.getsignal(signal.SIGINT)
    model, other = network(), network()
    history = train(model, callbacks=[Press(moment, step)])
    assert history.stopped == "Ctrl-C" and len(history.step_loss) == steps
    assert len(history) == steps // 5 and "stopped by Ctrl-C" in repr(history)
    assert signal.getsignal(signal.SIGINT) is before

    optimizer, criterion, generator = SGD(other.parameters(), 0.1), MSELoss(), torch.Generator().manual_seed(1)
    dealt = [b for _ in range(3) for b in batches(X, T, 50, True, generator)]
    for x, t in dealt[:steps]:
        optimizer.zero_grad()
        criterion(other(x), t)
        other.backward(criterion.backward())
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters()))


@pytest.mark.parametrize("step, batch", [(6, 2), (4, 5)])
def test_ctrl_c_in_the_last_step_leaves_a_whole_epoch(step, batch):
    """The epoch's callbacks are asked, and `run.batch` is that of the last step."""
    asked = []

    class Note:
        def on_epoch_end(self, run):
            asked.append((run.epoch, len(run.history)))

        def on_fit_end(self, run):
            asked.append(run.batch)

    train(network(), callbacks=[Press("after_backward", step), Note()])
    assert asked == [(1, 1), batch]


def test_ctrl_c_before_the_first_step_takes_none():
    model, other = network(), network()
    history = train(model, callbacks=[Press("on_fit_start", 0)])
    assert history.stopped == "Ctrl-C" and not history.step_loss and not history.loss
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters()))


def test_a_second_ctrl_c_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(network(), callbacks=[Press("after_backward", 1, times=2)])
    assert signal.getsignal(signal.SIGINT) is before


def test_trains_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(train(network())))
    thread.start()
    thread.join()
    assert found[0].step_loss == train(network()).step_loss


def test_a_loss_that_is_not_finite_changes_nothing():
    class Spoil:
        def on_batch_end(self, run):
            if run.epoch == 2 and run.batch == 3:
                run.model[0].weight[0, 0] = math.nan
                self.state = {k: p.clone() for k, p in run.model.state_dict().items()}

    spoil, model = Spoil(), network()
    with pytest.raises(RuntimeError, match="expected a finite loss, got nan in epoch 2, batch 4; try") as error:
        train(model, callbacks=[spoil])
    assert len(error.value.history) == 1 and len(error.value.history.step_loss) == 8
    for name, p in model.state_dict().items():
        torch.testing.assert_close(p, spoil.state[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "options, rule",
    [
        (dict(epochs=0), "fit: expected at least one epoch, got 0"),
        (dict(batch_size=0), "batches: expected a batch size of at least 1, got 0"),
        (dict(validation=(X[:0], T[:0])), "batches: expected at least one row"),
        (dict(validation=(X[:9], T[:8])), "expected as many targets as inputs"),
        (dict(data=(X, T[:, :1])), r"expected a target of shape \(230, 2\), got \(230, 1\)"),
        (dict(data=(X, T[:229])), "expected as many targets as inputs"),
        (dict(validation=(X[:9], LABEL[:9].float())), r"expected a target of shape \(9, 2\), got \(9,\)"),
        (dict(validation=(X[:9, :1], T[:9])), r"Linear\(2, 25\): expected an input of shape \(\*, 2\)"),
    ],
)
def test_refuses_before_anything_changes(options, rule):
    model = network()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=rule):
        train(model, **options)
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.parameters(), before))


@pytest.mark.parametrize("wrong", [2, -1])
@pytest.mark.parametrize("where", ["data", "validation"])
def test_a_wrong_label_in_any_row_is_refused_before_anything_changes(where, wrong):
    label = LABEL[:100].clone()
    label[77] = wrong
    model, leave, generator = network(), Leave("epochs"), torch.Generator().manual_seed(1)
    before, drawn, state = [p.clone() for p in model.parameters()], generator.get_state(), torch.get_rng_state()
    options = {"data": (X, LABEL), "callbacks": [leave], "generator": generator} | {where: (X[:100], label)}
    low, high = (0, 2) if wrong == 2 else (-1, 1)
    with pytest.raises(ValueError, match=rf"CrossEntropyLoss: expected classes in \[0, 2\), got {low} to {high}"):
        train(model, criterion=CrossEntropyLoss(), **options)
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.parameters(), before))
    assert torch.equal(generator.get_state(), drawn) and torch.equal(torch.get_rng_state(), state)
    assert leave.ends == []


def test_progress_can_be_seen_and_silenced(capfd):
    train(network(), 2, validation=(X, T))
    assert capfd.readouterr() == ("", "")
    train(network(), 2, validation=(X, T), progress=True)
    err = capfd.readouterr().err
    number = r"\d+\.\d{4}"
    names = "loss", "metric", "validation_loss", "validation_metric"
    assert "2/2" in err and re.search(", ".join(f"{name} {number}" for name in names) + r"\]", err)


def test_predict_goes_in_batches_and_gives_the_modes_back():
    model = network()
    model[1].training = False
    torch.testing.assert_close(predict(model, X, 33), model(X))
    assert model.training and not model[1].training
    seen = []

    class Watch(Tanh):
        def forward(self, x):
            seen.append((len(x), self.training))
            return super().forward(x)

    predict(Sequential(Watch()), torch.randn(1001, 2))
    assert seen == [(1000, False), (1, False)]
    with pytest.raises(ValueError, match="at least one row"):
        predict(model, X[:0])


def test_training_by_hand_goes_on_after_fit():
    model = network()
    train(model, momentum=0.9)
    optimizer, criterion = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), MSELoss()
    first = criterion(model(X), T).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss = criterion(model(X), T).item()
        model.backward(criterion.backward())
        optimizer.step()
    assert loss < first


@pytest.mark.parametrize("activation", [ReLU, Tanh])
def test_fit_lets_go_of_what_was_kept(activation):
    """After `backward` at once: callbacks see shapes and gradients, and nothing stays behind."""

    class Look:
        def __init__(self):
            self.seen = []

        def look(self, run):
            kept = [m.kept for _, m in run.model.named_modules()] + [run.criterion.kept]
            self.seen.append(([m.output_shape for m in run.model], all(k is None for k in kept)))

        after_backward = on_batch_end = look

    model, criterion, look = network(activation), MSELoss(), Look()
    train(model, criterion=criterion, callbacks=[look])
    rows = [n for _ in range(3) for n in (50, 50, 50, 50, 30) for _ in range(2)]  # two looks at each step
    assert look.seen == [([(n, 25)] * 4 + [(n, 2)], True) for n in rows]
    for call in (lambda: model.backward(T[:30]), criterion.backward):
        with pytest.raises(RuntimeError, match="expected a forward before each backward, got none"):
            call()


def test_predict_lets_go_of_what_was_kept():
    model = network()
    model(X)
    output = predict(model, X)
    assert all(m.kept is None and not m.waiting for _, m in model.named_modules())
    with pytest.raises(RuntimeError, match="expected a forward before each backward, got none"):
        model.backward(torch.ones_like(output))


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


RULES = {
    "SGD": lambda ps: SGD(ps, 0.1),
    "momentum": lambda ps: SGD(ps, 0.1, momentum=0.9),
    "Adam": lambda ps: Adam(ps, 0.01),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("part", [Tanh, lambda: Gate(25), lambda: Dropout(0.2)], ids=["Tanh", "own", "Dropout"])
def test_fit_is_the_loop_by_hand(rule, shuffle, part):
    losses, models = [], []
    for by_hand in (False, True):
        model, generator = network(part), torch.Generator().manual_seed(1)
        optimizer, criterion = RULES[rule](model.parameters()), MSELoss()
        torch.manual_seed(2)  # of the dropout
        if by_hand:
            found = []
            for _ in range(4):
                for x, t in batches(X, T, 50, shuffle, generator):
                    optimizer.zero_grad()
                    found.append(criterion(model(x), t).item())
                    model.backward(criterion.backward())
                    optimizer.step()
        else:
            deal = dict(epochs=4, batch_size=50, shuffle=shuffle, generator=generator)
            history = fit(model, criterion, optimizer, (X, T), validation=(X[:9], T[:9]), progress=False, **deal)
            found = history.step_loss
        losses.append(found)
        models.append(model)
    assert losses[0] == losses[1] and len(losses[0]) == 20
    assert all(torch.equal(p, q) for p, q in zip(*(m.parameters() for m in models), strict=True))


WAYS = {"epochs": "", "callback": "callback", "Ctrl-C": "Ctrl-C", "bad loss": "", "Ctrl-C twice": "", "error": ""}


class Leave:
    """Leaves the training in its second epoch, in one of the ways."""

    def __init__(self, way):
        self.way, self.ends = way, []

    def on_batch_end(self, run):
        if run.epoch == 2 and run.batch == 3:
            if self.way == "bad loss":
                run.model[0].weight[0, 0] = math.nan
            if self.way == "error":
                raise KeyError("enough")
            for _ in range(self.way.count("Ctrl-C") + self.way.count("twice")):
                signal.raise_signal(signal.SIGINT)

    def on_epoch_end(self, run):
        return self.way == "callback" and run.epoch == 2

    def on_fit_end(self, run):
        self.ends.append((run.epoch, len(run.history.step_loss), run.history.stopped))


@pytest.mark.parametrize("way", WAYS)
def test_on_fit_end_is_asked_at_every_way_out(way):
    errors = {"bad loss": RuntimeError, "Ctrl-C twice": KeyboardInterrupt, "error": KeyError}
    steps = {"epochs": 15, "callback": 10}.get(way, 8)
    leave, others, model = Leave(way), [Leave("epochs"), Leave("epochs")], network().eval()
    with pytest.raises(errors[way]) if way in errors else contextlib.nullcontext():
        assert train(model, callbacks=[others[0], leave, others[1]]).stopped == WAYS[way]
    end = (3 if way == "epochs" else 2, steps, WAYS[way])
    assert leave.ends == others[0].ends == others[1].ends == [end]
    assert not model.training


def test_on_fit_end_is_not_asked_where_nothing_began():
    leave = Leave("epochs")
    with pytest.raises(ValueError, match="at least one epoch"):
        train(network(), epochs=0, callbacks=[leave])
    assert leave.ends == []
