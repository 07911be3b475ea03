"""A sweep on other processes is the sweep of one, to the bit, whoever dies; what is done is kept, nothing runs twice.

Workers are processes of this machine: forked from a server that has imported PyTorch once, or those of a dask cluster
on the loopback. What runs on them stands in this module; `killing` and its like spare the process that calls `sweep`.
"""

import contextlib
import errno
import functools
import importlib.util
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import pandas
import pytest
import torch

from minidl import (
    SGD,
    Dropout,
    Linear,
    MSELoss,
    Sequential,
    Tanh,
    circle,
    error_rate,
    grid,
    one_hot,
    standardize,
    sweep,
    sweeps,
)

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["distributed", "minidl", "pandas", "pytest", "torch"])
OPTIONS = {"criterion": MSELoss, "optimizer": SGD, "epochs": 2, "batch_size": 20, "memory": 500_000, "progress": False}
SEEDS, BAD = range(17), 4  # in stacks of three: 0 1 2, 3 4 5 and so on, and something happens at the seed 4
STACKS, LOST = 6, [3, 4, 5]


def build(width=5):
    """Dropout: masks depend on the stack, and on the process's generator."""
    return Sequential(Linear(2, width), Tanh(), Dropout(0.3), Linear(width, 2))


def data(seed):
    g = torch.Generator().manual_seed(100 + seed)
    x, label = zip(*(circle(n, g) for n in (60, 30, 40)))
    return [(a, one_hot(b)) for a, b in zip(standardize(*x), label)]


def killing(caller, seed):
    """The worker dies, as by a power cut."""
    if seed == BAD and os.getpid() != caller:
        os.kill(os.getpid(), signal.SIGKILL)
    return data(seed)


def killing_once(caller, flag, seed):
    """The first worker that comes here dies."""
    if seed == BAD and os.getpid() != caller:
        with contextlib.suppress(FileExistsError), open(flag, "x"):
            os.kill(os.getpid(), signal.SIGKILL)
    return data(seed)


def failing(seed):
    if seed == BAD:
        raise ValueError("no data for this seed")
    return data(seed)


def interrupting(caller, seed):
    """Ctrl-C for the caller, who waits; this worker goes on for a while."""
    if seed == BAD and os.getpid() != caller:
        os.kill(caller, signal.SIGINT)
        time.sleep(0.5)
    return data(seed)


def state(output, target):
    """No metric, but the threads and the default dtype of the process that trains."""
    return torch.get_num_threads() + (torch.get_default_dtype() == torch.float64) / 2


class Here(Executor):
    """Runs what it is given at once, in the caller's thread; notes the stacks, as seeds."""

    def __init__(self):
        self.stacks = []

    def submit(self, function, *given):
        if function.__name__ == "_task":
            self.stacks.append([job["seed"] for job in given[1]])
        future = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*given))
        except Exception as error:
            future.set_exception(error)
        return future


def run(data=data, build=build, configurations=({"width": 3, "lr": 0.1},), **options):
    return sweep(build, data, configurations, SEEDS, **OPTIONS | options)


def equal(table, expected):
    pandas.testing.assert_frame_equal(table, expected, check_exact=True)


def missing(path):
    """The seeds that have no row in the file."""
    return sorted({*SEEDS} - {*(pandas.read_csv(path)["seed"] if path.exists() else [])})


@pytest.fixture(autouse=True)
def in_time():
    """An engine that hangs fails the test, and does not stop all others."""

    def late(*_):
        raise TimeoutError("expected an answer of the workers within five minutes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def serial():
    return run()


@pytest.fixture(scope="module")
def pool():
    """Two processes that no test kills."""
    with ProcessPoolExecutor(2, SERVER) as executor:
        yield executor


@pytest.fixture(scope="module")
def dask():
    """The executor of a cluster: two processes with one thread each; no dashboard, and on the loopback alone."""
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.scheduler.worker-saturation": 1.0,  # who dies takes no second stack with it
        "distributed.deploy.lost-worker-timeout": "10 minutes",  # a busy machine may need a while to start the next one
    }
    local = {"host": "127.0.0.1", "dashboard_address": None, "silence_logs": "CRITICAL"}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=2, threads_per_worker=1, **local) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


def test_a_pool_gives_the_serial_table(pool):
    """Of two groups of stacks as well, in every column."""
    configurations = grid(width=[3, 4], lr=[0.1, 0.2])
    equal(run(configurations=configurations, executor=pool), run(configurations=configurations))


def test_one_task_a_stack_and_stacks_are_cut_by_memory_alone(serial):
    here, whole = Here(), Here()
    equal(run(executor=here), serial)
    assert here.stacks == [[*SEEDS][i : i + 3] for i in range(0, len(SEEDS), 3)] and len(here.stacks) == STACKS
    run(executor=whole, memory=2**28)
    assert whole.stacks == [[*SEEDS]]


def test_a_cluster_gives_the_serial_table(dask, serial, tmp_path):
    equal(run(executor=dask, path=tmp_path / "rows.csv"), serial)
    equal(run(executor=Unused(), path=tmp_path / "rows.csv"), serial)  # all of it is in the file


class Unused(Executor):
    """No worker is asked for anything."""

    def submit(self, *_):
        raise AssertionError


def test_a_cluster_loses_a_worker(dask, serial, tmp_path):
    """The stack that it trained runs again elsewhere, and draws the same numbers."""
    flag = tmp_path / "died"
    equal(run(functools.partial(killing_once, os.getpid(), flag), executor=dask), serial)
    assert flag.exists()


def test_a_stack_that_kills_its_workers_leaves_the_others(dask, tmp_path):
    path = tmp_path / "rows.csv"
    with pytest.raises(RuntimeError, match=r"(?s)rows from 6 stacks, got none from 1, .*'seed': 3.*KilledWorker"):
        run(functools.partial(killing, os.getpid()), executor=dask, path=path)
    assert missing(path) == LOST


def test_a_pool_that_loses_a_worker_loses_nothing_that_was_finished(serial, tmp_path):
    """The pool is broken, so all that has not ended fails; the next pool trains what is missing, and nothing else."""
    path, flag, here = tmp_path / "rows.csv", tmp_path / "died", Here()
    data = functools.partial(killing_once, os.getpid(), flag)
    with ProcessPoolExecutor(1, SERVER) as executor:  # one worker: the stacks come in their order
        with pytest.raises(
            RuntimeError, match="sweep: expected rows from 6 stacks, got none from 5.*BrokenProcessPool"
        ):
            run(data, executor=executor, path=path)
    assert missing(path) == [*SEEDS][3:]
    equal(run(data, executor=here, path=path), serial)
    assert sum(here.stacks, []) == [*SEEDS][3:]


@pytest.mark.parametrize("name", ["pool", "dask"])
def test_a_stack_that_fails_lets_the_others_end(name, request, serial, tmp_path):
    path, here = tmp_path / "rows.csv", Here()
    with pytest.raises(RuntimeError, match=r"got none from 1, first .*'seed': 3}: ValueError\('no data") as caught:
        run(failing, executor=request.getfixturevalue(name), path=path)
    assert isinstance(caught.value.__cause__, ValueError) and str(path) in str(caught.value)
    assert missing(path) == LOST
    equal(run(executor=here, path=path), serial)
    assert here.stacks == [LOST]


def test_ctrl_c_while_the_caller_waits(serial, tmp_path):
    """What has not begun is dropped, what is done is kept."""
    path = tmp_path / "rows.csv"
    with ProcessPoolExecutor(1, SERVER) as executor:
        with pytest.raises(KeyboardInterrupt):
            run(functools.partial(interrupting, os.getpid()), executor=executor, path=path)
    left = missing(path)
    assert left == [*SEEDS][3:]  # begun was 3 4 5; a pool holds one task more ready
    equal(run(path=path), serial)


def test_ctrl_c_while_the_caller_writes(monkeypatch, serial, tmp_path):
    """All that had ended by then is written."""
    path, write, calls = tmp_path / "rows.csv", sweeps._write, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        write(*given)

    monkeypatch.setattr(sweeps, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(executor=Here(), path=path)
    assert missing(path) == []


def test_a_full_disk_ends_the_sweep(pool, tmp_path, monkeypatch):
    def full(path, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sweeps, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        run(executor=pool, path=tmp_path / "rows.csv")


@pytest.mark.parametrize("name", ["build", "data", "callbacks", "metric", "configurations"])
def test_what_cannot_be_sent_is_named_before_anything_runs(name, pool, tmp_path):
    from_here = {
        "build": lambda width: build(width),
        "data": lambda seed: data(seed),
        "callbacks": lambda: [],
        "metric": lambda output, target: error_rate(output, target),
        "configurations": [{"lr": 0.1, "width": 3, "criterion": lambda: MSELoss()}],
    }
    path = tmp_path / "rows.csv"
    with pytest.raises(TypeError, match=f"sweep: expected {name} that a worker can import, got .*lambda.*[Pp]ickle"):
        run(**{name: from_here[name]}, executor=pool, path=path)
    assert not path.exists()


def test_a_module_that_workers_do_not_have():
    """It ends a pool's worker, and the pool; the message says at what."""
    module = types.ModuleType("only_here")
    exec("def callbacks():\n    return []", vars(module))
    sys.modules["only_here"] = module
    with ProcessPoolExecutor(1, SERVER) as executor:
        with pytest.raises(TypeError, match="expected callbacks that a worker can import, got .*BrokenProcessPool"):
            run(callbacks=module.callbacks, executor=executor)


def test_loky_and_dask_carry_lambdas(dask, serial):
    import loky

    given = {"data": lambda seed: data(seed), "callbacks": lambda: []}
    equal(run(**given, executor=dask), serial)
    with loky.ProcessPoolExecutor(1, context=loky.backend.get_context("loky")) as executor:
        equal(run(**given, executor=executor), serial)


@pytest.mark.parametrize("wrong", [4, "pool", ThreadPoolExecutor])
def test_what_is_no_executor_of_processes(wrong):
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(wrong(1)) if callable(wrong) else wrong
        words = "expected one thread a worker, got a second training" if callable(wrong) else "dask's is client"
        with pytest.raises(TypeError, match=f"sweep: expected a concurrent.futures.Executor of processes .*{words}"):
            run(executor=executor)


def test_a_client_is_no_executor(dask):
    with pytest.raises(TypeError, match=r"expected a concurrent.futures.Executor .*Client.*get_executor\(pure=False\)"):
        run(executor=dask._client)


def test_threads_of_one_worker_are_refused(serial):
    """Two threads that train at once would share a generator; one after the other, they are refused nothing."""
    begun, end = threading.Event(), threading.Event()

    def slow(seed):
        begun.set()
        return end.wait(60) and data(seed)

    settings = {name: OPTIONS[name] for name in ("criterion", "optimizer", "epochs", "batch_size")}
    job = {"width": 3, "lr": 0.1, "seed": 0, **settings}
    given = [job], build, data, list, error_rate
    mine = torch.get_num_threads(), torch.get_default_dtype()
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(sweeps._task, mine, [job], build, slow, list, error_rate)
        assert begun.wait(60)
        with pytest.raises(RuntimeError, match="expected one thread a worker, got a second training in process"):
            executor.submit(sweeps._task, mine, *given).result(60)
        end.set()
        assert first.result(60)[2] == executor.submit(sweeps._task, mine, *given).result(60)[2]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_with_threads_is_refused():
    """It could wait for ever for threads that the fork does not have."""
    torch.set_num_threads(2)
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
            with pytest.raises(TypeError, match="expected one thread, or processes that are spawned, got a fork and 2"):
                run(executor=executor)
    finally:
        torch.set_num_threads(1)


def test_workers_have_the_callers_threads_and_dtype(pool):
    """So sums have the serial order, and numbers the serial type; and nothing of it stays with the worker."""
    for threads, dtype in ((2, torch.float64), (1, torch.float32)):
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        try:
            table = run(executor=pool, metric=state)
        finally:
            torch.set_num_threads(1)
            torch.set_default_dtype(torch.float32)
        assert table["test_error"].unique().tolist() == [threads + (dtype == torch.float64) / 2]
    assert pool.submit(state, None, None).result() == 1


def test_the_generators_stay_as_they_were(pool):
    before, theirs = torch.get_rng_state(), pool.submit(torch.get_rng_state).result()
    run(executor=pool)
    run(executor=pool)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(pool.submit(torch.get_rng_state).result(), theirs)


def test_progress_counts_the_epochs_of_all_stacks(capsys, tmp_path):
    run(executor=Here(), progress=True)
    assert "34/34" in capsys.readouterr().err
    run(executor=Here())
    assert capsys.readouterr() == ("", "")


def test_the_memory_that_would_suit(capsys):
    """Too few stacks for the workers; too short ones for whoever hands them out; neither."""
    jobs = [{"width": 3, "lr": 0.1, "seed": seed, "optimizer": SGD, "batch_size": 20} for seed in SEEDS]
    stacks = [*sweeps._chunks(build, data, jobs, OPTIONS["memory"])]
    one = stacks[-1][1] // 2  # bytes of a network; the last stack has two
    assert [(len(part), size) for part, size in stacks] == [(3, 3 * one)] * 5 + [(2, 2 * one)]
    for workers, seconds, memory, count in (
        (4, 10.0, 3 * one * 6 // 16, 17),  # six stacks for four: sixteen would be better, of one network each
        (2, 0.030, 4 * one, 5),  # two workers, 20 ms a stack: at least 40 ms
        (1, 10.0, None, None),
        (2, 0.040, None, None),
    ):
        took = [((f"machine {k % workers}", 1), seconds, 0.015) for k in range(len(stacks))]
        sweeps._advise(print, stacks, took, 0.005, build, data)
        advice = f"sweep: 6 stacks of {seconds:.2g} s, {workers} workers; memory={memory} would make {count} stacks\n"
        assert capsys.readouterr().out == (advice if memory else "")


MPI = """
from mpi4py.futures import MPIPoolExecutor
import test_cluster

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        table = test_cluster.run(executor=executor)
    table.to_pickle("table")
"""


@pytest.mark.skipif(
    not (shutil.which("mpiexec") and importlib.util.find_spec("mpi4py")), reason="there is no mpiexec, or no mpi4py"
)
def test_mpi_gives_the_serial_table(serial, tmp_path):
    """Three processes: the first one calls, two train; whose `mpiexec` it is, decides which of the settings is read."""
    (tmp_path / "program.py").write_text(MPI)
    paths = os.pathsep.join([str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    open_mpi = {"ALLOW_RUN_AS_ROOT": "1", "ALLOW_RUN_AS_ROOT_CONFIRM": "1", "MCA_rmaps_base_oversubscribe": "1"}
    open_mpi |= {"MCA_btl": "self,tcp", "MCA_btl_tcp_if_include": "lo"}
    known = {f"OMPI_{name}": value for name, value in open_mpi.items()} | {"HYDRA_IFACE": "lo", "PYTHONPATH": paths}
    command = ["mpiexec", "-n", "3", sys.executable, "-m", "mpi4py.futures", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | known, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    equal(pandas.read_pickle(tmp_path / "table"), serial)
