"""Many ranks are one training: to the bit against one process, to rounding against DistributedDataParallel.

Each rank is a process, with gloo on the loopback. A server that has imported PyTorch once forks them; every wait has an
end, and what is left of them is killed. The functions that run on a rank take (rank, size) and begin with `on_`.
"""

import datetime
import math
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist

from minidl import (
    SGD,
    ClipGradNorm,
    CrossEntropyLoss,
    Dropout,
    EarlyStopping,
    Linear,
    Module,
    MSELoss,
    RestartWhenStuck,
    Sequential,
    StepLR,
    Tanh,
    accuracy,
    batches,
    circle,
    fit,
    init,
    load,
    one_hot,
    save,
    standardize,
)
from minidl.ranks import RankLoop, add_ranks, cut
from minidl.train import History

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "torch.distributed", "minidl.ranks", "torch._dynamo"])  # the last for the judge
ROOT = pathlib.Path(__file__).resolve().parent.parent


def start(function, rank, size, folder, timeout, arguments):
    """A process: meet the others, call, keep what came of it."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.manual_seed(100 + rank)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=timeout),
    )
    try:
        result = function(rank, size, *arguments)
    except Exception as error:
        result = error
    torch.save(result, f"{folder}/{rank}.part")
    os.replace(f"{folder}/{rank}.part", f"{folder}/{rank}")
    os._exit(0)


def launch(function, size, folder, *arguments, timeout=30.0):
    """What `function` returned or raised on each rank; None from one that was killed."""
    folder = pathlib.Path(folder) / f"{function.__name__}{size}{time.monotonic_ns()}"
    folder.mkdir()
    processes = [
        SERVER.Process(target=start, args=(function, rank, size, folder, timeout, arguments), daemon=True)
        for rank in range(size)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode is not None, "expected every rank to end"
    finally:
        for process in processes:
            process.kill()
            process.join()
    files = [folder / str(rank) for rank in range(size)]
    return [torch.load(file, weights_only=False) if file.exists() else None for file in files]


def net(dropout=0.0, width=9):
    torch.manual_seed(0)
    return Sequential(Linear(2, width), Tanh(), Dropout(dropout), Linear(width, 2))


def data(n=34, seed=0):
    """Points and one-hot labels: 34 in batches of 16 leave two rows, fewer than four ranks."""
    x, label = circle(n, torch.Generator().manual_seed(seed))
    return standardize(x), one_hot(label)


class Notes(Module):
    """The identity; it notes the rows that come by while the network learns."""

    def __init__(self):
        self.seen = []

    def forward(self, x):
        if self.training:
            self.seen.append(x.clone())
        return x

    def backward(self, dy):
        return dy


class NotedDropout(Dropout):
    """Dropout that notes its masks."""

    def __init__(self, p):
        super().__init__(p)
        self.masks = []

    def draw(self, x):
        self.masks.append(super().draw(x))
        return self.masks[-1]


def train(model, epochs=2, callbacks=(), criterion=None, optimizer=None, loop=RankLoop, n=34, **options):
    """A training with a velocity; on all ranks together, unless `loop` is None."""
    if loop:
        model.loop = loop
    optimizer = optimizer or SGD(model.parameters(), 0.2, momentum=0.9)
    options = {"generator": torch.Generator().manual_seed(1)} | options
    options = {"train": data(n), "batch_size": 16} | options
    history = fit(
        model, criterion or MSELoss(), optimizer, epochs=epochs, callbacks=callbacks, progress=False, **options
    )
    return history


def outcome(model, history):
    return {"state": model.state_dict(), **vars(history)}


def one_process(size, dropout=0.0, epochs=2, criterion=None, shuffled=True):
    """What `size` ranks do, by one process: every batch in shares, one after the other."""
    model, criterion = net(dropout), criterion or MSELoss()
    torch.manual_seed(100)
    optimizer, losses = SGD(model.parameters(), 0.2, momentum=0.9), []
    clip, generator = ClipGradNorm(0.1), torch.Generator().manual_seed(1) if shuffled else None
    clip.norms = []
    run = type("Run", (), {"model": model})
    for _ in range(epochs):
        dealt = batches(*data(), 16, True, generator)
        states, seeds = [torch.get_rng_state()], torch.randint(2**32, (size,))
        for seed in seeds[: size - 1].tolist():
            states.append(torch.Generator().manual_seed(seed).get_state())
        for x, t in dealt:
            optimizer.zero_grad()
            total = torch.tensor(0.0)
            for rank in range(size):
                rows = cut(len(x), rank, size)
                if rows.start == rows.stop:
                    continue
                torch.set_rng_state(states[rank])
                share = (rows.stop - rows.start) / len(x) if criterion.reduction == "mean" else 1
                loss = share * criterion(model(x[rows]), t[rows]).item()
                model.backward(share * criterion.backward(), input_grad=False)
                total, states[rank] = total + loss, torch.get_rng_state()
            clip.after_backward(run)
            optimizer.step()
            losses.append(total.item())
        torch.set_rng_state(states[0])
    return model.state_dict(), losses


def same(a, b):
    """Whether two states are equal to the bit."""
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def off(a, b):
    """By how much two states differ."""
    return max((a[name] - b[name]).abs().max().item() for name in a)


# What runs on every rank.


def on_add(rank, size):
    found = {}
    for n in (1, 3, 8, 1001):
        vector = torch.randn(n, generator=torch.Generator().manual_seed(rank))
        reduced = vector.clone()
        dist.all_reduce(reduced)
        found[n] = add_ranks(vector), reduced
    for dtype in (torch.float64, torch.int64, torch.uint8):
        found[dtype] = add_ranks(torch.arange(5).to(dtype) + rank)
    column = torch.full((8,), [2.0**24, 1.0, -(2.0**24), 1.0][rank % 4])
    found["column"] = add_ranks(column)
    dist.all_reduce(column)
    return found | {"reduced": column}


def on_train(rank, size):
    found = {}
    for name, dropout, criterion, shuffled in (
        ("mean", 0.0, MSELoss(), True),
        ("sum", 0.4, MSELoss("sum"), True),
        ("global", 0.4, CrossEntropyLoss(), False),
    ):
        model = net(dropout)
        torch.manual_seed(100 + rank)
        generator = torch.Generator().manual_seed(1 + rank) if shuffled else None  # all take rank 0's
        history = train(model, criterion=criterion, callbacks=[ClipGradNorm(0.1)], generator=generator)
        found[name] = outcome(model, history)
    return found


def on_rows(rank, size):
    notes, dropout = Notes(), NotedDropout(0.5)
    train(Sequential(notes, *net()[:2], dropout, net()[3]), n=32)
    return notes.seen, dropout.masks


def on_history(rank, size):
    def far(output, target):
        """No mean over rows: it needs all of them."""
        return (output - target).abs().max()

    model = net()
    history = train(model, metric=far, validation=data(30, 5))
    right = net()
    return outcome(model, history), outcome(right, train(right, metric=accuracy))


def on_stop(rank, size):
    class Stop:
        def on_epoch_end(self, run):
            return rank == size - 1 and run.epoch == 2

    x, t = data(30, 5)
    early = EarlyStopping(1)
    found = [train(net(), epochs=4, callbacks=[Stop()])]
    # other validation rows on the last rank: its patience ends at another epoch, if it were alone
    validation = (x, 1 - t) if rank == size - 1 else (x, t)
    found.append(train(net(), epochs=6, callbacks=[early], validation=validation))
    return [(len(history), history.stopped, history.step_loss) for history in found]


def on_bad_loss(rank, size):
    class Spoil:
        """Rank 1's rows become infinite in epoch 2."""

        def on_epoch_end(self, run):
            before.update({name: p.clone() for name, p in run.model.state_dict().items()})
            if rank == 1:
                run.train[0].fill_(math.inf)

    before, model = {}, net()
    try:
        train(model, callbacks=[Spoil()])
    except RuntimeError as error:
        return str(error), len(error.history.step_loss), same(before, model.state_dict())


def on_ctrl_c(rank, size):
    class Press:
        def __init__(self, epoch, moment):
            self.epoch, self.moment = epoch, moment

        def on_batch_end(self, run):
            self.press(run, "step", run.batch == 2)

        def on_epoch_end(self, run):
            self.press(run, "epoch", True)

        def press(self, run, moment, now):
            if rank == 1 and now and (run.epoch, moment) == (self.epoch, self.moment):
                os.kill(os.getpid(), signal.SIGINT)

    found = []
    for press in Press(1, "step"), Press(1, "epoch"), Press(2, "epoch"):
        history = train(net(), callbacks=[press])
        found.append((len(history), len(history.step_loss), history.stopped))
    return found, signal.getsignal(signal.SIGINT) is signal.default_int_handler


def on_restart(rank, size):
    """A restart that draws from the global generator, which differs from rank to rank."""

    def again(model, generator):
        for p in model.parameters():
            init.uniform_(p)

    model, callback = net(), RestartWhenStuck(again, tolerance=10.0, error=0.0)
    train(model, callbacks=[callback])
    restarts = callback.restarts
    train(model, epochs=1)
    return restarts, model.state_dict()


def on_refused(rank, size):
    found = []
    for options in ({"n": 34 + 10 * (rank == 1)}, {"batch_size": size - 1}, {"n": size - 1, "batch_size": 16}):
        try:
            n = options.pop("n", 34)
            x, t = data(80)
            train(net(), train=(x[:n], t[:n]), **options)
        except ValueError as error:
            found.append(str(error))
    return found


def on_judge(rank, size, n):
    """PyTorch's twin, its DistributedDataParallel, on the same rows."""
    model = net().to(torch.float64)
    twin = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.Tanh(), torch.nn.Identity(), torch.nn.Linear(9, 2))
    twin.to(torch.float64).load_state_dict(model.state_dict())
    twin = torch.nn.parallel.DistributedDataParallel(twin)
    optimizer = torch.optim.SGD(twin.parameters(), 0.2, momentum=0.9)
    x, t = (part.double() for part in data(n))
    history = train(model, train=(x, t))
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        for xb, tb in batches(x, t, 16, True, generator):
            rows = cut(len(xb), rank, size)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(twin(xb[rows]), tb[rows]).backward()
            optimizer.step()
    return history.step_loss, off(model.state_dict(), twin.module.state_dict())


def parts(dropout):
    model = net(dropout)
    return (
        model,
        SGD(model.parameters(), 0.2, momentum=0.9),
        torch.Generator().manual_seed(1),
        [StepLR(1, 0.5), EarlyStopping(50)],
    )


class Keep:
    """Rank 0 writes a checkpoint at the end of an epoch; in epoch `dies`, a rank is killed."""

    def __init__(self, path, rank, callbacks, dies=0):
        self.path, self.rank, self.callbacks, self.dies = path, rank, callbacks, dies

    def on_batch_end(self, run):
        if (self.rank, run.epoch, run.batch) == (1, self.dies, 2):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, run):
        if self.rank == 0 and self.path:
            save(self.path, run.model, run.optimizer, run.history, run.generator, self.callbacks)


def on_checkpoint(rank, size, path, dropout, epochs, dies=0, resume=False):
    model, optimizer, generator, callbacks = parts(dropout)
    before = History()
    if resume:
        load(path, model, optimizer, before, generator, callbacks)
    keep = Keep(None if resume else path, rank, callbacks, dies)
    history = train(
        model,
        epochs - len(before),
        [*callbacks, keep],
        optimizer=optimizer,
        generator=generator,
        validation=data(30, 5),
    )
    return outcome(model, history) | {"step_loss": before.step_loss + history.step_loss}


def on_hang(rank, size):
    class Sleep:
        def on_batch_end(self, run):
            if rank == 1 and run.epoch == 2:
                time.sleep(9)

    started = time.monotonic()
    try:
        train(net(), callbacks=[Sleep()])
    except RuntimeError as error:
        return str(error), time.monotonic() - started


def on_all(rank, size):
    """All that can be asked of one group of processes, in one go."""
    asked = (on_add, on_train, on_rows, on_history, on_stop, on_bad_loss, on_ctrl_c, on_restart, on_refused)
    found = {function: function(rank, size) for function in asked}
    return found | {on_judge: [on_judge(rank, size, n) for n in (32, 37)]}


@pytest.fixture(scope="module", params=[2, 4])
def asked(request, tmp_path_factory):
    """What each rank found, and their number."""
    found = launch(on_all, request.param, tmp_path_factory.mktemp("ranks"))
    for result in found:
        if isinstance(result, Exception):
            raise result
    return found, request.param


def of(asked, function):
    """What `function` found on each rank."""
    return [result[function] for result in asked[0]]


def test_cut_is_every_row_once():
    for n in range(12):
        for size in (1, 2, 3, 4, 7):
            shares = [list(range(n))[cut(n, rank, size)] for rank in range(size)]
            assert sum(shares, []) == list(range(n))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_sum_is_in_the_order_of_ranks(asked):
    found, size = of(asked, on_add), asked[1]
    for n in (1, 3, 8, 1001):
        vectors = [torch.randn(n, generator=torch.Generator().manual_seed(rank)) for rank in range(size)]
        assert all(torch.equal(result[n][0], sum(vectors[1:], vectors[0])) for result in found)
        assert all(torch.allclose(*result[n]) for result in found)
        if size == 2:
            assert all(torch.equal(*result[n]) for result in found)
    for dtype in (torch.float64, torch.int64, torch.uint8):
        right = (size * torch.arange(5) + size * (size - 1) // 2).to(dtype)
        assert all(torch.equal(result[dtype], right) for result in found)


def test_all_reduce_has_orders_of_its_own_for_four(asked):
    found, size = of(asked, on_add), asked[1]
    assert all(len(set(result["column"].tolist())) == 1 for result in found)
    assert all(len(set(result["reduced"].tolist())) == (1 if size == 2 else 3) for result in found)


@pytest.mark.parametrize("name", ["mean", "sum", "global"])
def test_ranks_are_one_process_to_the_bit(asked, name):
    found, size = [result[name] for result in of(asked, on_train)], asked[1]
    criterion = {"mean": MSELoss(), "sum": MSELoss("sum"), "global": CrossEntropyLoss()}[name]
    dropout = 0.0 if name == "mean" else 0.4
    state, losses = one_process(size, dropout, criterion=criterion, shuffled=name != "global")
    for result in found:
        assert same(result.pop("state"), state)
        assert result["step_loss"] == losses
        assert result == found[0]  # the whole history, on every rank


def test_ranks_are_plain_fit_to_rounding(asked):
    model = net()
    history = train(model, callbacks=[ClipGradNorm(0.1)], loop=None)
    for result in of(asked, on_train):
        assert max(abs(a - b) for a, b in zip(result["mean"]["step_loss"], history.step_loss, strict=True)) < 1e-6
        assert abs(result["mean"]["loss"][-1] - history.loss[-1]) < 1e-6


def test_one_rank_is_plain_fit_to_the_bit(tmp_path):
    (found,) = launch(on_train, 1, tmp_path)
    model = net(0.4)
    torch.manual_seed(100)
    history = train(model, callbacks=[ClipGradNorm(0.1)], criterion=MSELoss("sum"), loop=None)
    assert same(found["sum"].pop("state"), model.state_dict())
    assert found["sum"] == vars(history)


def test_every_row_once_and_masks_of_their_own(asked):
    found, size = of(asked, on_rows), asked[1]
    x, t = data(32)
    generator = torch.Generator().manual_seed(1)
    whole = [rows for _ in range(2) for rows, _ in batches(x, t, 16, True, generator)]
    for step, rows in enumerate(whole):
        assert torch.equal(torch.cat([seen[step] for seen, _ in found]), rows)
    for step in range(len(whole)):
        masks = [masks[step] for _, masks in found]
        assert not any(torch.equal(masks[a], masks[b]) for a in range(size) for b in range(a))


def test_history_is_that_of_all_rows(asked):
    found = of(asked, on_history)
    right = net()
    expected = train(right, metric=accuracy, loop=None)
    for far, near in found:
        assert {**far, "state": 0} == {**found[0][0], "state": 0}
        assert near["metric"] == expected.metric and len(far["validation_loss"]) == 2
        assert math.isclose(near["loss"][-1], expected.loss[-1], rel_tol=1e-5)
        assert far["metric"][-1] > 0.5


def test_a_stop_on_one_rank_stops_all(asked):
    found = of(asked, on_stop)
    assert all(result == found[0] for result in found)
    (one, early) = found[0]
    assert one[:2] == (2, "callback")
    assert early[0] < 6 and early[1] == "callback"


def test_a_bad_loss_on_one_rank_ends_all_at_the_same_step(asked):
    for words, steps, untouched in of(asked, on_bad_loss):
        assert words.startswith("fit: expected a finite loss, got ")
        assert words.endswith(" in epoch 2, batch 1; try a smaller learning rate")
        assert steps == 3 and untouched


def test_ctrl_c_on_one_rank_stops_all_at_the_same_step(asked):
    for found, restored in of(asked, on_ctrl_c):
        # a key pressed behind the sum of step 2 is told with step 3's, its epoch's last; at an epoch's end, at once
        assert found == [(1, 3, "Ctrl-C"), (1, 3, "Ctrl-C"), (2, 6, "Ctrl-C")]
        assert restored


def test_ranks_that_part_are_made_alike(asked):
    found = of(asked, on_restart)
    assert all(restarts > 0 and same(state, found[0][1]) for restarts, state in found)


def test_refusals(asked):
    found = of(asked, on_refused)
    for words in found:
        assert len(words) == 3
        assert all(line.startswith("fit: expected as many rows, batch size, epochs") for line in words)
        assert "[34, 16, 2, 47], [44, 16, 2, 47]" in words[0]
    with pytest.raises(ValueError, match="process group"):
        train(net())


def test_against_distributed_data_parallel(asked):
    for (losses, rounding), (_, unequal) in of(asked, on_judge):
        assert len(losses) == 4 and rounding < 1e-12
        assert unequal > 1e-5  # where shares are unequal, its mean of means is another number


@pytest.mark.parametrize("size, other", [(2, 4), (4, 2), (2, 1)])
def test_a_rank_dies_and_the_training_goes_on_with_another_number(tmp_path, size, other):
    path = str(tmp_path / "last.pt")
    found = launch(on_checkpoint, size, tmp_path, path, 0.0, 3, 2)
    assert found[1] is None
    for error in found[:1] + found[2:]:
        assert isinstance(error, RuntimeError)
        assert str(error).startswith(f"fit: expected {size} ranks, got no answer on rank ")
        assert "in epoch 2, batch 3; start all again from a checkpoint" in str(error)
    torch.manual_seed(0)
    model = net()
    history = train(model, 3, [StepLR(1, 0.5)], loop=None)
    for result in launch(on_checkpoint, other, tmp_path, path, 0.0, 3, 0, True):
        assert max(abs(a - b) for a, b in zip(result["step_loss"], history.step_loss, strict=True)) < 1e-6


def test_a_resumed_training_is_the_whole_one_to_the_bit(tmp_path):
    path = str(tmp_path / "last.pt")
    whole = launch(on_checkpoint, 2, tmp_path, None, 0.4, 3)
    launch(on_checkpoint, 2, tmp_path, path, 0.4, 3, 2)
    for result in launch(on_checkpoint, 2, tmp_path, path, 0.4, 3, 0, True):
        assert result["step_loss"] == whole[0]["step_loss"]
        assert same(result["state"], whole[0]["state"])


def test_waiting_has_an_end(tmp_path):
    words, seconds = launch(on_hang, 2, tmp_path, timeout=3.0)[0]
    assert words.startswith("fit: expected 2 ranks, got no answer on rank 0 in epoch 2, batch 2")
    assert 2 < seconds < 30


PROGRAM = """
import pathlib, sys
import torch, torch.distributed as dist
from minidl import SGD, Linear, MSELoss, circle, fit, one_hot, save
from minidl.ranks import RankLoop

dist.init_process_group()
rank = dist.get_rank()
x, label = circle(16)
model = Linear(2, 2)
model.loop = RankLoop
optimizer = SGD(model.parameters(), lr=0.1)
fit(model, MSELoss(), optimizer, (x, one_hot(label)), epochs=3, batch_size=8, progress=rank == 0)

class Keep:
    def on_epoch_end(self, run):
        if rank == 0:
            save("last.pt", run.model, run.optimizer, run.history)

history = fit(model, MSELoss(), optimizer, (x, one_hot(label)), epochs=10**6, batch_size=8,
              progress=False, callbacks=[Keep()])
pathlib.Path(f"{rank}.txt").write_text(f"{len(history.step_loss)} {history.stopped}")
dist.destroy_process_group()
"""


def test_torchrun_shows_one_bar_and_hands_ctrl_c_on(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "program.py"]
    with open(tmp_path / "shown", "w") as shown:
        process = subprocess.Popen(
            command, cwd=tmp_path, stderr=shown, env={**os.environ, "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"}
        )
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "last.pt").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        ends = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    finally:
        process.terminate()  # torchrun then ends its workers
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
    assert ends[0] == ends[1] and ends[0].endswith(" Ctrl-C")
    lines = (tmp_path / "shown").read_bytes().split(b"\n")  # a bar is one line, written again and again
    assert sum(b"3/3" in line for line in lines) == 1
    assert [file.name for file in tmp_path.glob("*.pt")] == ["last.pt"]
