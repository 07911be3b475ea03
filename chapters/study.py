"""A reading of a report, as a study: many networks, each from its own seed, trained at once; by minidl or by PyTorch.

Written by hand beside the notebooks, and no part of the package. A network is an expression in the parts `p` of either
framework, `mini` or `torch.nn`, so that one description serves both.
"""

import dataclasses
import time

import judge
import torch

import minidl
from minidl import MSELoss, each, error_rate, fit, measure_each, one_hot, own, predict_each, stack, unstack

STUCK = 0.15  # a test error above it
mini = minidl  # its modules, and `mini.init`, under the names that torch.nn has


def chain(p, activations, out=2, start=None):
    """2-25-25-25-out; `activations` are four names or makers, None for nothing there. `start(linear)` draws anew."""
    parts = []
    for inputs, outputs, activation in zip((2, 25, 25, 25), (25, 25, 25, out), activations, strict=True):
        linear = p.Linear(inputs, outputs)
        if start:
            start(linear)
        parts.append(linear)
        if activation:
            parts.append(getattr(p, activation)() if isinstance(activation, str) else activation())
    return p.Sequential(*parts)


def seeded(build, seed, p=mini):
    """The network that `build(p)` makes from a seed."""
    torch.manual_seed(seed)
    return build(p)


def targets(label, out):
    """What `out` outputs should say: one-hot, or the label itself in a column."""
    return label[..., None].float() if out == 1 else one_hot(label)


def error_rates(output, label):
    """The share of wrong rows of each network, (R,); output (R, N, out), label (R, N)."""
    return measure_each(error_rate, MSELoss(), output, label)


@dataclasses.dataclass
class Run:
    """What a reading gave; of R networks."""

    train: torch.Tensor  # error rates at the end, (R,)
    test: torch.Tensor
    loss: torch.Tensor  # by epoch, (epochs, R)
    step_loss: torch.Tensor  # (steps, R)
    seconds: float
    predict: object  # from (R, N, 2) to (R, N, out)
    model: object = None  # ours alone
    error: torch.Tensor = None  # of the training points, before each step, by epoch, (epochs, R); ours alone
    validation: torch.Tensor = None  # the loss by epoch, if there is one, (epochs, R); ours alone

    @property
    def stuck(self):
        return int((self.test > STUCK).sum())

    @property
    def errors(self):
        """As `Report.add` takes them."""
        return self.train, self.test

    def part(self, rows):
        """Some of the networks, by an index into all; the seconds are their share."""
        at = torch.arange(len(self.test))[rows]

        def predict(x):
            every = x.new_zeros(len(self.test), *x.shape[1:])
            every[at] = x
            return self.predict(every)[at]

        model = self.model
        if model:
            singles = unstack(model)
            model = stack(singles[r] for r in at.tolist())
        error, validation = (v if v is None else v[:, at] for v in (self.error, self.validation))
        return Run(
            self.train[at], self.test[at], self.loss[:, at], self.step_loss[:, at],
            self.seconds * len(at) / len(self.test), (lambda x: predict_each(model, x)) if model else predict, model,
            error, validation)  # fmt: skip


class Rated(torch.optim.SGD):
    """PyTorch's gradient descent for a stack, with a rate for each network, (R,)."""

    def __init__(self, params, lr):
        super().__init__(params, lr=1.0)
        self.rates = lr

    def step(self):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad * self.rates.reshape(-1, *[1] * (p.dim() - 1))
        super().step()


def optimizer(rule, params, **rules):
    """PyTorch's, for a stack."""
    if isinstance(rules["lr"], torch.Tensor):
        return Rated(params, **rules)
    return getattr(torch.optim, rule)(params, fused=True, **rules)  # one call for all parameters


class Watch:
    """A callback: look(epoch, predict) at the stack after each epoch."""

    whole = True

    def __init__(self, look):
        self.look = look

    def on_epoch_end(self, run):
        self.look(run.epoch, lambda x: predict_each(run.model, x))


def study(build, data, seeds, *, p=mini, loss="MSELoss", rule="SGD", epochs, batch_size=100, shuffle=True,
          reduction="mean", rows=None, callbacks=(), schedule=None, watch=None, **rules):  # fmt: skip
    """Train `build(p)` from each seed, on points, first weights and orders of its own.

    `build` is one for all, or a list, one a network; `loss` is a name in `p`, or a class. `data` is (x, label, test_x,
    test_label), (R, N, ...), as `circles` gives it; the first `rows` points train, the rest of them validate.
    `watch(epoch, predict)` looks at the networks after each epoch. Rules with one number a network are tensors, (R,);
    but the rate of gradient descent, they are ours alone, and so are callbacks; `schedule` is PyTorch's, as
    `judge.together` has it.
    """
    x, label, test_x, test_label = data
    builds = build if isinstance(build, list) else [build] * len(seeds)
    models = [seeded(one, seed, p) for one, seed in zip(builds, seeds, strict=True)]
    out = models[0](x[0]).shape[-1]
    t = targets(label, out)
    cut = slice(rows), slice(rows, None)
    pairs = [(x[:, part].contiguous(), t[:, part].contiguous()) for part in cut]
    orders = [torch.Generator().manual_seed(seed) for seed in seeds]
    kind = getattr(p, loss) if isinstance(loss, str) else loss
    started = time.perf_counter()
    if p is mini:
        model = stack(models)
        history = fit(
            model, kind(reduction=reduction), each(getattr(p, rule))(model.parameters(), **rules),
            own(*pairs[0]), epochs=epochs, batch_size=batch_size, shuffle=shuffle, generator=orders, progress=False,
            callbacks=[*callbacks, *([Watch(watch)] if watch else [])],
            validation=None if rows is None else own(*pairs[1]))  # fmt: skip
        found = dict(loss=torch.stack(history.loss), step_loss=torch.stack(history.step_loss), model=model,
                     error=torch.stack(history.metric), predict=lambda x: predict_each(model, x))  # fmt: skip
        if history.validation_loss:
            found["validation"] = torch.stack(history.validation_loss)
    else:
        answer, steps = judge.together(
            models, kind(reduction=reduction), lambda params: optimizer(rule, params, **rules), pairs[0],
            epochs=epochs, batch_size=batch_size, shuffle=shuffle, generators=orders, schedule=schedule,
            watch=watch)  # fmt: skip
        found = dict(loss=steps.double().reshape(epochs, -1, len(models)).mean(1), step_loss=steps, predict=answer)
    seconds = time.perf_counter() - started
    errors = [error_rates(found["predict"](x), label) for x, label in (
        (pairs[0][0], label[:, cut[0]]), (test_x, test_label))]  # fmt: skip
    return Run(*errors, seconds=seconds, **found)


def band(ax, epochs, values, color, label, style="-"):
    """The median of the networks, and a band from the first to the third quartile; values (epochs, R)."""
    low, middle, high = values.double().quantile(torch.tensor([0.25, 0.5, 0.75]).double(), dim=1)
    ax.fill_between(epochs, low, high, color=color, alpha=0.25, lw=0)
    ax.plot(epochs, middle, style, color=color, label=label)
