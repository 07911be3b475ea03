"""Time minidl beside PyTorch: tables, build/bench.json, and build/bench.png, the time of a network-step by R.

python tools/bench.py           all rounds, a few minutes on two idle cores
python tools/bench.py --quick   a tenth of the rounds

A *step* is what `fit` does with one batch: no gradients, forward, the loss read, backward, update, a note in the
history; it is `step` of `fit`'s own loop, with what `fit` made. *By hand* are the same five lines, written with
minidl's modules as a reader would, without `fit`. *Bare operations* are such a step on plain tensors, without any
class: the same operations and no more, so what they need less is the price of the modules. PyTorch's step is the
loop's body that its users write, the loss read with `.item()`; vmap's leaves the losses unread. A *fit* is the whole
call: epochs of ten shuffled batches, with minidl's error rate and history, beside the loops of `chapters/judge.py`,
which keep the losses alone. All sides of a row take the same start and the same batches. A stack's time is divided by
R; the loop over R networks is timed on the first ten of them, one after another.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

# the notices of PyTorch's profiler, about each start and stop; read when torch is imported
os.environ["KINETO_LOG_LEVEL"] = "99"
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "chapters"))

import torch
from judge import circles, eager, eager_steps, together
from matplotlib import pyplot
from torch import nn
from tqdm import tqdm

import minidl
from minidl import fit, one_hot, own, stack
from minidl.plots import BLUE, GREEN, GREY, ORANGE, figure
from minidl.train import Loop

BUILD = pathlib.Path(__file__).resolve().parent.parent / "build"
ROUNDS, BLOCK = 21, {"step": 0.01, "fit": 0.025}  # a block takes minidl so many seconds
LOOP = 10  # of R networks, how many the loop trains
EAGER, VMAP = ("eager", "foreach", "fused"), ("vmap", "vmap foreach", "vmap fused")
HAND = ("by hand", "bare operations")  # of minidl's own operations, without `fit`
ALL = ("minidl", *HAND, *EAGER, "compile", *VMAP, "products")


@dataclasses.dataclass(frozen=True)
class Case:
    """A row: networks, their data, how they are trained, and who takes part beside minidl."""

    name: str
    others: tuple = EAGER
    kind: str = "step"
    sizes: tuple = (2, 25, 25, 25, 2)
    inner: str = "ReLU"
    last: str = "Tanh"
    rule: str = "SGD"
    batch: int = 100
    replicas: int = 0

    @property
    def pairs(self):
        """Inputs and outputs of each linear layer."""
        return list(itertools.pairwise(self.sizes))

    def network(self, package, seed=0):
        """The network from the parts of a package, minidl or torch.nn; from one seed the same numbers."""
        torch.manual_seed(seed)
        layers = [part for pair in self.pairs for part in (package.Linear(*pair), getattr(package, self.inner)())]
        last = [getattr(package, self.last)()] if self.last else []
        return package.Sequential(*layers[:-1], *last)

    def optimizer(self, package, parameters, **fast):
        """The optimiser from a package, minidl or torch.optim."""
        return getattr(package, self.rule)(parameters, lr=0.05 if self.rule == "SGD" else 0.005, **fast)

    def data(self):
        """Ten batches, (N, in) and (N, out); for R networks (R, N, in) and (R, N, out)."""
        count, rows, g = max(self.replicas, 1), 10 * self.batch, torch.Generator().manual_seed(0)
        x, label = torch.randn(count, rows, self.sizes[0], generator=g), torch.arange(rows) % self.sizes[-1]
        if self.sizes[0] == 2:
            x, label, *_ = circles(range(count), rows)
        t = one_hot(label, self.sizes[-1]).expand(count, -1, -1)
        return (x, t) if self.replicas else (x[0], t[0])

    def flops(self):
        """Operations of one network-step's products: one forward and two backward, but one for the first layer."""
        products = [2 * self.batch * inputs * outputs for inputs, outputs in self.pairs]
        return 3 * sum(products) - products[0]


def cases():
    """All rows."""
    large = dict(sizes=(784, 1024, 1024, 10), last="", batch=256)
    reports = {"003 SGD": {}, "002 Tanh SGD": dict(inner="Tanh", last="")}
    reports["000 Adam"] = dict(inner="Sigmoid", last="Sigmoid", rule="Adam")
    single, stacked, two = (*EAGER, "compile", "products"), (*EAGER, *VMAP, "products"), EAGER[:2]
    return [
        *(Case(name, HAND + single, **how) for name, how in reports.items()),
        Case("784-1024-1024-10, batch 256", single, **large),
        *(Case(f"003 x {r}", stacked, replicas=r) for r in (1, 3, 10, 30, 100, 300)),
        *(Case(name, ("by hand", *EAGER), "fit", **how) for name, how in reports.items()),
        *(Case(f"003 x {r}", EAGER + VMAP, "fit", replicas=r) for r in (10, 100)),
        *(Case(f"003, width {w}", two, sizes=(2, w, w, w, 2)) for w in (25, 50, 100, 200, 500, 1000, 2048)),
        *(Case(f"003, batch {n}", two, batch=n) for n in (10, 100, 1000, 10000)),
    ]


@dataclasses.dataclass
class Side:
    """`run(n)` takes n steps, or n epochs, and gives the losses; `networks` take part in each."""

    run: Callable
    networks: int = 1
    optimizers: tuple = ()


class Keep:
    """A callback that keeps what `fit` hands to callbacks, of a stack as a whole."""

    whole = True

    def on_fit_start(self, run):
        """Keep it."""
        self.run = run


def deal(x, t, batch):
    """The batches in order, again and again; the rows are the last axis but one."""
    cut = [(x[..., i : i + batch, :], t[..., i : i + batch, :]) for i in range(0, x.shape[-2], batch)]
    return itertools.cycle(cut)


def generators(replicas):
    """A list of R generators."""
    return [torch.Generator().manual_seed(r) for r in range(replicas)]


def minidl_side(case):
    """One network or a stack; its first step is taken here, by `fit`, for the sake of what that makes."""
    r, (x, t) = case.replicas, case.data()
    pair = own if r else lambda x, t: (x, t)
    model = stack(case.network(minidl, i) for i in range(r)) if r else case.network(minidl)
    criterion, optimizer = minidl.MSELoss(), case.optimizer(minidl, model.parameters())
    train = functools.partial(fit, model, criterion, optimizer, batch_size=case.batch, progress=False)
    if case.kind == "fit":
        orders = generators(r) or generators(1)[0]
        return Side(lambda n: train(pair(x, t), epochs=n, generator=orders).step_loss, r or 1)
    steps, keep = deal(x, t, case.batch), Keep()
    train(pair(*next(steps)), epochs=1, shuffle=False, callbacks=[keep])
    keep.run.callbacks = ()
    loop = getattr(model, "loop", Loop)(keep.run)
    loop.deal()  # an epoch begins: a stack's loop notes here whose the rows are
    seen = keep.run.history.step_loss  # that of the loop

    def run(n):
        for x, t in itertools.islice(steps, n):
            loop.step(x, t)
        losses = seen[:]
        seen.clear()
        return losses

    seen.clear()
    return Side(run, r or 1, (optimizer,))


def hand_side(case):
    """The loop by hand, of minidl's modules: over batches in order, or, beside `fit`, over its shuffled ones."""
    model, criterion, (x, t), g = case.network(minidl), minidl.MSELoss(), case.data(), generators(1)[0]
    optimizer, steps = case.optimizer(minidl, model.parameters()), deal(x, t, case.batch)

    def dealt(n):
        if case.kind == "step":
            return itertools.islice(steps, n)
        return itertools.chain.from_iterable(minidl.batches(x, t, case.batch, True, g) for _ in range(n))

    def run(n):
        losses = []
        for x, t in dealt(n):
            optimizer.zero_grad()
            loss = criterion(model(x), t)
            model.backward(criterion.backward(), input_grad=False)
            optimizer.step()
            losses.append(loss.item())
        return losses

    return Side(run, 1, (optimizer,))


# name: the bend, and dL/dx from y and dL/dy
BARE = {
    "ReLU": (torch.relu, lambda y, dy: y.sign().mul_(dy)),
    "Sigmoid": (torch.sigmoid, lambda y, dy: torch.ones_like(y).sub_(y).mul_(dy).mul_(y)),
    "Tanh": (torch.tanh, lambda y, dy: torch.ones_like(y).addcmul_(y, y, value=-1).mul_(dy)),
}


def bare_sgd(params, lr):
    """A function of the gradients that moves the parameters."""

    def move(grads):
        for p, g in zip(params, grads):
            p.add_(g, alpha=-lr)

    return move


def bare_adam(params, lr, b1=0.9, b2=0.999, eps=1e-8):
    """The same for Adam."""
    means, squares = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    steps = itertools.count(1)

    def move(grads):
        k = next(steps)
        torch._foreach_lerp_(means, grads, 1 - b1)
        torch._foreach_mul_(squares, b2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - b2)
        root = torch._foreach_sqrt(squares)
        torch._foreach_div_(root, (1 - b2**k) ** 0.5)
        torch._foreach_add_(root, eps)
        torch._foreach_addcdiv_(params, means, root, -lr / (1 - b1**k))

    return move


def bare_side(case):
    """The operations of a step on plain tensors: no module, no check, no class."""
    pairs = [layer for layer in case.network(minidl) if isinstance(layer, minidl.Linear)]
    layers = [(layer.weight, layer.bias) for layer in pairs]
    bends = [BARE[case.inner]] * (len(layers) - 1) + [BARE.get(case.last)]
    rule = case.optimizer(minidl, [p for layer in layers for p in layer])
    move = {"SGD": bare_sgd, "Adam": bare_adam}[case.rule](rule.params, rule.lr)
    steps = deal(*case.data(), case.batch)

    def run(n):
        losses = []
        for x, t in itertools.islice(steps, n):
            kept = []
            for (weight, bias), bend in zip(layers, bends):
                y = torch.addmm(bias, x, weight.mT)
                y = bend[0](y) if bend else y
                kept.append((x, y))
                x = y
            gap = x - t
            losses.append(gap.square().mean().item())
            dy, grads = gap * (2 / gap.numel()), []
            for i in range(len(layers) - 1, -1, -1):
                x, y = kept[i]
                dy = bends[i][1](y, dy) if bends[i] else dy
                grads += [dy.sum(0), dy.mT @ x]
                dy = dy @ layers[i][0] if i else None
            move(grads[::-1])
        return losses

    return Side(run)


def eager_side(case, wrap=lambda model: model, **fast):
    """PyTorch's loop over a network, or over the first networks of R, one after another."""
    (x, t), criterion, looped = case.data(), nn.MSELoss(), []
    for i, g in enumerate(generators(min(case.replicas, LOOP) or 1)):
        model = case.network(nn, i)
        optimizer = case.optimizer(torch.optim, model.parameters(), **fast)
        data = (x[i], t[i]) if case.replicas else (x, t)
        epochs = functools.partial(eager, model, criterion, optimizer, data, batch_size=case.batch, generator=g)
        looped.append((wrap(model), optimizer, deal(*data, case.batch), epochs))

    def fits(n):
        return [loss for *_, epochs in looped for loss in epochs(epochs=n)]

    def some(n):
        return [
            loss
            for model, optimizer, batches, _ in looped
            for loss in eager_steps(model, criterion, optimizer, itertools.islice(batches, n))
        ]

    return Side(fits if case.kind == "fit" else some, len(looped), tuple(o for _, o, *_ in looped))


def compiled_side(case):
    """PyTorch's loop over a compiled network, after its first two steps, which compile."""
    if not (shutil.which("g++") or shutil.which("c++")):
        raise RuntimeError("no C++ compiler found")
    from torch._inductor.utils import fresh_cache

    torch.compiler.reset()
    with fresh_cache():  # or the time would be that of a look into the cache
        side = eager_side(case, wrap=torch.compile)
        side.run(2)
    return side


def vmap_side(case, **fast):
    """R networks stacked by `torch.func`, their gradients by `vmap`."""
    models, criterion, (x, t) = [case.network(nn, i) for i in range(case.replicas)], nn.MSELoss(), case.data()
    make = functools.partial(case.optimizer, torch.optim, **fast)
    if case.kind == "fit":
        how = dict(batch_size=case.batch, generators=generators(case.replicas))
        return Side(lambda n: [*together(models, criterion, make, (x, t), epochs=n, **how)[1]], case.replicas)
    params = {name: p.detach() for name, p in torch.func.stack_module_state(models)[0].items()}
    optimizer, steps = make([*params.values()]), deal(x, t, case.batch)

    def loss(params, x, t):
        return criterion(torch.func.functional_call(models[0], params, (x,)), t)

    slopes = torch.func.vmap(torch.func.grad_and_value(loss))

    def run(n):
        losses = []
        for x, t in itertools.islice(steps, n):
            grads, values = slopes(params, x, t)
            for name, p in params.items():
                p.grad = grads[name]
            optimizer.step()
            losses.append(values.detach())
        return losses

    return Side(run, case.replicas, (optimizer,))


def products_side(case):
    """The matrix products of a step and nothing else, on tensors laid out as minidl's are."""
    x, _ = next(deal(*case.data(), case.batch))  # (N, in) or (R, N, in)
    lead, layers = x.shape[:-2], []
    for inputs, outputs in case.pairs:
        dy, weight = torch.randn(*lead, case.batch, outputs), torch.randn(*lead, outputs, inputs)
        layers.append((x, weight, dy, case.replicas and inputs < outputs))
        x = torch.randn_like(dy)

    def run(n):
        for _ in range(n):
            for x, weight, _, _ in layers:
                x @ weight.mT
            for x, weight, dy, narrow in layers[::-1]:
                x.mT @ dy if narrow else dy.mT @ x
                if x is not layers[0][0]:
                    dy @ weight

    return Side(run, case.replicas or 1)


SIDES = {"minidl": minidl_side, "by hand": hand_side, "bare operations": bare_side}
SIDES |= {"compile": compiled_side, "products": products_side}
SIDES |= {"eager": eager_side, "vmap": vmap_side}
for word in ("foreach", "fused"):  # options of torch.optim
    SIDES[word] = functools.partial(eager_side, **{word: True})
    SIDES[f"vmap {word}"] = functools.partial(vmap_side, **{word: True})


def spent(run, *given):
    """Seconds, by the clock and of the processors."""
    clock, processor = time.perf_counter(), time.process_time()
    run(*given)
    return time.perf_counter() - clock, time.process_time() - processor


def measure(case, sides, rounds):
    """Each side's seconds for a network-step: the median of its blocks, one a round, with quartiles."""
    for side in sides.values():
        side.run(1)
    n = max(1, round(BLOCK[case.kind] / min(spent(sides["minidl"].run, 1)[0] for _ in range(3))))
    blocks, order = {name: [] for name in sides}, list(sides)
    for _ in range(rounds):
        for name in order:
            steps = n * sides[name].networks * (10 if case.kind == "fit" else 1)
            blocks[name].append([seconds / steps for seconds in spent(sides[name].run, n)])
        order = order[1:] + order[:1]
    found = {}
    for name, pairs in blocks.items():
        clock, processor = zip(*pairs)
        low, median, high = statistics.quantiles(clock, n=4, method="inclusive")
        found[name] = dict(median=median, low=low, high=high, processor=statistics.median(processor))
    return found


def peak_bytes(side):
    """The most that three steps hold at once of what they made, by the record of PyTorch's own allocator."""
    for optimizer in side.optimizers:
        optimizer.zero_grad()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        side.run(3)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "trace.json"
        seen.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    found = [event["args"] for event in events if event.get("name") == "[memory]"]
    live, peak = {}, 0
    for event in sorted(found, key=lambda event: event["Ev Idx"]):
        if event["Bytes"] > 0:
            live[event["Addr"]] = event["Bytes"]
        else:
            live.pop(event["Addr"], None)  # what was there before the steps is not theirs
        peak = max(peak, sum(live.values()))
    return peak


def peak_flops(size=2048, repeats=8):
    """Operations a second of a large product, the best of some."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(spent(torch.matmul, a, b)[0] for _ in range(repeats))


def bench(case, threads, rounds):
    """A row of the results."""
    sides, row = {}, dict(name=f"{case.kind} {case.name}", threads=threads, replicas=case.replicas, failed={})
    for name in ("minidl", *case.others):
        started = time.perf_counter()
        try:
            sides[name] = SIDES[name](case)
        except Exception as error:  # what a compiler may raise is not known
            if name != "compile":
                raise
            row["failed"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
        if name == "compile":
            row["compile_seconds"] = time.perf_counter() - started
    row |= dict(flops=case.flops(), sides=measure(case, sides, rounds))
    if threads == 1 and "products" in sides:
        for name in sides.keys() - {"products", *(EAGER if case.replicas else ())}:
            row["sides"][name]["bytes"] = peak_bytes(sides[name])
    return row


def best(row, names, what="median"):
    """The lowest number among some sides, or None where nobody has it."""
    return min((row["sides"][n][what] for n in names if what in row["sides"].get(n, ())), default=None)


def ratio(row, names, what="median", mine="minidl"):
    """How many times more than `mine` the best of some sides needs, or None."""
    theirs = best(row, names, what)
    return theirs and theirs / best(row, [mine], what)


# row, sides, a side of minidl's: the time of the fastest of the sides over that of minidl's, and what it was to reach
GOALS = [
    ("step 003 SGD", EAGER, "by hand", 2.0),
    ("step 002 Tanh SGD", EAGER, "by hand", 1.9),
    ("step 000 Adam", EAGER, "by hand", 1.5),
    ("step 003 SGD", ["bare operations"], "by hand", 1 / 1.6),
    ("fit 003 SGD", ["by hand"], "minidl", 1 / 1.15),
    ("step 003 x 100", EAGER, "minidl", 10.0),
    ("step 003 x 100", VMAP, "minidl", 1.3),
    ("step 784-1024-1024-10, batch 256", EAGER, "minidl", 1.0),
]


def goals(rows):
    """What was to be reached, in the rows of one number of threads; by the clock, and of the processors."""
    of, found = {row["name"]: row for row in rows}, []
    for name, who, mine, goal in GOALS:
        clock, processor = (ratio(of[name], who, what, mine) for what in ("median", "processor"))
        label = f"{name}: {who[0]} / {mine}"
        found.append(dict(name=label, ratio=clock, processor=processor, goal=goal, reached=round(clock, 2) >= goal))
    if memory := ratio(of[name], EAGER, "bytes"):
        found.append(
            dict(name=f"{name}: memory, eager / minidl", ratio=memory, goal=1.0, reached=round(memory, 2) >= 1)
        )
    return found


def line(name, cells):
    """A line of a table."""
    return f"{name:36}" + "".join(f"{cell:>16}" for cell in cells)


def cell(row, names):
    """The time of the fastest of some sides, in microseconds, and half the distance of its quartiles."""
    median, low, high = min((list(row["sides"][n].values())[:3] for n in names if n in row["sides"]), default=[0] * 3)
    if not median:
        return "-"
    return f"{median * 1e6:.{1 if median < 1e-3 else 0}f} ±{50 * (high - low) / median:2.0f}%"


def tables(results):
    """All that is printed."""
    groups = {name: [name] for name in ("minidl", *HAND, *EAGER, "compile")} | {"vmap": VMAP}
    groups["products"], lines = ["products"], [", ".join(f"{k} {v}" for k, v in results["machine"].items())]
    for threads, peak in results["peak"].items():
        rows = [row for row in results["rows"] if row["threads"] == int(threads)]
        lines.append(f"Threads: {threads}. Microseconds a network-step; median of {results['rounds']} rounds.")
        lines.append(line("", [*groups, "eager/minidl", "vmap/minidl", "GFLOP/s", f"of {peak / 1e9:.0f}"]))
        for row in rows:
            ratios = [f"{r:.2f}" if r else "-" for r in (ratio(row, EAGER), ratio(row, VMAP))]
            rate = row["flops"] / best(row, ["minidl"])
            shares = [f"{rate / 1e9:.1f}", f"{rate / peak:.0%}"]
            lines.append(line(row["name"], [*(cell(row, names) for names in groups.values()), *ratios, *shares]))
        lines += [f"{row['name']}: {who}: {why}" for row in rows for who, why in row["failed"].items()]
        took = [f"{row['name']} {row['compile_seconds']:.0f} s" for row in rows if "compile" in row["sides"]]
        lines += [f"Compiling, apart: {', '.join(took) or 'none'}.", ""]
        for g in results["goals"][threads]:
            word, own = "reached" if g["reached"] else "MISSED", f"{g.get('processor', g['ratio']):.2f}"
            lines.append(f"{word:8}{g['name']:54}{g['ratio']:6.2f} (processor {own}), goal {g['goal']:.3g}")
        lines.append("")
    lines += ["Peak memory of a step, in KiB, beside parameters, data and the optimiser's memory.", line("", ALL[:-1])]
    for row in results["rows"]:
        if best(row, ["minidl"], "bytes"):
            sizes = [best(row, [name], "bytes") for name in ALL[:-1]]
            lines.append(line(row["name"], [f"{size / 1024:.1f}" if size else "-" for size in sizes]))
    return "\n".join(lines)


def draw(results, path):
    """The figure: time of a network-step by R, a panel for each number of threads."""
    groups = {"PyTorch's loop": (EAGER, GREEN, "s-"), "vmap": (VMAP, ORANGE, "^-"), "minidl": (["minidl"], BLUE, "o-")}
    groups["products alone"] = (["products"], GREY, "x:")
    fig, axes = figure(1, len(results["peak"]), width=4, height=3.4, squeeze=False, sharey=True)
    for ax, threads in zip(axes[0], results["peak"]):
        rows = [r for r in results["rows"] if r["name"].startswith("step 003 x") and r["threads"] == int(threads)]
        replicas = [row["replicas"] for row in rows]
        for label, (names, color, style) in groups.items():
            times = [best(row, names) * 1e6 for row in rows]
            ax.loglog(replicas, times, style, color=color, label=label, markersize=5)
        ax.set(xlabel="networks trained at once, R", title=f"threads: {threads}")
        ax.set_xticks(replicas, replicas)
        ax.minorticks_off()
    axes[0, 0].set(ylabel="µs for a step of one network")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(groups))
    fig.savefig(path)
    pyplot.close(fig)


def machine():
    """Where it was measured."""
    file = pathlib.Path("/proc/cpuinfo")  # Linux's, as is the load
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = {line.split(": ")[1] for line in lines if line.startswith("model name")} or {platform.processor()}
    found = dict(processor=", ".join(names), cores=os.cpu_count(), load=getattr(os, "getloadavg", lambda: [None])()[0])
    found |= dict(python=platform.python_version(), torch=torch.__version__)
    return found | {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "MKL_", "MALLOC_"))}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    rounds = ROUNDS // 10 if parser.parse_args().quick else ROUNDS
    results = dict(machine=machine(), rounds=rounds, peak={}, goals={}, rows=[])
    BUILD.mkdir(exist_ok=True)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results["peak"][str(threads)] = peak_flops()
        rows = [bench(case, threads, rounds) for case in tqdm(cases(), f"threads: {threads}")]
        results["rows"] += rows
        results["goals"][str(threads)] = goals(rows)
        (BUILD / "bench.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(results, BUILD / "bench.png")
    print(tables(results))
    print("\nAll numbers: build/bench.json. Figure: build/bench.png.")


if __name__ == "__main__":
    main()
