"""A sweep's rows are trainings of single networks, and no interruption, file or memory changes them; its statistics."""

import itertools
import math
import random
import signal
import statistics

import numpy
import pandas
import pytest
import torch

import minidl.sweeps as sweeps
from minidl import (
    SGD,
    Adam,
    BCEWithLogitsLoss,
    Dropout,
    EarlyStopping,
    L1Loss,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
    StepLR,
    Tanh,
    accuracy,
    bootstrap,
    choose,
    circle,
    describe,
    error_rate,
    fit,
    grid,
    one_hot,
    predict,
    seeds_needed,
    standardize,
    sweep,
)
from minidl.replicas import replicas

F64 = torch.float64
BENDS = {"ReLU": ReLU, "Tanh": Tanh}
RESULTS = ["train_error", "validation_error", "test_error", "loss", "trained", "ended"]
SETTINGS = {"criterion": MSELoss, "optimizer": SGD, "epochs": 3, "batch_size": 20}
OPTIONS = SETTINGS | {"progress": False}


def build(width=5, bend="ReLU"):
    return Sequential(Linear(2, width), BENDS[bend](), Linear(width, 2)).to(F64)


def data(seed):
    g = torch.Generator().manual_seed(100 + seed)
    x, label = zip(*(circle(n, g) for n in (60, 30, 40)))
    return [(a.to(F64), one_hot(b).to(F64)) for a, b in zip(standardize(*x), label)]


def alone(job, seed, **options):
    """The row of one network, trained by itself."""
    job = SETTINGS | job
    torch.manual_seed(seed)
    model = build(**{k: v for k, v in job.items() if k in ("width", "bend")})
    rules = {k: v for k, v in job.items() if k in job["optimizer"].rule_names}
    pairs = data(seed)
    history = fit(
        *(model, job["criterion"](), job["optimizer"](model.parameters(), **rules), pairs[0]),
        **dict(epochs=job["epochs"], batch_size=job["batch_size"], progress=False),
        generator=torch.Generator().manual_seed(seed),
        **({"validation": pairs[1]} | options),
    )
    errors = [error_rate(predict(model, x), t) for x, t in pairs]
    return [*errors, history.loss[-1], len(history), history.stopped]


class Count:
    """Notes the size of each stack, and every epoch of a network."""

    whole = True

    def __init__(self, stacks, epochs):
        self.stacks, self.epochs = stacks, epochs

    def on_fit_start(self, run):
        self.stacks.append(replicas(run.model))

    def on_epoch_end(self, run):
        self.epochs.append(replicas(run.model))


class Counted:
    """`build`, `data` and callbacks that note their calls; `data` may give up."""

    def __init__(self, give_up_at=None):
        self.built, self.asked, self.stacks, self.epochs = [], [], [], []
        self.give_up_at = give_up_at

    def build(self, **options):
        self.built.append(options)
        return build(**options)

    def data(self, seed):
        self.asked.append(seed)
        if len(self.asked) == self.give_up_at:
            raise KeyboardInterrupt
        return data(seed)

    def sweep(self, configurations, seeds, **options):
        parts = {"callbacks": lambda: [Count(self.stacks, self.epochs)]}
        return sweep(self.build, self.data, configurations, seeds, **OPTIONS | parts | options)


def equal(a, b, atol=0.0):
    pandas.testing.assert_frame_equal(a, b, check_exact=atol == 0, rtol=0, atol=atol)


CONFIGURATIONS = {
    "lr": grid(lr=[0.1, 1, 0.5]),
    "each number of a replica": grid(lr=[0.1, 0.3], momentum=[0.0, 0.9], weight_decay=[0.0, 0.01]),
    "other rules": grid(lr=[0.1], momentum=[0.5], nesterov=[False, True]),
    "dampening": grid(lr=[0.1], momentum=[0.5], dampening=[0.0, 0.3]),
    "betas": grid(lr=[0.01], betas=[(0.9, 0.999), (0.5, 0.9)], optimizer=[Adam], eps=[1e-3]),
    "optimizer": grid(lr=[0.01, 0.02], optimizer=[SGD, Adam]),
    "criterion": grid(criterion=[MSELoss, L1Loss, BCEWithLogitsLoss], lr=[0.1]),
    "epochs and batch size": grid(epochs=[1, 4], batch_size=[15, 60], lr=[0.1]),
    "build": grid(width=[3, 4], bend=["ReLU", "Tanh"], lr=[0.2]),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_row_is_the_training_of_one_network(name):
    """Whatever a key is: a number of the optimizer, a setting, or an argument of build."""
    seeds = [3, 0]
    table = sweep(build, data, CONFIGURATIONS[name], seeds, **OPTIONS)
    assert len(table) == len(CONFIGURATIONS[name]) * 2
    jobs = itertools.product(CONFIGURATIONS[name], seeds)  # in this order
    for (_, row), (job, seed) in zip(table.iterrows(), jobs, strict=True):
        assert row["seed"] == seed
        for key, value in (SETTINGS | job).items():
            assert row[key] == getattr(value, "__name__", str(value) if isinstance(value, tuple) else value)
        *expected, ended = alone(job, seed)
        assert row[RESULTS[:-1]].tolist() == pytest.approx(expected, rel=0, abs=1e-12)
        assert row["ended"] == ended


def test_columns():
    table = sweep(build, data, grid(lr=[0.1, 1], width=[3]), range(2), **OPTIONS)
    assert list(table) == ["lr", "width", *SETTINGS, "seed", *RESULTS]
    kinds = {name: kind.kind for name, kind in table.dtypes.items() if kind.kind in "fi"}
    assert kinds == {
        **dict.fromkeys(["lr", "train_error", "validation_error", "test_error", "loss"], "f"),
        **dict.fromkeys(["width", "epochs", "batch_size", "seed", "trained"], "i"),
    }
    assert list(table.index) == [0, 1, 2, 3] and set(table["criterion"]) == {"MSELoss"}
    iterators = iter(grid(lr=[0.1, 0.2])), iter(range(3))  # used up by one look
    assert sweep(build, data, *iterators, **OPTIONS)["seed"].tolist() == [0, 1, 2] * 2


def test_grid():
    assert grid(lr=[0.1, 1], width=[5, 25]) == [
        {"lr": 0.1, "width": 5},
        {"lr": 0.1, "width": 25},
        {"lr": 1, "width": 5},
        {"lr": 1, "width": 25},
    ]
    assert grid() == [{}]


def test_another_metric_and_early_stopping():
    table = sweep(
        *(build, data, grid(lr=[0.5, 0.01]), range(3)),
        **OPTIONS | dict(epochs=40, metric=accuracy, callbacks=lambda: [EarlyStopping(patience=2)]),
    )
    errors = sweep(
        *(build, data, grid(lr=[0.5, 0.01]), range(3)),
        **OPTIONS | dict(epochs=40, callbacks=lambda: [EarlyStopping(patience=2)]),
    )
    for name in ("train_error", "validation_error", "test_error"):
        assert table[name].tolist() == pytest.approx((1 - errors[name]).tolist())
    for (_, row), (lr, seed) in zip(errors.iterrows(), itertools.product([0.5, 0.01], range(3)), strict=True):
        *expected, ended = alone({"lr": lr, "epochs": 40}, seed, callbacks=[EarlyStopping(patience=2)])
        assert row[RESULTS[:-1]].tolist() == pytest.approx(expected, rel=0, abs=1e-12) and row["ended"] == ended
    assert 0 < (errors["ended"] == "callback").sum() < 6


def test_a_callback_is_each_networks_own():
    """One that has ended is left alone: its row is that of its own sweep, whatever else is in the stack."""
    options = OPTIONS | dict(epochs=40, callbacks=lambda: [EarlyStopping(5), StepLR(10, 0.5)])
    together = sweep(build, data, grid(lr=[0.05, 30.0, 0.5]), range(2), **options)
    apart = [sweep(build, data, grid(lr=[lr]), range(2), **options) for lr in (0.05, 30.0, 0.5)]
    equal(together, pandas.concat(apart, ignore_index=True), 1e-12)
    for (_, row), (lr, seed) in zip(together.iterrows(), itertools.product([0.05, 30.0, 0.5], range(2)), strict=True):
        if lr == 30.0:
            continue  # at such a rate the last bit decides what comes next
        *expected, ended = alone({"lr": lr, "epochs": 40}, seed, callbacks=[EarlyStopping(5), StepLR(10, 0.5)])
        assert row[RESULTS[:-1]].tolist() == pytest.approx(expected, rel=0, abs=1e-12) and row["ended"] == ended


def test_an_instance_that_all_stacks_share_begins_anew():
    """`callbacks` may give the same rule again and again."""
    shared = [EarlyStopping(2), StepLR(3, 0.5)]
    options = OPTIONS | dict(epochs=15, memory=1)
    configurations = grid(lr=[0.5, 0.01])
    given = sweep(build, data, configurations, range(2), **options, callbacks=lambda: shared)
    fresh = sweep(
        build, data, configurations, range(2), **options, callbacks=lambda: [EarlyStopping(2), StepLR(3, 0.5)]
    )
    equal(given, fresh)


def test_every_row_has_its_best_network():
    """Also one that never stopped: no mixture of best and last ones."""
    options = OPTIONS | dict(epochs=12, callbacks=lambda: [EarlyStopping(100)])
    table = sweep(build, data, grid(lr=[1.0, 0.3]), range(2), **options)
    for (_, row), (lr, seed) in zip(table.iterrows(), itertools.product([1.0, 0.3], range(2)), strict=True):
        *expected, ended = alone({"lr": lr, "epochs": 12}, seed, callbacks=[EarlyStopping(100)])
        assert row[RESULTS[:-1]].tolist() == pytest.approx(expected, rel=0, abs=1e-12) and row["ended"] == ended == ""


NUMBERS = {
    "array": (numpy.array([3, 5]), numpy.logspace(-2, -1, 3), numpy.arange(2)),
    "tensor": (torch.tensor([3, 5]), torch.logspace(-2, -1, 3), torch.arange(2)),
    "float32": (numpy.array([3, 5], dtype=numpy.int32), numpy.logspace(-2, -1, 3, dtype=numpy.float32), range(2)),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_arrays_and_tensors(kind, tmp_path):
    """They are numbers in the table, for `choose`, and in the file."""
    widths, rates, seeds = NUMBERS[kind]
    path, plain = tmp_path / "sweep.csv", grid(width=[3, 5], lr=[float(rate) for rate in rates])
    expected = sweep(build, data, plain, range(2), **OPTIONS)
    table = sweep(build, data, grid(width=widths, lr=rates), seeds, path=path, **OPTIONS)
    equal(table, expected)
    chosen = choose(table, ["width", "lr"])
    assert chosen in plain and [type(value) for value in chosen.values()] == [int, float]
    build(chosen["width"])
    counted = Counted()
    equal(counted.sweep(plain, range(2), path=path), expected)  # the rows of the file are the same ones
    assert counted.asked == []


def test_rates_that_print_alike_are_two(tmp_path):
    """A tensor shows four digits of its numbers."""
    rates = torch.tensor([0.1, 0.1 + 1e-7], dtype=F64)
    assert str(rates[0]) == str(rates[1])
    table = sweep(build, data, grid(lr=rates), [0], path=tmp_path / "sweep.csv", **OPTIONS)
    assert table["lr"].tolist() == rates.tolist() and table["loss"].nunique() == 2
    counted = Counted()
    equal(counted.sweep(grid(lr=rates.tolist()), [0], path=tmp_path / "sweep.csv"), table)
    assert counted.asked == []


def test_yes_and_no_may_be_numpys():
    table = sweep(build, data, grid(lr=[0.1], momentum=[0.5], nesterov=numpy.array([False, True])), [0], **OPTIONS)
    assert table["nesterov"].tolist() == [False, True] and table["loss"].nunique() == 2


def test_callbacks_see_the_metric_on_the_points_to_choose_by():
    class See:
        whole = True

        def on_epoch_end(self, run):
            seen.append(run.history.validation_metric[-1])

    seen = []
    table = sweep(build, data, grid(lr=[0.5]), range(4), **OPTIONS | dict(metric=accuracy, callbacks=lambda: [See()]))
    assert seen[-1].tolist() == table["validation_error"].tolist() and len(seen) == 3


def test_diverged_networks_are_rows(tmp_path):
    """The last finite loss, how long it trained, why it ended; nan stays nan in a file."""
    path = tmp_path / "sweep.csv"
    table = sweep(build, data, grid(lr=[0.1, 1e200, 20.0]), range(2), path=path, **OPTIONS | dict(epochs=60))
    good, at_once, later = (table[table["lr"] == lr] for lr in (0.1, 1e200, 20.0))
    assert (good["trained"] == 60).all() and (good["ended"] == "").all() and good["loss"].notna().all()
    assert (at_once["trained"] == 0).all() and at_once["loss"].isna().all()
    assert at_once["ended"].str.fullmatch("a loss that is not finite in epoch 1, batch [23]").all()
    assert later["trained"].between(1, 59).all() and later["loss"].notna().all()
    assert table["test_error"].between(0, 1).all()
    counted = Counted()
    equal(counted.sweep(grid(lr=[0.1, 1e200, 20.0]), range(2), path=path, epochs=60), table)
    assert counted.asked == []


@pytest.mark.parametrize("memory", [1, 10**6, 2**40])
def test_memory_decides_how_many_are_in_a_stack(memory):
    """And not what comes out."""
    configurations = grid(width=[3, 6], lr=[0.1, 0.2])
    counted = Counted()
    table = counted.sweep(configurations, range(4), memory=memory)
    equal(table, sweep(build, data, configurations, range(4), **OPTIONS), 1e-12)
    assert sum(counted.stacks) == 16 and sum(counted.epochs) == 16 * 3
    if memory == 1:
        assert counted.stacks == [1] * 16
    elif memory == 2**40:
        assert counted.stacks == [8, 8]  # one for each width
    else:
        assert 1 < max(counted.stacks) < 8
    assert len(counted.asked) == 16 + 2  # one more for each shape, to guess its size


def test_one_stack_has_many_rates_momenta_decays_and_seeds():
    counted = Counted()
    counted.sweep(grid(lr=[0.1, 0.2], momentum=[0.0, 0.5], weight_decay=[0.0, 0.1]), range(2))
    assert counted.stacks == [16]
    counted.sweep(grid(lr=[0.1, 0.2], momentum=[0.5], dampening=[0.0, 0.1], bend=["ReLU", "Tanh"]), range(2))
    assert counted.stacks == [16, 4, 4, 4, 4]


def test_larger_networks_and_batches_need_more_memory():
    def stacks(width=20, batch_size=20, memory=10**7):
        counted = Counted()
        counted.sweep(grid(lr=[0.1], width=[width]), range(40), epochs=1, batch_size=batch_size, memory=memory)
        return len(counted.stacks)

    base = stacks()
    assert base > 1
    assert stacks(width=40) > base and stacks(batch_size=4000) > base and stacks(memory=2 * 10**7) < base
    plain, more, sets = Linear(2, 50, bias=False).to(F64), Linear(2, 50).to(F64), data(0)
    extra = sweeps._bytes(more, sets, 1) - sweeps._bytes(plain, sets, 1)
    assert extra >= 8 * 4 * 50  # a parameter, its gradient, and what an optimizer remembers of it
    assert sweeps._bytes(more, [(x.repeat(9, 1), t) for x, t in sets], 1) > sweeps._bytes(more, sets, 1)


@pytest.mark.parametrize("give_up_at", [1, 2, 4, 6, 8, 9, 14])
def test_resumed_after_an_interruption(give_up_at, tmp_path):
    """The rows are those of one run, and nothing is trained or asked for twice."""
    path, configurations = tmp_path / "sweep.csv", grid(width=[3, 6], lr=[0.1, 1])
    whole = Counted()
    expected = whole.sweep(configurations, range(3), memory=10**6)
    assert len(whole.stacks) >= 4
    first, second = Counted(give_up_at), Counted()
    with pytest.raises(KeyboardInterrupt):
        first.sweep(configurations, range(3), memory=10**6, path=path)
    kept = len(pandas.read_csv(path)) if path.exists() else 0
    assert sum(first.stacks) == kept  # what was trained is in the file
    equal(second.sweep(configurations, range(3), memory=10**6, path=path), expected)
    assert sum(first.stacks) + sum(second.stacks) == sum(whole.stacks) == 12
    assert sum(first.epochs) + sum(second.epochs) == sum(whole.epochs) == 36
    third = Counted()
    equal(third.sweep(configurations, range(3), path=path), expected)
    assert third.built == third.asked == third.stacks == []
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.csv"]


def test_an_interruption_in_the_middle_of_a_stack_costs_that_stack(tmp_path):
    path, configurations = tmp_path / "sweep.csv", grid(width=[3, 6], lr=[0.1, 1])

    class GiveUp:
        whole = True

        def __init__(self, by):
            self.by = by

        def on_epoch_end(self, run):
            if run.model[0].out_features == 6 and run.epoch == 2:
                self.by()

    def give_up():
        raise KeyboardInterrupt

    for by in (give_up, lambda: signal.raise_signal(signal.SIGINT)):  # fit ends after the step; the sweep must too
        first, second = Counted(), Counted()
        callbacks = {"callbacks": lambda first=first, by=by: [Count(first.stacks, first.epochs), GiveUp(by)]}
        with pytest.raises(KeyboardInterrupt):
            first.sweep(configurations, range(3), path=path, **callbacks)
        assert first.stacks == [6, 6]
        table = pandas.read_csv(path, keep_default_na=False)
        assert table["width"].tolist() == [3] * 6 and (table["trained"] == 3).all()
        equal(
            second.sweep(configurations, range(3), path=path), sweep(build, data, configurations, range(3), **OPTIONS)
        )
        assert second.stacks == [6]
        path.unlink()


def test_a_file_may_have_more_rows_and_gets_more(tmp_path):
    path = tmp_path / "sweep.csv"
    first, second, third = Counted(), Counted(), Counted()
    first.sweep(grid(lr=[0.1, 1]), range(3), path=path)
    wider = second.sweep(grid(lr=[1, 0.3]), range(1, 5), path=path)  # two of these are there
    assert second.stacks == [6] and len(pandas.read_csv(path)) == 12
    equal(wider, sweep(build, data, grid(lr=[1, 0.3]), range(1, 5), **OPTIONS), 1e-12)
    assert wider["lr"].tolist() == [1.0] * 4 + [0.3] * 4 and wider["seed"].tolist() == [1, 2, 3, 4] * 2
    third.sweep(grid(lr=[0.1]), range(3), path=str(path), criterion=L1Loss)  # another loss: other rows
    assert third.stacks == [3] and len(pandas.read_csv(path)) == 15


@pytest.mark.parametrize(
    "configurations",
    [grid(lr=[0.1]), grid(lr=[0.1], width=[3], bend=["ReLU"]), grid(lr=[0.1], momentum=[0.5])],
    ids=["fewer", "more", "other"],
)
def test_the_file_of_another_sweep_is_refused(configurations, tmp_path):
    path = tmp_path / "sweep.csv"
    sweep(build, data, grid(lr=[0.1], width=[3]), range(2), path=path, **OPTIONS)
    before, counted = path.read_bytes(), Counted()
    with pytest.raises(ValueError, match=r"sweep: expected the columns \['lr'.* got \['lr', 'width'"):
        counted.sweep(configurations, range(2), path=path)
    assert path.read_bytes() == before and counted.built == []


@pytest.mark.parametrize(
    "configurations, seeds, rule",
    [
        ([], range(2), "at least one configuration and one seed"),
        (grid(lr=[0.1]), [], "at least one configuration and one seed"),
        ([{"lr": 0.1}, {"lr": 0.1, "width": 3}], [0], "all with the same keys"),
        (grid(lr=[0.1], loss=[1]), [0], "none of .*'loss'"),
        (grid(lr=[0.1, 0.1]), [0], "each configuration and each seed once"),
        (grid(lr=[1, 1.0]), [0], "each configuration and each seed once"),
        (grid(lr=[0.1]), [0, 0], "each configuration and each seed once"),
        ([{"lr": 0.1, "width": 3}, {"width": 3, "lr": 0.1}], [0], "each configuration and each seed once"),
        (grid(lr=[0.1], bend=[lambda: 1, lambda: 2]), [0], "functions go by name"),
    ],
)
def test_refusals(configurations, seeds, rule):
    counted = Counted()
    with pytest.raises(ValueError, match=f"sweep: expected .*{rule}"):
        counted.sweep(configurations, seeds)
    assert counted.built == counted.asked == []


def test_keys_may_come_in_another_order():
    table = sweep(build, data, [{"lr": 0.1, "width": 3}, {"width": 4, "lr": 0.2}], [0], **OPTIONS)
    assert table[["lr", "width"]].to_numpy().tolist() == [[0.1, 3], [0.2, 4]]


def test_the_global_generator_stays_as_it_was():
    def with_dropout(width=5):
        return Sequential(Linear(2, width), Dropout(0.5), Linear(width, 2)).to(F64)

    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = sweep(with_dropout, data, grid(lr=[0.1]), range(2), **OPTIONS)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    equal(sweep(with_dropout, data, grid(lr=[0.1]), range(2), **OPTIONS), first)


def test_progress(capsys):
    options = OPTIONS | {"progress": True}
    sweep(build, data, grid(bend=["ReLU", "Tanh"], lr=[0.1, 0.2]), range(2), **options)
    shown = capsys.readouterr().err
    assert " 0/24" in shown and " 24/24" in shown and "100%" in shown
    sweep(build, data, grid(lr=[0.1]), range(2), **OPTIONS)
    assert capsys.readouterr().err == ""


def test_progress_counts_the_epochs_of_all_networks(monkeypatch, tmp_path):
    class Bar:
        n = 0

        def __init__(self, **options):
            seen.append(options["total"])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen.append(self.n)

        def update(self, n):
            self.n += n
            seen.append(self.n)

    monkeypatch.setattr(sweeps, "tqdm", Bar)
    path = tmp_path / "sweep.csv"
    for configurations, expected in (
        (grid(lr=[0.1, 0.2]), [18, 6, 12, 18]),
        (grid(lr=[0.1, 0.3]), [9, 3, 6, 9]),  # half of the rows are in the file
        (grid(lr=[1e200]), [9, 3, 9]),  # all of them end at once
        (grid(lr=[0.1]), [0]),
    ):
        seen = []
        sweep(build, data, configurations, range(3), path=path, **OPTIONS)
        assert [n for n, _ in itertools.groupby(seen)] == expected  # the total, then what the bar shows


TABLE = pandas.DataFrame(
    {
        "lr": [0.1] * 4 + [0.5] * 4,
        "width": [5, 5, 25, 25] * 2,
        "seed": [0, 1] * 4,
        "validation_error": [0.10, 0.20, 0.05, 0.07, 0.34, 0.02, 0.04, 0.06],
        "test_error": [0.11, 0.19, 0.16, 0.04, 0.15, 0.40, 0.05, 0.01],
    }
)


def test_describe():
    found = describe(TABLE, "lr")
    assert list(found) == ["lr", "n", "mean", "std", "low", "high", "median", "stuck", "nan"]
    for row, (lr, values) in zip(found.to_dict("records"), TABLE.groupby("lr")["test_error"]):
        values = values.tolist()
        assert row["lr"] == lr and row["n"] == 4
        assert row["mean"] == pytest.approx(sum(values) / 4)
        assert row["std"] == pytest.approx(statistics.stdev(values))  # n - 1 below
        assert row["median"] == pytest.approx(statistics.median(values))
        assert (row["low"], row["high"]) == bootstrap(values)
    assert found["stuck"].tolist() == [2, 1]  # above 0.15, not at it
    assert found["nan"].tolist() == [0, 0]
    assert describe(TABLE, "lr", stuck=0.04)["stuck"].tolist() == [3, 3]
    both = describe(TABLE.iloc[::-1], ["width", "lr"], value="validation_error")
    assert both[["width", "lr"]].to_numpy().tolist() == [[25, 0.5], [5, 0.5], [25, 0.1], [5, 0.1]]  # as they come
    assert both["mean"].tolist() == pytest.approx([0.05, 0.18, 0.06, 0.15])
    one = describe(TABLE[TABLE["seed"] == 0], ["lr", "width"])
    assert one["n"].tolist() == [1] * 4 and one[["std", "low", "high"]].isna().all(axis=None)


HALF = TABLE.assign(
    test_error=[math.nan, 0.19, math.nan, math.nan, 0.15, 0.40, 0.05, 0.01],
    validation_error=[0.001, math.nan, math.nan, math.nan, 0.34, 0.02, 0.04, 0.06],
)


def test_runs_without_a_value_are_counted_apart():
    """They are in no mean, and n is how many are."""
    found = describe(HALF, ["lr", "width"]).to_dict("records")
    assert [(row["n"], row["nan"]) for row in found] == [(1, 1), (0, 2), (2, 0), (2, 0)]
    assert found[0]["mean"] == found[0]["median"] == 0.19 and found[0]["stuck"] == 1
    assert all(math.isnan(found[0][name]) for name in ("std", "low", "high"))  # one seed tells no spread
    assert all(math.isnan(found[1][name]) for name in ("mean", "std", "low", "high", "median"))
    assert found[1]["stuck"] == 0
    full = describe(TABLE, ["lr", "width"]).to_dict("records")
    assert found[2:] == full[2:]


def test_a_configuration_with_a_run_without_a_value_is_never_chosen():
    """Neither one that has none, nor one whose other runs are the best."""
    assert choose(HALF, ["lr", "width"]) == {"lr": 0.5, "width": 25}
    assert choose(HALF[HALF["width"] == 5], ["lr"]) == {"lr": 0.5}
    for by in ("width", ["width"]):
        with pytest.raises(ValueError, match="choose: expected a configuration with an error for each seed, got none"):
            choose(HALF, by)
    with pytest.raises(ValueError, match="choose: expected"):
        choose(HALF[HALF["lr"] == 0.1], ["lr", "width"])


def test_choose():
    assert choose(TABLE, ["lr", "width"]) == {"lr": 0.5, "width": 25}
    assert choose(TABLE, "lr") == {"lr": 0.1}  # means of 0.105 and 0.115
    assert choose(TABLE, "width") == {"width": 25}
    chosen = choose(TABLE, ["lr", "width"])
    assert type(chosen["lr"]) is float and type(chosen["width"]) is int  # fit for build(**chosen)
    flattered = TABLE.assign(test_error=TABLE["validation_error"].max() - TABLE["validation_error"])
    assert choose(flattered, ["lr", "width"]) == chosen  # never by the test error


def test_bootstrap_draws_what_all_redraws_are():
    """27 redraws of three values, counted; the interval at a level cuts that distribution."""
    values = [0.0, 1.0, 5.0]
    means = sorted(sum(redraw) / 3 for redraw in itertools.product(values, repeat=3))
    for level in (0.5, 0.75, 0.9):
        cut = 27 * (1 - level) / 2
        assert abs(cut - round(cut)) > 0.1  # not at a jump
        low, high = means[int(cut)], means[-1 - int(cut)]
        assert bootstrap(values, level, samples=50_000) == pytest.approx((low, high))


def test_bootstrap_of_many_is_the_normal_interval():
    g = torch.Generator().manual_seed(0)
    for n in (100, 400):
        values = 3 + 2 * torch.randn(n, generator=g)
        for level, z in ((0.95, 1.960), (0.80, 1.282)):
            low, high = bootstrap(values, level, samples=4000)
            half = z * values.std().item() / math.sqrt(n)
            assert low == pytest.approx(values.mean().item() - half, abs=0.1 * half)
            assert high == pytest.approx(values.mean().item() + half, abs=0.1 * half)


def test_bootstrap_is_repeatable_and_alone():
    state, values = torch.get_rng_state(), [random.Random(i).random() for i in range(20)]
    assert bootstrap(values) == bootstrap(torch.tensor(values, dtype=F64)) == bootstrap(tuple(values))
    assert bootstrap(values, seed=1) != bootstrap(values)
    assert torch.equal(torch.get_rng_state(), state)
    assert bootstrap([2.5]) == (2.5, 2.5)
    assert bootstrap(pandas.Series(values, index=range(5, 25))) == bootstrap(values)
    for wrong in ([], [1.0, math.nan, 2.0], torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="bootstrap: expected at least one value and no nan, got"):
            bootstrap(wrong)


def test_seeds_needed():
    assert seeds_needed(0.5, 1.0) == seeds_needed(-0.5, 1.0) == seeds_needed(5, 10) == 32  # (2.8 * 2)^2 = 31.36
    assert seeds_needed(0.25, 1.0) == 126  # (2.8 * 4)^2 = 125.44
    assert seeds_needed(3.0, 1.0) == 2 and seeds_needed(1.0, 0.0) == 2  # one pair has no spread
    assert isinstance(seeds_needed(0.1, 1.0), int)
    with pytest.raises(ValueError, match="seeds_needed: expected a difference, got 0"):
        seeds_needed(0, 1.0)


def test_the_promised_power_is_kept():
    """In four of five experiments of that size, the mean is further from 0 than 1.96 standard errors."""
    g = torch.Generator().manual_seed(0)
    n = seeds_needed(0.4, 1.0)
    pairs = 0.4 + torch.randn(20_000, n, generator=g, dtype=F64)
    found = (pairs.mean(1).abs() > 1.96 / math.sqrt(n)).double().mean().item()
    assert found == pytest.approx(0.80, abs=0.015)
