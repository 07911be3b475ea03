"""The bugs of chapter 17: each is a part of minidl with one mistake, marked `wrong!`; all have a line in `EXHIBITS`.

Written by hand beside the notebooks, and no part of the package. The reader meets a bug by its symptom; `source` shows
its code when it is convicted. The checks that do so are in `jury.py`.
"""

import dataclasses
import inspect

import torch

from minidl import SELU, SGD, Adam, AdamW, Dropout, Linear, ReLU, Tanh, batches, standardize
from minidl.init import kaiming_normal_, kaiming_uniform_
from minidl.linear import as_rows
from minidl.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, log_shares

# ---- gradients ----


class PassedOn(ReLU):
    def backward(self, dy):
        return dy.clone()  # wrong!


class TanhOfInput(Tanh):
    def forward(self, x):
        y = super().forward(x)
        self.kept = x  # wrong!
        return y


class SumBackward(MSELoss):
    def gradient(self, gap):
        return gap * 2  # wrong!


class NoTwo(MSELoss):
    def gradient(self, gap):
        return gap / self.count  # wrong!


class ForgottenSum(Linear):
    def backward(self, dy, input_grad=True):
        self.accumulate("weight", as_rows(dy).mT @ as_rows(self.kept))
        self.accumulate("bias", as_rows(dy))  # wrong!
        return dy @ self.weight


class MadeToFit(Linear):
    def accumulate(self, name, gradient):
        if name == "weight":
            gradient = gradient.mT.reshape(gradient.shape)  # wrong!
        super().accumulate(name, gradient)


class AxesExchanged(Linear):
    def forward(self, x):
        y = super().forward(x)
        self.kept = as_rows(x.transpose(0, -2))  # wrong!
        return y


# ---- updates ----


class OneMinusBeta(Adam):
    def update(self, at):
        betas, self.betas = self.betas, tuple(1 - b for b in self.betas)  # wrong!
        super().update(at)
        self.betas = betas


class Forgetful(Adam):
    def update(self, at):
        self.forget()  # wrong!
        super().update(at)


class EpsilonInside(Adam):
    def move(self, params, mean, root, c1, c2):
        inside = [((r / c) ** 2 + self.eps).sqrt() for r, c in zip(root, c2, strict=True)]  # wrong!
        torch._foreach_addcdiv_(params, mean, inside, [-self.lr / c for c in c1])


class Uncorrected(Adam):
    def move(self, params, mean, root, c1, c2):
        ones = [1.0] * len(params)  # wrong!
        super().move(params, mean, root, ones, ones)


class Restarting(SGD):
    def remember(self, i, g):
        self.velocity.pop(i, None)  # wrong!
        return super().remember(i, g)


class NoDecay(SGD):
    def update(self, at):
        decay, self.weight_decay = self.weight_decay, 0  # wrong!
        super().update(at)
        self.weight_decay = decay


class DecayInGradient(AdamW):
    decay = Adam.decay  # wrong!


# ---- randomness ----


def fan_out(tensor):
    return kaiming_normal_(tensor, mode="fan_out")  # wrong!


def one_sided(tensor):
    return kaiming_uniform_(tensor).abs_()  # wrong!


class MaskOnce(Dropout):
    def draw(self, x):
        if getattr(self, "shape", None) != x.shape:  # wrong!
            self.shape, self.mask = x.shape, super().draw(x)
        return self.mask


class NotRescaled(Dropout):
    def draw(self, x):
        return torch.empty_like(x).bernoulli_(1 - self.p)  # wrong!


class KeepsByP(Dropout):
    def draw(self, x):
        return torch.empty_like(x).bernoulli_(self.p) / self.p  # wrong!


class Redrawn(Dropout):
    def backward(self, dy):
        return dy if self.kept is None else dy * self.draw(dy)  # wrong!


class AlwaysOn(Dropout):
    def forward(self, x):
        self.kept = self.draw(x)  # wrong!
        return x * self.kept


# ---- data ----


def by_themselves(train, *others):
    return tuple(standardize(x) for x in (train, *others))  # wrong!


def separated(x, t, batch_size, shuffle=False, generator=None):
    if shuffle:
        x = x[torch.randperm(len(x), generator=generator)]  # wrong!
    return batches(x, t, batch_size)


def lost_rows(x, t, batch_size, shuffle=False, generator=None):
    return batches(x, t, batch_size, shuffle, generator, drop_last=True)  # wrong!


def same_order(x, t, batch_size, shuffle=False, generator=None):
    generator = torch.Generator().manual_seed(0)  # wrong!
    return batches(x, t, batch_size, shuffle, generator)


# ---- state ----


class KeepsGradients(SGD):
    def zero_grad(self):
        pass  # wrong!


class Borrowing(SGD):
    def remember(self, i, g):
        if i not in self.velocity:
            self.velocity[i] = g  # wrong!
            return g
        return super().remember(i, g)


class Overwrites(Linear):
    def accumulate(self, name, gradient):
        getattr(self, name).grad = gradient  # wrong!


class InPlace(ReLU):
    def forward(self, x):
        self.kept = x.clamp_(min=0)  # wrong!
        return self.kept


# ---- numbers ----


class NoMaximum(CrossEntropyLoss):
    def losses(self, output, target):
        super().losses(output, target)
        t, _, axis = self.kept
        e = output.exp()  # wrong!
        self.kept = t, (e / e.sum(axis, keepdim=True)).log(), axis
        return -torch.where(t == 0, 0, t * self.kept[1]).sum(axis)


class OverTheBatch(CrossEntropyLoss):
    def losses(self, output, target):
        super().losses(output, target)
        t, axis = self.kept[0], 0  # wrong!
        self.kept = t, log_shares(output, axis), axis
        return -(t * self.kept[1]).sum(-1)


class BareLogarithm(BCEWithLogitsLoss):
    def losses(self, x, t):
        p = torch.sigmoid(x)
        self.kept = (p - t,)
        return -(t * p.log() + (1 - t) * (1 - p).log())  # wrong!


class RoundedConstant(SELU):
    scale = 1.05  # wrong!


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """A bug: the room where it hangs, its title, the part of minidl whose place it takes, its kind, and itself.

    `looks` are words that a right diagnosis of it has; None where the kind is neither a gradient nor an update.
    """

    room: str
    title: str
    part: str
    kind: str
    wrong: object
    looks: str | None = None

    @property
    def name(self):
        """Its id: that of the class or function."""
        return self.wrong.__name__


EXHIBITS = [
    Exhibit("gradients", "ReLU's backward hands dy on", "ReLU", "gradient", PassedOn, "dy itself"),
    Exhibit("gradients", "tanh' from the input", "Tanh", "gradient", TanhOfInput, "at the input"),
    Exhibit("gradients", "mean forward, sum backward", "MSELoss", "gradient", SumBackward, "a sum for a mean"),
    Exhibit("gradients", "the factor 2 is missing", "MSELoss", "gradient", NoTwo, "half of"),
    Exhibit("gradients", "bias gradient not summed", "Linear", "gradient", ForgottenSum, "not summed"),
    Exhibit("gradients", "weight gradient transposed, made to fit", "Linear", "gradient", MadeToFit, "transposed"),
    Exhibit("gradients", "leading axes exchanged", "Linear", "gradient", AxesExchanged, "two axes"),
    Exhibit("updates", "Adam with 1 - beta for beta", "Adam", "update", OneMinusBeta, "1 - beta"),
    Exhibit("updates", "Adam forgets at each step", "Adam", "update", Forgetful, "memory"),
    Exhibit("updates", "epsilon inside the root", "Adam", "update", EpsilonInside, "epsilon"),
    Exhibit("updates", "Adam without the correction", "Adam", "update", Uncorrected, "correction"),
    Exhibit("updates", "momentum starts again at each step", "SGD", "update", Restarting, "memory"),
    Exhibit("updates", "weight decay ignored", "SGD", "update", NoDecay, "weight_decay is ignored"),
    Exhibit("updates", "AdamW decays by the gradient", "AdamW", "update", DecayInGradient, "steps as Adam"),
    Exhibit("randomness", "He's scale with the wrong fan", "kaiming_normal_", "value", fan_out),
    Exhibit("randomness", "weights of one sign", "kaiming_uniform_", "value", one_sided),
    Exhibit("randomness", "the mask is drawn once", "Dropout", "state", MaskOnce),
    Exhibit("randomness", "dropout does not rescale", "Dropout", "value", NotRescaled),
    Exhibit("randomness", "p taken for the share that is kept", "Dropout", "value", KeepsByP),
    Exhibit("randomness", "backward draws a mask of its own", "Dropout", "gradient", Redrawn, "drew anew"),
    Exhibit("randomness", "dropout when it predicts", "Dropout", "state", AlwaysOn),
    Exhibit("data", "test data scaled by themselves", "standardize", "data", by_themselves),
    Exhibit("data", "points shuffled away from their labels", "batches", "data", separated),
    Exhibit("data", "the last rows are never dealt", "batches", "data", lost_rows),
    Exhibit("data", "every epoch in the same order", "batches", "data", same_order),
    Exhibit("state", "zero_grad does nothing", "SGD", "state", KeepsGradients, "add up"),
    Exhibit("state", "the velocity is the gradient's own tensor", "SGD", "state", Borrowing),
    Exhibit("state", "gradients are set, not added", "Linear", "state", Overwrites),
    Exhibit("state", "ReLU changes its input", "ReLU", "state", InPlace),
    Exhibit("numbers", "softmax without the maximum", "CrossEntropyLoss", "value", NoMaximum),
    Exhibit("numbers", "softmax over the batch", "CrossEntropyLoss", "value", OverTheBatch),
    Exhibit("numbers", "logarithm of a rounded sigmoid", "BCEWithLogitsLoss", "value", BareLogarithm),
    Exhibit("numbers", "SELU's constant, rounded", "SELU", "value", RoundedConstant),
]


def source(name):
    """The code of the exhibit with this name."""
    return inspect.getsource(next(e.wrong for e in EXHIBITS if e.name == name)).rstrip()
