"""The benchmark: all sides of a row do the same work, and what is printed and kept is what was measured.

Nothing here looks at a clock.
"""

import dataclasses
import json

import bench
import matplotlib.pyplot as plt
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

CASES = {f"{case.kind} {case.name}": case for case in bench.cases()}
REPORTS = ["003 SGD", "002 Tanh SGD", "000 Adam"]
SINGLE = [f"step {name}" for name in [*REPORTS, "784-1024-1024-10, batch 256", "003, width 100", "003, batch 10"]]


def losses(name, side, steps):
    """What a side of a row gives, a loss a step; where networks are looped over, one network's after another's."""
    return torch.tensor([loss.tolist() if torch.is_tensor(loss) else loss for loss in side_of(name, side).run(steps)])


def side_of(name, side):
    return bench.SIDES[side](CASES[name])


@pytest.mark.parametrize("name", SINGLE)
def test_a_step_is_the_same_on_both_sides(name):
    """The loss is the same to the bit; minidl's first step was taken when the side was made."""
    ours, theirs = losses(name, "minidl", 12), losses(name, "eager", 13)
    assert torch.equal(ours, theirs[1:]) and len(set(theirs.tolist())) == 13
    for fast in ("foreach", "fused"):  # their optimisers round another way
        torch.testing.assert_close(ours, losses(name, fast, 13)[1:])


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("side", bench.HAND)
def test_a_step_by_hand_is_the_same(name, side):
    """With minidl's modules, or with bare tensors: losses to the bit, PyTorch's and those of `fit`."""
    mine, theirs = losses(f"step {name}", side, 13), losses(f"step {name}", "eager", 13)
    assert (mine - theirs).abs().max() == 0 and torch.equal(mine[1:], losses(f"step {name}", "minidl", 12))
    assert len(set(theirs.tolist())) == 13


def test_all_by_hand_take_part_in_the_reports_rows_alone():
    for name, case in CASES.items():
        kind, _, rest = name.partition(" ")
        wanted = {"step": set(bench.HAND), "fit": {"by hand"}}[kind] if rest in REPORTS else set()
        assert set(bench.HAND) & set(case.others) == wanted


def test_a_fit_by_hand_is_the_same():
    """Two epochs of the loop by hand over `fit`'s own batches: the same losses, to the bit."""
    mine, whole = (side_of("fit 003 SGD", side).run(2) for side in ("by hand", "minidl"))
    assert mine == list(whole) and len(set(mine)) == 20


def test_bare_operations_call_no_class_of_minidl(monkeypatch):
    """What is left is PyTorch's."""
    made = side_of("step 000 Adam", "bare operations")

    def called(*_):
        raise AssertionError("called")

    for kind in (bench.minidl.Linear, bench.minidl.Sigmoid, bench.minidl.Sequential):
        monkeypatch.setattr(kind, "forward", called)
        monkeypatch.setattr(kind, "backward", called)
    for kind in (bench.minidl.MSELoss, bench.minidl.Adam):
        monkeypatch.setattr(kind, "forward" if kind is bench.minidl.MSELoss else "step", called)
    assert len(made.run(2)) == 2
    with pytest.raises(AssertionError, match="called"):
        side_of("step 000 Adam", "by hand").run(1)


@pytest.mark.parametrize("name", REPORTS)
def test_a_fit_is_the_same_on_both_sides(name):
    ours, theirs = (losses(f"fit {name}", side, 3) for side in ("minidl", "eager"))
    assert len(ours) == 30 and torch.equal(ours, theirs)


@pytest.mark.parametrize("kind, own", [("step", 1), ("fit", 0)])
def test_replicas_are_the_same_on_all_sides(kind, own):
    """A stack, the loop and vmap give the losses of the same ten networks."""
    name, steps = f"{kind} 003 x 10", 2 if kind == "fit" else 12
    ours = losses(name, "minidl", steps)  # (steps, R)
    assert ours.shape == ((20, 10) if kind == "fit" else (12, 10))
    for side in (*bench.EAGER, *bench.VMAP):
        theirs = losses(name, side, steps + own)
        theirs = theirs if side in bench.VMAP else theirs.reshape(10, -1).mT
        torch.testing.assert_close(ours, theirs[own:].to(ours))


@pytest.mark.parametrize("name", ["step 003 SGD", "step 000 Adam", "step 784-1024-1024-10, batch 256", "step 003 x 3"])
def test_every_side_multiplies_as_much_as_the_row_says(name):
    """PyTorch's own counter finds that many operations in the products of three steps."""
    others = {*bench.HAND, "vmap"}.intersection(CASES[name].others)
    for side in ("minidl", "eager", "products", *others):
        made = side_of(name, side)
        with FlopCounterMode(display=False) as counter:
            made.run(3)
        assert counter.get_total_flops() == 3 * made.networks * CASES[name].flops(), side


def test_memory_is_what_a_step_holds():
    """At least all gradients, in bytes, and three times as much for a stack of three."""
    one, three = (bench.peak_bytes(side_of(f"step 003 x {r}", "minidl")) for r in (1, 3))
    parameters = sum(p.numel() for p in CASES["step 003 x 1"].network(bench.minidl).parameters())
    assert 4 * parameters < one < 80 * parameters and three == pytest.approx(3 * one, rel=0.01)


def test_a_row_goes_on_without_a_compiler(monkeypatch):
    """The row says why there is no compiled side, and has all others."""
    monkeypatch.setattr(bench.shutil, "which", lambda name: None)
    case = dataclasses.replace(CASES["step 003 SGD"], others=("eager", "compile", "products"))
    row = bench.bench(case, 2, rounds=2)
    assert set(row["sides"]) == {"minidl", "eager", "products"}
    assert row["failed"] == {"compile": "RuntimeError: no C++ compiler found"}


def made_up(threads):
    """Rows in which each side of number i takes (i + 1) microseconds, as many of the processors, and i + 1 KiB."""
    rows, order = [], [who for who in bench.ALL if who not in bench.HAND] + [*bench.HAND]
    for name, case in CASES.items():
        sides = {who: who in ("minidl", *case.others) and i + 1 for i, who in enumerate(order)}
        times = {who: dict.fromkeys(("median", "low", "high", "processor"), k * 1e-6) for who, k in sides.items() if k}
        for who, k in sides.items() if case.replicas == 0 and "products" in case.others and threads == 1 else []:
            if k and who != "products":
                times[who]["bytes"] = 1024 * k
        rows.append(dict(name=name, threads=threads, replicas=case.replicas, failed={}, flops=2000, sides=times))
        if "compile" in case.others:
            rows[-1]["compile_seconds"] = 7.0
    return rows


@pytest.fixture
def results():
    rows = {threads: made_up(threads) for threads in (1, 2)}
    goals = {str(threads): bench.goals(rows[threads]) for threads in rows}
    return dict(machine=bench.machine(), rounds=5, peak={"1": 1e10, "2": 2e10}, goals=goals, rows=rows[1] + rows[2])


def test_goals_compare_with_the_best_of_the_others(results):
    """Eager is the fastest of its three, at 2; the fastest vmap needs 6, a step by hand 10, bare operations 11."""
    found = {goal["name"]: (goal["ratio"], goal["goal"], goal["reached"]) for goal in results["goals"]["1"]}
    large = "step 784-1024-1024-10, batch 256"
    expected = {
        "step 003 SGD: eager / by hand": (0.2, 2.0, False),
        "step 002 Tanh SGD: eager / by hand": (0.2, 1.9, False),
        "step 000 Adam: eager / by hand": (0.2, 1.5, False),
        "step 003 SGD: bare operations / by hand": (1.1, 1 / 1.6, True),
        "fit 003 SGD: by hand / minidl": (10, 1 / 1.15, True),
        "step 003 x 100: eager / minidl": (2, 10.0, False),
        "step 003 x 100: vmap / minidl": (6, 1.3, True),
        f"{large}: eager / minidl": (2, 1.0, True),
        f"{large}: memory, eager / minidl": (2, 1.0, True),
    }
    assert found == {name: (pytest.approx(r), goal, reached) for name, (r, goal, reached) in expected.items()}
    assert [goal["name"] for goal in results["goals"]["2"]] == list(expected)[:-1]  # memory is counted once


def test_tables_show_what_was_measured(results):
    text = bench.tables(results)
    lines = text.splitlines()
    rows = [line.split("  ") for line in lines if line.startswith("step 003 x 100 ")]
    first = [cell.strip() for cell in rows[0] if cell.strip()]
    minidl, *eager = [f"{k}.0 ± 0%" for k in (1, 2, 3, 4)]
    others = ["-", "6.0 ± 0%", "9.0 ± 0%", "2.00", "6.00", "2.0", "20%"]
    assert first == ["step 003 x 100", minidl, "-", "-", *eager, *others]
    assert len(rows) == 2 and rows[1][-1].strip() == "10%"
    assert text.count("Threads: ") == 2
    assert all(sum(line.startswith(name + " ") for line in lines) >= 2 for name in CASES)
    assert text.count("Compiling, apart: step 003 SGD 7 s, ") == 2
    assert sum(line.startswith(("reached", "MISSED")) for line in lines) == 17
    memory = text[text.index("Peak memory") :].splitlines()[2].split()
    assert memory == ["step", "003", "SGD", "1.0", "10.0", "11.0", "2.0", "3.0", "4.0", "5.0", "-", "-", "-"]
    hand = next(line for line in lines if line.startswith("step 002 Tanh SGD"))
    assert [part.split()[-1] for part in hand.split("±")[:4]] == ["1.0", "10.0", "11.0", "2.0"]


def test_a_failure_is_told_under_the_table(results):
    results["rows"][0]["failed"]["compile"] = "RuntimeError: no C++ compiler found"
    assert "step 003 SGD: compile: RuntimeError: no C++ compiler found" in bench.tables(results).splitlines()


def test_the_numbers_are_kept_and_drawn(results, tmp_path):
    """What the file has is what was given; the figure's lines are the times by R, lowest where there are several."""
    assert json.loads(json.dumps(results)) == results
    plt.switch_backend("agg")
    bench.draw(results, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG") and plt.get_fignums() == []
