"""Judge every module, loss, optimiser and initialiser that `minidl.__all__` names, and write the worst error of each.

python tools/certificate.py    write build/certificate.json and build/certificate.html; exit 1 if a limit is exceeded

The judges, none of which knows how minidl derives a gradient:

differences  central differences in float64, extrapolated from two nudges, under a random upstream gradient
vjp          PyTorch's vector-Jacobian product of minidl's forward alone, with the same upstream gradient
torch.nn     PyTorch's own module: its values, and its gradients
symbolic     for functions of a number: sympy differentiates the formula, mpmath evaluates it to 40 digits
kink         PyTorch's slope where there is none: the only inputs there; all others keep away from it
torch.optim  200 steps on a bowl with a wave, with gradients missing at times
law          draws against the law that they should follow: the statistic passes its limit for one seed in a million

An error is the largest difference of an entry over the largest entry expected, or over 1 if that is more (in float32
over the largest entry). A name that is not known here is an error, infinitely large.
"""

import html
import inspect
import json
import math
import sys
import time

import sympy
import torch
from torch.nn import functional

import chapters
import minidl
from minidl.losses import Terms
from minidl.module import check_floating

F32, F64 = torch.float32, torch.float64
LIMITS = {"differences": 1e-9, "vjp": 1e-12, "torch.nn": 1e-12, "symbolic": 1e-12, "torch.optim": 1e-12}
SINGLE = 1e-6  # in float32, relative
RARE = 1e-6  # how often a right law is refused
KOLMOGOROV = math.sqrt(-math.log(RARE / 2) / 2)  # of the largest gap between distribution functions, times sqrt(n)
SIGMAS = 4.9  # of a count: beyond lies one normal number in a million
IDEAS = {"Part", "Chain", "Module", "Optimizer"}  # base classes: `Sequential` has Chain's forward and backward

LEADS = [(), (1,), (7,), (2, 4)]  # what stands before three features

# name: makers of a module from the package, the twin from torch.nn, and the formula of a number if it is one
x, t = sympy.symbols("x t", real=True)
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772
MODULES = {
    "Linear": [
        (lambda of: of.Linear(3, 2), lambda: torch.nn.Linear(3, 2), None),
        (lambda of: of.Linear(3, 5, bias=False), lambda: torch.nn.Linear(3, 5, bias=False), None),
    ],
    "ReLU": [(lambda of: of.ReLU(), torch.nn.ReLU, sympy.Piecewise((x, x > 0), (0, True)))],
    "LeakyReLU": [
        (lambda of: of.LeakyReLU(0.25), lambda: torch.nn.LeakyReLU(0.25), sympy.Piecewise((x, x > 0), (x / 4, True)))
    ],
    "ELU": [
        (
            lambda of: of.ELU(0.5),
            lambda: torch.nn.ELU(0.5),
            sympy.Piecewise((x, x > 0), ((sympy.exp(x) - 1) / 2, True)),
        )
    ],
    "SELU": [
        (
            lambda of: of.SELU(),
            torch.nn.SELU,
            sympy.Piecewise((SCALE * x, x > 0), (SCALE * ALPHA * (sympy.exp(x) - 1), True)),
        )
    ],
    "Sigmoid": [(lambda of: of.Sigmoid(), torch.nn.Sigmoid, 1 / (1 + sympy.exp(-x)))],
    "Tanh": [(lambda of: of.Tanh(), torch.nn.Tanh, sympy.tanh(x))],
    "Dropout": [
        (lambda of: of.Dropout(0.4), lambda: torch.nn.Dropout(0.4), None),
        (lambda of: of.Dropout(0.4).eval(), lambda: torch.nn.Dropout(0.4).eval(), x),
    ],
    "Sequential": [
        (
            lambda of: of.Sequential(of.Linear(3, 4), of.Tanh(), of.Sequential(of.Linear(4, 2), of.Sigmoid())),
            lambda: torch.nn.Sequential(
                *(torch.nn.Linear(3, 4), torch.nn.Tanh()),
                torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Sigmoid()),
            ),
            None,
        )
    ],
}
KINKED = {"ReLU", "LeakyReLU", "ELU", "SELU"}

# name: the formula of one output x and one target t; None where the twin is judge enough
LOSSES = {
    "MSELoss": (x - t) ** 2,
    "L1Loss": sympy.Abs(x - t),
    "BCELoss": -t * sympy.log(x) - (1 - t) * sympy.log(1 - x),
    "BCEWithLogitsLoss": sympy.log(1 + sympy.exp(-x)) + (1 - t) * x,
    "CrossEntropyLoss": None,
    "Each": None,
}

OPTIMIZERS = {
    "SGD": [
        dict(lr=0.03),
        dict(lr=0.03, momentum=0.9, dampening=0.3, weight_decay=0.1),
        dict(lr=0.03, momentum=0.9, nesterov=True),
    ],
    "Adam": [dict(), dict(lr=0.05, betas=(0.5, 0.9), eps=1e-2, weight_decay=0.1)],
    "AdamW": [dict(), dict(lr=0.05, betas=(0.5, 0.9), eps=1e-2, weight_decay=0.1)],
}

FAN_IN, FAN_OUT = 300, 500
# name: (uniform or normal, its standard deviation), by the papers' formulas, for a weight (FAN_OUT, FAN_IN)
INITS = {
    "uniform_": ("uniform", None),
    "normal_": ("normal", 1.0),
    "zeros_": ("zeros", None),
    "xavier_uniform_": ("uniform", math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "xavier_normal_": ("normal", math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "kaiming_uniform_": ("uniform", math.sqrt(2 / FAN_IN)),
    "kaiming_normal_": ("normal", math.sqrt(2 / FAN_IN)),
    "he_uniform_": ("uniform", math.sqrt(2 / FAN_IN)),
    "he_normal_": ("normal", math.sqrt(2 / FAN_IN)),
    "calculate_gain": ("gain", None),
}


def row(name, judge, dtype, shape, error, limit):
    """One line of the table."""
    passed = bool(error <= limit)  # a nan is an error
    return dict(
        name=name, judge=judge, dtype=str(dtype).removeprefix("torch."), shape=str(tuple(shape)), error=float(error),
        limit=limit, passed=passed,
    )  # fmt: skip


def gap(ours, theirs, floor=1.0):
    """The largest difference of an entry, over the largest entry expected or over `floor`."""
    if not isinstance(ours, torch.Tensor) or ours.shape != theirs.shape:
        return math.inf
    if not theirs.numel():
        return 0.0
    off = (ours.double() - theirs.double()).abs().max().item()
    return off and off / max(theirs.double().abs().max().item(), floor)


def worst(pairs, dtype):
    """The largest of several gaps; in float32 relative to the largest entry."""
    floor = 1.0 if dtype == F64 else 1e-30
    return max(gap(ours, theirs, floor) for ours, theirs in pairs)


def limit(judge, dtype):
    return LIMITS[judge] if dtype == F64 else SINGLE


def inputs(shape, dtype, seed=0):
    """Numbers from -2 to 2, and not within 0.1 of a kink at 0."""
    u = 2 * torch.rand(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))
    sign = torch.randint(2, shape, generator=torch.Generator().manual_seed(seed + 1)) * 2 - 1
    return ((u * 0.95 + 0.1) * sign).to(dtype)


def differences(f, v, dy):
    """The gradient of (dy * f()).sum() with respect to v: central differences with h and h / 2, extrapolated."""
    grad = torch.zeros_like(v)
    for i in range(v.numel()):
        slopes, flat = [], v.view(-1)
        kept = flat[i].item()
        for h in (2**-9, 2**-10):
            ends = []
            for nudged in (kept + h, kept - h):
                flat[i] = nudged
                ends.append(f().clone())
            slopes.append((dy * (ends[0] - ends[1])).sum() / (2 * h))
        flat[i] = kept
        grad.view(-1)[i] = (4 * slopes[1] - slopes[0]) / 3
    return grad


def forward_alone(module, v):
    """A module's forward without its checks, which would cut what PyTorch records."""
    if hasattr(module, "layers"):
        for layer in module.layers:
            v = forward_alone(layer, v)
        return v
    return inspect.unwrap(type(module).forward)(module, v)


def vjp(module, v, dy):
    """PyTorch's gradients of the forward alone: for v, then for each parameter; in-place operations are undone."""
    owners = [
        (m, name) for _, m in module.named_modules() for name in m.parameter_names if getattr(m, name) is not None
    ]
    own = [getattr(m, name) for m, name in owners]

    def f(v, *parameters):
        for (m, name), p in zip(owners, parameters):
            setattr(m, name, p)
        return forward_alone(module, v)

    try:
        torch.manual_seed(3)
        return torch.func.vjp(torch.func.functionalize(f), v, *own)[1](dy)
    finally:
        f(v, *own)


def judge_module(name, make, twin, dtype, lead):
    """The rows of a module at one shape."""
    torch.manual_seed(0)
    module, twin = make().to(dtype), twin().to(dtype)
    twin.load_state_dict(module.state_dict())
    v = inputs((*lead, 3), dtype)

    def forward():
        torch.manual_seed(3)  # a mask holds still
        return module(v)

    y = forward()
    dy = torch.randn(y.shape, dtype=F64, generator=torch.Generator().manual_seed(1)).to(dtype)
    dx = module.backward(dy)
    ours = [dx, *(p.grad for p in module.parameters())]
    if dtype == F64:
        theirs = [differences(forward, p, dy) for p in (v, *module.parameters())]
        yield row(name, "differences", dtype, v.shape, worst(zip(ours, theirs), dtype), LIMITS["differences"])
    theirs = vjp(module, v, dy)
    yield row(name, "vjp", dtype, v.shape, worst(zip(ours, theirs, strict=True), dtype), limit("vjp", dtype))
    leaf = v.clone().requires_grad_()
    torch.manual_seed(3)
    wanted = twin(leaf)
    wanted.backward(dy)
    pairs = [(y, wanted.detach()), *zip(ours, (leaf.grad, *(p.grad for p in twin.parameters())), strict=True)]
    yield row(name, "torch.nn", dtype, v.shape, worst(pairs, dtype), limit("torch.nn", dtype))


def symbolic(formula, at, targets=None):
    """The values and the slopes of a formula, evaluated to 40 digits and then rounded."""
    points = [{x: sympy.Float(v, 40)} for v in at.double().tolist()]
    for point, target in zip(points, [] if targets is None else targets.double().tolist()):
        point[t] = sympy.Float(target, 40)
    return (
        torch.tensor([float(expression.subs(point).evalf(40)) for point in points], dtype=F64)
        for expression in (formula, sympy.diff(formula, x))
    )


def judge_formula(name, make, formula, dtype, n):
    module, v = make(), 2 * inputs((n,), dtype, seed=5)
    value, slope = symbolic(formula, v)
    y = module(v)
    pairs = [(y, value), (module.backward(torch.ones_like(y)), slope)]
    yield row(name, "symbolic", dtype, v.shape, worst(pairs, dtype), limit("symbolic", dtype))


def judge_kink(name, make, twin, dtype):
    v, dy = torch.zeros(3, dtype=dtype), torch.tensor([1.0, -2.0, 3.0], dtype=dtype)
    module, leaf = make(), v.clone().requires_grad_()
    module(v)
    twin()(leaf).backward(dy)
    yield row(name, "kink", dtype, v.shape, gap(module.backward(dy), leaf.grad), 0.0)


def judge_loss(name, make, dtype, shape, reduction):
    """The rows of a loss; targets are shares, and for cross-entropy indices too."""
    torch.manual_seed(0)
    logits = name in ("BCEWithLogitsLoss", "CrossEntropyLoss")
    output = inputs(shape, dtype) if logits else torch.rand(shape, dtype=F64).mul(0.6).add(0.2).to(dtype)
    shares = torch.rand(shape, dtype=F64).mul(4).softmax(1).to(dtype)
    shares = torch.where((shares - output).abs() < 0.01, (shares + 0.02).clamp_max(1), shares)  # off the kink of |u|
    kinds = [shares]
    if name == "CrossEntropyLoss":
        kinds.append(torch.randint(shape[1], shape[:1] + shape[2:]))
    twin = getattr(torch.nn, name)(reduction=reduction)
    for target in kinds:
        criterion = make(reduction)
        value = criterion(output, target)
        grad, one = criterion.backward(), torch.ones((), dtype=dtype)
        if dtype == F64:
            theirs = differences(lambda: criterion(output, target), output, one)  # noqa: B023
            yield row(name, "differences", dtype, shape, gap(grad, theirs), LIMITS["differences"])
        _, back = torch.func.vjp(lambda v: Terms.forward(criterion, v, target), output)  # noqa: B023
        yield row(name, "vjp", dtype, shape, worst([(grad, back(one)[0])], dtype), limit("vjp", dtype))
        leaf = output.clone().requires_grad_()
        wanted = twin(leaf, target)
        wanted.backward()
        pairs = [(value, wanted.detach()), (grad, leaf.grad)]
        yield row(name, "torch.nn", dtype, shape, worst(pairs, dtype), limit("torch.nn", dtype))


def judge_loss_formula(name, make, formula, dtype, n):
    """One output and one target at a time."""
    output = (torch.rand(n, dtype=F64, generator=torch.Generator().manual_seed(2)) * 0.9 + 0.05).to(dtype)
    target = (output.double() * 0.5 + 0.02).to(dtype)
    criterion = make("sum")
    value, slope = symbolic(formula, output, target)
    pairs = [(criterion(output, target), value.sum()), (criterion.backward(), slope)]
    yield row(name, "symbolic", dtype, output.shape, worst(pairs, dtype), limit("symbolic", dtype))


def judge_each(each, package, dtype):
    """R losses at once, against each by itself, and against differences."""
    torch.manual_seed(0)
    output, target = torch.rand(2, 3, 4, 2, dtype=F64).to(dtype)
    for name in ("MSELoss", "CrossEntropyLoss"):
        criterion, one = each(getattr(package, name)()), getattr(package, name)()
        losses, dy = criterion(output, target), torch.ones(3, dtype=dtype)
        grad = criterion.backward()
        theirs = [(one(o, t), one.backward()) for o, t in zip(output, target)]
        pairs = [(losses, torch.stack([loss for loss, _ in theirs])), (grad, torch.stack([g for _, g in theirs]))]
        label = f"Each({name})"
        yield row(label, "torch.nn", dtype, output.shape, worst(pairs, dtype), limit("torch.nn", dtype))
        if dtype == F64:
            theirs = differences(lambda: criterion(output, target), output, dy)  # noqa: B023
            yield row(label, "differences", dtype, output.shape, gap(grad, theirs), LIMITS["differences"])


def steps(make, dtype, count=200):
    """Where an optimiser goes: two parameters, one of which has no gradient at times."""
    torch.manual_seed(0)
    params = [torch.randn(2, 3, dtype=F64).to(dtype), torch.randn(3, dtype=F64).to(dtype)]
    curvature, seen = torch.tensor([1.0, 10.0, 3.0], dtype=dtype), []
    optimizer = make(params)
    for step in range(count):
        for p in params:
            p.grad = curvature * p + torch.sin(3 * p)
        params[1].grad = None if step % 3 == 1 else params[1].grad
        optimizer.step()
        seen += [p.clone().flatten() for p in params]
    return torch.cat(seen)


def judge_optimizer(name, make, rules, dtype):
    pairs = [
        (steps(lambda ps: make(ps, **rules), dtype), steps(lambda ps: getattr(torch.optim, name)(ps, **rules), dtype))
    ]
    yield row(name, "torch.optim", dtype, (200,), worst(pairs, dtype), limit("torch.optim", dtype))


def law(name, draws, distribution, shape):
    """The Kolmogorov-Smirnov distance of draws from a distribution function, times sqrt(n)."""
    u = distribution(draws.flatten().double()).sort().values
    n = len(u)
    ends = torch.arange(n + 1, dtype=F64) / n
    distance = max((ends[1:] - u).max().item(), (u - ends[:-1]).max().item())
    return row(name, "law", draws.dtype, shape, distance * math.sqrt(n), KOLMOGOROV)


def uniform(a):
    return lambda v: ((v + a) / (2 * a)).clamp(0, 1)


def normal(std):
    return lambda v: (1 + torch.erf(v / (std * math.sqrt(2)))) / 2


def count_off(hits, n, p):
    """How many standard deviations a count is from n p."""
    return abs(hits - n * p) / math.sqrt(n * p * (1 - p))


def judge_init(name, fill):
    kind, std = INITS[name]
    if kind == "gain":
        names = ["linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"]
        off = max(abs(fill(name) - torch.nn.init.calculate_gain(name)) for name in names)
        off = max(off, abs(fill("leaky_relu", 0.3) - torch.nn.init.calculate_gain("leaky_relu", 0.3)))
        yield row(name, "torch.nn", "float64", (), off, LIMITS["torch.nn"])
        return
    torch.manual_seed(0)
    weight = fill(torch.full((FAN_OUT, FAN_IN), math.nan))
    if kind == "zeros":
        yield row(name, "law", F32, weight.shape, gap(weight, torch.zeros_like(weight)), 0.0)
    elif name == "uniform_":
        yield law(name, weight, lambda v: v.clamp(0, 1), weight.shape)
    else:
        distribution = uniform(std * math.sqrt(3)) if kind == "uniform" else normal(std)
        yield law(name, weight, distribution, weight.shape)


def judge_draws(package):
    """The first weights of a linear layer, and the tosses of dropout: alone, of neighbours, of two passes."""
    torch.manual_seed(0)
    layer = package.Linear(FAN_IN, FAN_OUT)
    for part in (layer.weight, layer.bias):
        yield law("Linear", part, uniform(1 / math.sqrt(FAN_IN)), part.shape)
    for p in (0.2, 0.7):
        module, ones = package.Dropout(p), torch.ones(400, 500)
        first, second = module(ones), module(ones)
        values = torch.where(first == 0, 0.0, 1 / (1 - p))
        name, n, alike = f"Dropout({p})", ones.numel(), p * p + (1 - p) ** 2
        yield row(name, "law", F32, ones.shape, gap(first, values), SINGLE)
        yield row(name, "law", F32, ones.shape, count_off((first == 0).sum().item(), n, p), SIGMAS)
        twice = ((first == 0) == (second == 0)).sum().item()
        yield row(name, "law", F32, ones.shape, count_off(twice, n, alike), SIGMAS)
        for axis in (0, 1):  # pairs that do not overlap
            zero = (first == 0).movedim(axis, 0)
            pairs = (zero[::2] == zero[1::2]).sum().item()
            yield row(name, "law", F32, ones.shape, count_off(pairs, n // 2, alike), SIGMAS)


def certificate(package=minidl, small=False, only=None):
    """All rows. `small` takes one shape and fewer points; `only` names the one thing to judge."""
    leads, points = (LEADS[2:3], 3) if small else (LEADS, 20)
    for name in package.__all__:
        thing = getattr(package, name)
        if name in IDEAS or not isinstance(thing, type) or only not in (None, name):
            continue
        if name in MODULES:
            for make, twin, formula in MODULES[name]:
                for dtype in (F64, F32):
                    for lead in leads:
                        yield from judge_module(name, lambda: make(package), twin, dtype, lead)  # noqa: B023
                    if formula is not None:
                        yield from judge_formula(name, lambda: make(package), formula, dtype, points)  # noqa: B023
                    if name in KINKED:
                        yield from judge_kink(name, lambda: make(package), twin, dtype)  # noqa: B023
        elif name == "Each":
            for dtype in (F64, F32):
                yield from judge_each(thing, package, dtype)
        elif name in LOSSES:
            for dtype in (F64, F32):
                for shape in [(5, 3)] if small else [(5, 3), (1, 3), (4, 3, 2)]:
                    for reduction in ("mean", "sum"):
                        yield from judge_loss(name, thing, dtype, shape, reduction)
                if LOSSES[name] is not None:
                    yield from judge_loss_formula(name, thing, LOSSES[name], dtype, points)
            if name == "L1Loss":
                criterion, leaf = thing("sum"), torch.zeros(3, requires_grad=True)
                criterion(leaf, torch.zeros(3))
                functional.l1_loss(leaf, torch.zeros(3), reduction="sum").backward()
                yield row(name, "kink", F32, (3,), gap(criterion.backward(), leaf.grad), 0.0)
        elif name in OPTIMIZERS:
            for rules in OPTIMIZERS[name]:
                for dtype in (F64, F32):
                    yield from judge_optimizer(name, thing, rules, dtype)
        elif issubclass(thing, minidl.Part | minidl.Optimizer):
            yield row(name, "nobody: certificate.py does not know it", "any", (), math.inf, 0.0)
    for name in sorted(
        n for n, f in vars(package.init).items() if inspect.isfunction(f) and n[0] != "_" and f is not check_floating
    ):
        if only not in (None, name):
            continue
        if name in INITS:
            yield from judge_init(name, getattr(package.init, name))
        else:
            yield row(name, "nobody: certificate.py does not know it", "any", (), math.inf, 0.0)
    if only in (None, "Linear", "Dropout"):
        yield from judge_draws(package)


def page(rows, seconds):
    """The table as a plain page."""
    cells = "\n".join(
        f"<tr{'' if r['passed'] else ' class=bad'}>"
        + "".join(f"<td>{html.escape(str(r[k]))}</td>" for k in ("name", "judge", "dtype", "shape"))
        + f"<td>{r['error']:.1e}</td><td>{r['limit']:.1e}</td></tr>"
        for r in rows
    )
    about = html.escape(__doc__.split("\n\n", 2)[2])
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>minidl: certificate</title>
<style>body {{ font-family: sans-serif; margin: 2em }} td, th {{ padding: 2px 1em; text-align: left }}
.bad {{ background: #fbb }}</style>
<h1>Certificate</h1>
<p>{len(rows)} judgements, {sum(not r["passed"] for r in rows)} beyond their limit; {seconds:.0f} s,
torch {torch.__version__}. <code>make certificate</code> makes this page.</p>
<pre>{about}</pre>
<table><tr><th>name<th>judge<th>dtype<th>shape<th>worst error<th>limit</tr>
{cells}
</table></html>
"""


def main():
    began = time.perf_counter()
    torch.set_num_threads(1)
    rows = list(certificate())
    seconds = time.perf_counter() - began
    chapters.BUILD.mkdir(exist_ok=True)
    text = json.dumps({"torch": torch.__version__, "rows": rows}, indent=1)
    (chapters.BUILD / "certificate.json").write_text(text, encoding="utf-8")
    (chapters.BUILD / "certificate.html").write_text(page(rows, seconds), encoding="utf-8")
    for judge in dict.fromkeys(r["judge"] for r in rows):
        for dtype in dict.fromkeys(r["dtype"] for r in rows if r["judge"] == judge):
            those = [r for r in rows if (r["judge"], r["dtype"]) == (judge, dtype)]
            top = max(those, key=lambda r: (not r["passed"], r["error"] / (r["limit"] or 1)))
            print(
                f"{judge:12} {dtype:8} {len(those):4} judgements, nearest to its limit: {top['error']:.1e} of "
                f"{top['limit']:.1e} ({top['name']})"
            )
    bad = [r for r in rows if not r["passed"]]
    for r in bad:
        print("beyond its limit:", r)
    print(f"{len(rows)} judgements in {seconds:.0f} s: build/certificate.json, build/certificate.html")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
