"""The loop, against PyTorch's and against interruptions."""

import math
import signal
import threading

import pytest
import torch
from torch import nn

from minidl import (
    SGD,
    History,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
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

X, LABEL = circle(230, torch.Generator().manual_seed(0))
X, T = standardize(X), one_hot(LABEL)


def network(activation=Tanh, seed=0):
    torch.manual_seed(seed)
    return Sequential(Linear(2, 25), activation(), Linear(25, 25), activation(), Linear(25, 2))


def train(model, epochs=3, lr=0.1, momentum=0, criterion=None, **options):
    options = dict(batch_size=50, progress=False, generator=torch.Generator().manual_seed(1)) | options
    optimizer = SGD(model.parameters(), lr, momentum=momentum)
    return fit(model, criterion or MSELoss(), optimizer, (X, T), epochs=epochs, **options)


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


def test_callbacks_are_asked_in_order_and_may_stop():
    watch = Watch(2)
    model = network().eval()
    history = train(model, 9, batch_size=150, callbacks=[watch])
    epoch = [(moment, batch, True) for batch in (1, 2) for moment in ("gradients", "batch")]
    assert watch.seen == [("start", 0, True), *epoch, ("epoch", 1, True), *epoch, ("epoch", 2, True)]
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
    "moment, step, steps", [("after_backward", 6, 7), ("on_batch_end", 7, 7), ("on_epoch_end", 5, 5)]
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
        (dict(validation=(X[:9], LABEL[:9].float())), r"expected a target of shape \(1, 2\), got \(1,\)"),
        (dict(validation=(X[:9, :1], T[:9])), r"Linear\(2, 25\): expected an input of shape \(\*, 2\)"),
    ],
    ids=str,
)
def test_refuses_before_anything_changes(options, rule):
    model = network()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=rule):
        train(model, **options)
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.parameters(), before))


def test_progress_can_be_seen_and_silenced(capfd):
    train(network(), 2, validation=(X, T))
    assert capfd.readouterr() == ("", "")
    train(network(), 2, validation=(X, T), progress=True)
    err = capfd.readouterr().err
    assert "2/2" in err and "loss" in err and "validation_metric" in err


def test_predict_goes_in_batches_and_gives_the_modes_back():
    model = network()
    model[1].training = False
    torch.testing.assert_close(predict(model, X, 33), model(X))
    assert model.training and not model[1].training
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
def test_fit_lets_go_of_what_the_modules_kept(activation):
    model, criterion = network(activation), MSELoss()
    train(model, criterion=criterion)
    assert criterion.gap is None and all(getattr(m, n) is None for m in list(model)[1:] for n in m.kept_names)
    for call in (lambda: model.backward(T[:30]), criterion.backward):  # 30 rows in the last batch
        with pytest.raises(RuntimeError, match="expected forward before backward"):
            call()
    gradients = []
    for _ in range(2):  # with the guards up it stays
        criterion(model(X), T)
        model.zero_grad()
        gradients.append(model.backward(criterion.backward()))
        gradients.append(model.backward(criterion.backward()))
    assert all(torch.equal(gradients[0], other) for other in gradients)


@pytest.mark.parametrize(("width", "used"), [(25, 1), (200, 3)])
def test_a_small_training_takes_one_thread_and_gives_the_others_back(width, used):
    seen, threads = [], torch.get_num_threads()

    class Look:
        def on_batch_end(self, run):
            seen.append(torch.get_num_threads())
            if len(seen) == 7:
                raise KeyError("enough")

    torch.manual_seed(0)
    model = Sequential(Linear(2, width), Tanh(), Linear(width, width), Tanh(), Linear(width, 2))
    torch.set_num_threads(3)
    try:
        train(model, 1, callbacks=[Look()])
        assert torch.get_num_threads() == 3
        with pytest.raises(KeyError, match="enough"):
            train(model, 1, callbacks=[Look()])
        assert torch.get_num_threads() == 3 and seen == [used] * 7
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("moment", ["after_backward", "on_batch_end"])
def test_a_callback_at_each_step_finds_what_the_modules_kept(moment):
    class Look:
        """Whether each output that a module kept is there."""

    seen = []
    setattr(Look, moment, lambda self, run: seen.append([m.y.shape for m in run.model if isinstance(m, ReLU)]))
    train(network(ReLU), 2, callbacks=[Look()])
    assert len(seen) == 10 and seen[0] == seen[-2] == [(50, 25)] * 2 and seen[-1] == [(30, 25)] * 2
