"""Nine checks for a part of minidl, whole or with a bug, and the kill matrix of chapter 17.

A check takes the name of a part (that of the true class or function) and what is to stand in its place. It returns a
number and the limit that the true part keeps, or None where it has nothing to say of such a part.

Written by hand beside the notebooks, and no part of the package: here PyTorch's own modules and optimisers are judges.
"""

import functools
import math

import torch
from claims import margin
from museum import EXHIBITS, AxesExchanged, OverTheBatch
from torch.utils.data import DataLoader, TensorDataset

import minidl
from minidl import SGD, Each, Linear, ReLU, Sequential, circle, gradcheck, init, numeric_grad, one_hot, stack
from minidl.checks import looks_like
from minidl.replicas import StackedLinear

F64 = torch.float64
LIMIT = 1e-6  # of a relative difference, wherever two results are compared
RULES = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3},
    "Adam": {"lr": 0.02, "betas": (0.9, 0.999), "eps": 1e-8},
    "AdamW": {"lr": 0.02, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
}
MODULES = {"Linear": (3, 4), "ReLU": (), "Tanh": (), "SELU": (), "Dropout": (0.3,)}  # and what they are made with
LOSSES = "MSELoss", "CrossEntropyLoss", "BCEWithLogitsLoss"
INITS = "kaiming_normal_", "kaiming_uniform_"
DATA = "standardize", "batches"
PLAIN = "Linear", "ReLU", "MSELoss", "SGD", "standardize", "batches"  # the parts of the network with nothing special
PARTS = [*MODULES, *LOSSES, *RULES, *INITS, *DATA]


def true(part):
    """The part as it is in minidl."""
    return getattr(minidl, part, None) or getattr(init, part)


def drawn(*shape, seed=17):
    """Normal numbers of float64, the same ones for the same seed."""
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def pair(part, size=1.0):
    """An output and a target for a loss: logits of this size, of six points and three classes."""
    output, target = size * drawn(6, 3), drawn(6, 3, seed=18)
    if part == "CrossEntropyLoss":
        target = torch.tensor([0, 1, 2, 0, 1, 1])
    if part == "BCEWithLogitsLoss":
        target = (target > 0).to(F64)
    return output, target


def built(part, made):
    """A module of float64, and an input for it: with an axis more in front where there are weights."""
    torch.manual_seed(0)
    return made(*MODULES[part]).to(F64), drawn(2, 5, 3) if part == "Linear" else drawn(6, 5)


def apart(ours, theirs):
    """How far two tensors are from each other, relative to the larger numbers of the second."""
    if ours.shape != theirs.shape:
        return math.inf
    gap = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-300)
    return gap.nan_to_num(math.inf).item() if (ours != theirs).any() else 0.0


# ---- what comes out has the right shape ----


def shapes(part, made):
    """How many tensors, or batches, have another shape than they should."""
    if part in MODULES:
        module, x = built(part, made)
        y = module(x)
        pairs = [(module.backward(torch.ones_like(y)), x), *((p.grad, p) for p in module.parameters())]
        pairs.append((y, true(part)(*MODULES[part]).to(F64)(x)))
    elif part in LOSSES:
        criterion, (output, target) = made(), pair(part)
        loss = criterion(output, target)
        pairs = [(loss, loss.new_ones(())), (criterion.backward(), output)]
    elif part in RULES:
        (p,) = path(made, RULES[part], 1)
        pairs = [(p, START)]
    elif part in INITS:
        pairs = [(made(torch.empty(4, 3)), torch.empty(4, 3))]
    elif part == "standardize":
        pairs = list(zip(made(drawn(6, 2), drawn(4, 2)), (drawn(6, 2), drawn(4, 2)), strict=True))
    else:
        sizes = [len(x) for x, _ in made(drawn(10, 2), drawn(10), 4)]
        return abs(len(sizes) - 3) + abs(sum(sizes) - 10), 0
    return sum(ours.shape != theirs.shape for ours, theirs in pairs), 0


# ---- it learns the circle ----


@functools.cache
def points(replicas=30, train=200, test=500):
    """Points for each of the replicas, to learn from and to be asked: (R, N, 2) and (R, N), twice."""
    torch.manual_seed(0)
    x, label = circle(replicas * (train + test))
    x, label = x.reshape(replicas, -1, 2), label.reshape(replicas, -1)
    return (x[:, :train], label[:, :train]), (x[:, train:], label[:, train:])


def networks(kit):
    """A stack of networks with the parts of the kit, an optimiser, and a criterion."""
    (_, label), _ = points()
    torch.manual_seed(0)
    nets = []
    for _ in range(len(label)):
        layers = [Linear(2, 25), kit["bend"](), *kit["extra"], Linear(25, 25), kit["bend"](), Linear(25, 2)]
        for layer in layers:
            if isinstance(layer, Linear):
                kit["fill"](layer.weight)
        nets.append(Sequential(*layers))
    models = stack(nets)
    for layer in models:
        if isinstance(layer, StackedLinear) and kit["Linear"] is not Linear:
            layer.__class__ = type("Wrong", (kit["Linear"], StackedLinear), {})
    return models, kit["optimizer"](models.parameters(), **kit["rules"]), kit["loss"]()


def kit_of(part, made):
    """The parts of a network that has `made` in the place of `part`."""
    rules = RULES.get(part, RULES["SGD"])
    kit = {"bend": ReLU, "extra": [], "Linear": Linear, "loss": minidl.MSELoss, "optimizer": SGD, "rules": rules}
    kit |= {"standardize": minidl.standardize, "batches": minidl.batches, "fill": lambda weight: weight}
    own = {"ReLU": "bend", "Tanh": "bend", "SELU": "bend", **dict.fromkeys(LOSSES, "loss")}
    own |= {**dict.fromkeys(RULES, "optimizer"), **dict.fromkeys(INITS, "fill")}
    made = Linear if made is AxesExchanged else made  # a stack's rows have one axis: nothing to exchange
    return kit | ({"extra": [made(0.2)]} if part == "Dropout" else {own.get(part, part): made})


def slopes(criterion, y, t):
    """The gradient of each network's own loss: (R, N, 2)"""
    if isinstance(criterion, OverTheBatch):  # to it, the rows of another network are not strangers
        return torch.stack([(criterion(*rows), criterion.backward())[1] for rows in zip(y, t, strict=True)])
    each = Each(criterion)
    each(y, t)
    return each.backward()


@functools.cache
def errors(part, made, epochs=30):
    """The test errors of the replicas, (R,), after a training with `made` in the place of `part`."""
    kit, ((x, label), (test_x, test_label)) = kit_of(part, made), points()
    models, optimizer, criterion = networks(kit)
    x, test_x = kit["standardize"](x, test_x)
    t = label if part == "CrossEntropyLoss" else one_hot(label)
    for _ in range(epochs):
        for xb, tb in kit["batches"](x.transpose(0, 1), t.transpose(0, 1), 40, shuffle=True):  # rows in front
            optimizer.zero_grad()
            dy = slopes(criterion, models(xb.transpose(0, 1)), tb.transpose(0, 1))
            models.backward(dy, input_grad=False)
            optimizer.step()
    models.eval()
    return (models(test_x).nan_to_num().argmax(-1) != test_label).double().mean(-1)


def accuracy(part, made):
    """By how much the mean test error is worse than with the true part, and five standard errors of that."""
    plain = "ReLU" if part in PLAIN else part
    worse = errors(part, made) - errors(plain, true(plain))
    return worse.mean().item(), margin(worse)


# ---- a nudge agrees with the gradient ----


def claims_and_nudges(part, made, upstream):
    """Pairs of what backward claims and what a nudge finds: the input's first, then each parameter's."""

    def forward(*_):
        torch.manual_seed(1)
        return module.forward(*inputs)

    if part in LOSSES:
        module, inputs = made(), pair(part)
        forward()
        return [(module.backward(), numeric_grad(forward, inputs[0]))]
    module, *inputs = built(part, made)
    dy = upstream(forward())
    dx = module.backward(dy.clone())  # it may write over what it gets
    claimed = [dx, *(p.grad for p in module.parameters())]
    return [
        (claim, numeric_grad(lambda _: (dy * forward()).sum(), p))
        for claim, p in zip(claimed, [inputs[0], *module.parameters()], strict=True)
    ]


def differences(part, made, upstream):
    """The largest gap between backward and central differences."""
    if part in MODULES or part in LOSSES:
        return max(apart(*both) for both in claims_and_nudges(part, made, upstream)), LIMIT


def with_ones(part, made):
    """Central differences, with ones for the upstream gradient."""
    return differences(part, made, torch.ones_like)


def with_random(part, made):
    """Central differences, with a random upstream gradient."""
    return differences(part, made, lambda y: drawn(*y.shape, seed=19))


# ---- an optimiser walks PyTorch's way ----

START = torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0], dtype=F64)
CURVED = torch.tensor([1.0, 20.0, 0.1, 3.0, 1e-5], dtype=F64)


def slope(p):
    """That of a ravine with bumps: one of its five directions is nearly flat."""
    return CURVED * (p + torch.sin(3 * p))


def path(made, rules, steps, before=lambda optimizer: None, slope=slope):
    """Where an optimiser is after each step; each gradient is added to what is there, as `backward` does."""
    p, found = START.clone(), []
    optimizer = made([p], **rules)
    for _ in range(steps):
        optimizer.zero_grad()
        before(optimizer)
        g = slope(p)
        p.grad = g if p.grad is None else p.grad + g
        optimizer.step()
        found.append(p.clone())
    return found


def steps_apart(part, made, count, slope):
    """How far the path of some steps is from that of `torch.optim`, at its worst."""
    if part in RULES:
        ours, theirs = (path(of, RULES[part], count, slope=slope) for of in (made, getattr(torch.optim, part)))
        return max(map(apart, ours, theirs)), LIMIT


def one_step(part, made):
    """One step beside `torch.optim`, with a random gradient."""
    return steps_apart(part, made, 1, lambda p: drawn(*p.shape))


def many_steps(part, made):
    """Two hundred steps beside `torch.optim`, down the ravine."""
    return steps_apart(part, made, 200, slope)


# ---- what is random has the right distribution ----


def distribution(part, made, n=400):
    """The largest deviation of what is drawn from what it should be, in standard errors."""
    torch.manual_seed(2)
    if part in INITS:
        w = made(torch.empty(n, n // 4))
        var, fourth = 2 / (n // 4), 3.0 if part == "kaiming_normal_" else 1.8  # E w^4 / var^2
        off = [w.mean() / (var / w.numel()) ** 0.5, (w.square().mean() / var - 1) / ((fourth - 1) / w.numel()) ** 0.5]
    elif part == "Dropout":
        p, ones, module = 0.3, torch.ones(n, n), made(0.3)
        a, b = module(ones), module(ones)
        alike = p**2 + (1 - p) ** 2
        off = [((a == 0).double().mean() - p) / (p * (1 - p) / n**2) ** 0.5]
        off += [(a.double().mean() - 1) / (p / (1 - p) / n**2) ** 0.5]
        off += [(((a == 0) == (b == 0)).double().mean() - alike) / (alike * (1 - alike) / n**2) ** 0.5]
        off += [(module.eval()(ones) != 1).sum()]  # nothing is drawn there
    elif part == "batches":
        x = torch.arange(n)[:, None]
        a, b = (torch.cat([rows for rows, _ in made(x, x, n, shuffle=True)]) for _ in range(2))
        off = [(a == b).sum() - 1.0]  # two orders agree in one place on average, and its standard deviation is one
    else:
        return None
    return max(abs(float(z)) for z in off), 5


# ---- extreme inputs ----

FAR = [0.0, -0.0, 1e-30, 1.0, -1.0, 1e4, -1e4, 1e30, -1e30]


def extremes(part, made):
    """How many numbers are not finite, for inputs that are very small and very large, in float32."""
    if part in MODULES:
        module = made(*MODULES[part])
        x = torch.tensor(FAR)[:, None].expand(-1, 3).clone()
        found = [y := module(x), module.backward(torch.ones_like(y))]
    elif part in LOSSES:
        criterion, (output, target) = made(), pair(part, 1e4)
        target = target if part == "CrossEntropyLoss" else target.float()
        found = [criterion(output.float(), target), criterion.backward()]
    elif part in RULES:
        p, found = torch.ones(3), []
        optimizer = made([p], **RULES[part])
        for size in (0.0, 0.0, 1e-30, 1.0, 1e15):
            p.grad = torch.full((3,), size)
            optimizer.step()
            found.append(p.clone())
    else:
        return None
    return sum(int((~t.isfinite()).sum()) for t in found), 0


# ---- the twin: PyTorch on the same numbers ----


def twin_module(part, made):
    """All tensors that two rounds leave behind, in training and then in evaluation: ours, and PyTorch's."""
    ours, x = built(part, made)
    theirs = getattr(torch.nn, part)(*MODULES[part]).to(F64)
    theirs.load_state_dict(ours.state_dict())
    dy = drawn(*ours(x.clone()).shape, seed=19)
    rounds = [[], []]
    for training in (True, True, False):
        mine, hers, up = x.clone(), x.clone().requires_grad_(), dy.clone()
        torch.manual_seed(3)
        y = ours.train(training)(mine)
        rounds[0] += [y, ours.backward(up), mine, up]
        torch.manual_seed(3)
        y = theirs.train(training)(hers)
        y.backward(dy)
        rounds[1] += [y.detach(), hers.grad, x, dy]
        rounds[0] += [p.grad.clone() for p in ours.parameters()]
        rounds[1] += [p.grad.clone() for p in theirs.parameters()]
    return rounds


def twin_loss(part, made):
    """The loss and its gradient: ours, and PyTorch's."""
    criterion, (output, target) = made(), pair(part)
    loss, hers = criterion(output, target), output.clone().requires_grad_()
    judge = getattr(torch.nn, part)()(hers, target)
    judge.backward()
    return [loss, criterion.backward()], [judge.detach(), hers.grad]


def twin_optimizer(part, made):
    """Parameters and gradients after each step, with weight decay and without: ours, and PyTorch's."""
    found = []
    for of in (made, getattr(torch.optim, part)):
        left = []
        for rules in (RULES[part], RULES[part] | {"weight_decay": 0}):
            p = START.clone()
            optimizer = of([p], **rules)
            for _ in range(3):
                p.grad = slope(p)
                for _ in range(2):  # the second step finds the gradient as the first one left it
                    optimizer.step()
                    left += [p.clone(), p.grad.clone()]
                optimizer.zero_grad()
                left.append(torch.zeros_like(p) if p.grad is None else p.grad.clone())
        found.append(left)
    return found


def twin_data(part, made):
    """The scaled points, and the batches of an epoch sorted by their first number: ours, and by PyTorch's own means."""
    x, test = drawn(10, 2), drawn(4, 2, seed=18) * 3 + 1
    if part == "standardize":
        return made(x, test), [(t - x.mean(0)) / x.std(0) for t in (x, test)]
    t = torch.arange(10)
    dealt = [made(x, t, 4, shuffle=True), DataLoader(TensorDataset(x, t), 4, shuffle=True)]
    rows = [torch.cat([torch.cat([a, b[:, None]], -1) for a, b in of]) for of in dealt]
    return [[r[r[:, 0].argsort()]] for r in rows]


def twin(part, made):
    """How far it is from its counterpart in PyTorch, in all that both leave behind."""
    if part in INITS:
        ours, theirs = torch.empty(2, 40, 30)
        torch.manual_seed(4)
        made(ours)
        torch.manual_seed(4)
        getattr(torch.nn.init, part)(theirs)
        return apart(ours, theirs), LIMIT
    kinds = ((MODULES, twin_module), (LOSSES, twin_loss), (RULES, twin_optimizer), (DATA, twin_data))
    both = next(ask for parts, ask in kinds if part in parts)(part, made)
    return max(map(apart, *both)), LIMIT


CHECKS = {
    "shapes": shapes,
    "accuracy": accuracy,
    "ones": with_ones,
    "random": with_random,
    "one step": one_step,
    "200 steps": many_steps,
    "distribution": distribution,
    "extremes": extremes,
    "twin": twin,
}


def convicts(found):
    """Whether a check objects: beyond its limit, or not a number."""
    return found is not None and not found[0] <= found[1]


def ask(check, part, made):
    """What a check finds; a part that raises an error is infinitely far off."""
    try:
        return CHECKS[check](part, made)
    except Exception:
        return math.inf, 0


def matrix(exhibits=EXHIBITS):
    """{name of an exhibit: {check: (number, limit) or None}}."""
    return {e.name: {check: ask(check, e.part, e.wrong) for check in CHECKS} for e in exhibits}


def false_alarms():
    """{part: {check: (number, limit) or None}} of the true parts: no check may object."""
    return {part: {check: CHECKS[check](part, true(part)) for check in CHECKS} for part in PARTS}


# ---- which mistake is it? ----


def rivals(part):
    """{words: (class, rules, what happens before each step)}: known mistakes, made with the true optimisers."""
    kind, rules = true(part), RULES[part]

    class Adding(kind):
        def zero_grad(self):
            """Leave the gradients."""

    class Late(kind):
        def count(self, at):
            super().count(at)
            for i in at:
                self.steps[i] += 10**9

    tried = {
        "its memory is lost at each step": (kind, rules, lambda optimizer: optimizer.forget()),
        "the gradients add up": (Adding, rules),
    }
    if "weight_decay" in rules:
        tried["weight_decay is ignored"] = kind, rules | {"weight_decay": 0}
    if "betas" in rules:
        tried["1 - beta stands for beta"] = kind, rules | {"betas": tuple(1 - b for b in rules["betas"])}
        tried["the correction by 1 - beta^t is missing"] = Late, rules
    if part == "AdamW":
        tried["it steps as Adam does, with the decay in the gradient"] = minidl.Adam, rules
    return tried


def suspect_update(part, made, steps=12):
    """The one mistake that walks where this optimiser does; "" if none does, or more than one, or it walks right."""
    ours = torch.stack(path(made, RULES[part], steps))
    if apart(ours, torch.stack(path(true(part), RULES[part], steps))) < LIMIT:
        return ""
    found = [words for words, how in rivals(part).items() if apart(ours, walked(steps, *how)) < LIMIT]
    right = walked(1, true(part), RULES[part])[0] - START
    return found[0] if len(found) == 1 else looks_like(ours[0] - START, right).removeprefix("; it ")


def walked(steps, made, rules, *before):
    """The path of an optimiser: (steps, 5)"""
    return torch.stack(path(made, rules, steps, *before))


def suspect_gradient(part, made):
    """What `gradcheck` says that a wrong gradient looks like; "" if it says nothing, or finds nothing."""
    try:
        if part in LOSSES:
            gradcheck(made(), *pair(part))
        else:
            gradcheck(*built(part, made))
    except AssertionError as error:
        return str(error).partition("; it ")[2]
    except RuntimeError:  # a gradient that its parameter refuses
        return refused(part, made)
    return ""


def refused(part, made):
    """What a gradient looks like that PyTorch does not let into `p.grad`, because its shape is another one."""
    given = {}
    kept = type("Kept", (made,), {"accumulate": lambda self, name, gradient: given.update({name: gradient})})
    module, x = built(part, kept)
    dy = drawn(*module(x).shape)
    module.backward(dy)
    for name, p in module.named_parameters():
        words = looks_like(given[name], numeric_grad(lambda _: (dy * module(x)).sum(), p))
        if words:
            return words.removeprefix("; it ")
    return ""


def suspect(exhibit):
    """Which mistake an exhibit looks like; "" where the jury has no suspicion."""
    if exhibit.part in RULES:
        return suspect_update(exhibit.part, exhibit.wrong)
    if exhibit.part in MODULES or exhibit.part in LOSSES:
        return suspect_gradient(exhibit.part, exhibit.wrong)
    return ""
