"""The certificate passes for minidl, and for nothing that is wrong in one of these ways."""

import json
import math
import types

import certificate
import pytest
import torch

import chapters
import minidl

ROWS = list(certificate.certificate(small=True))


def package(**changes):
    """minidl with other classes under some names, or with more."""
    names = {name: getattr(minidl, name) for name in minidl.__all__} | changes
    return types.SimpleNamespace(__all__=[*names], **names)


def beyond(name, judge, **changes):
    """Whether this judge, and not only another, refuses."""
    rows = list(certificate.certificate(package(**changes), small=True, only=name.partition("(")[0]))
    return any(r["name"] == name and r["judge"] == judge and not r["passed"] for r in rows)


def test_minidl_passes():
    assert [r for r in ROWS if not r["passed"]] == []
    assert len(ROWS) > 150 and all(math.isfinite(r["error"]) for r in ROWS)
    certified = {r["name"].partition("(")[0] for r in ROWS}
    assert {n for n in minidl.__all__ if hasattr(torch.nn, n)} - {"Module", "init"} <= certified
    assert {"SGD", "Adam", "AdamW", "Each", "kaiming_normal_", "calculate_gain"} <= certified


class Slope(minidl.Tanh):
    """A slope that is off in the seventh digit."""

    def backward(self, dy):
        return super().backward(dy) * (1 + 3e-7)


class Value(minidl.Sigmoid):
    """Another function, whose slope fits it: differences see nothing."""

    def forward(self, x):
        return super().forward(2 * x)

    def backward(self, dy):
        return 2 * super().backward(dy)


class Bias(minidl.Linear):
    """The bias is not summed over all rows."""

    def backward(self, dy, input_grad=True):
        dx = super().backward(dy, input_grad)
        if self.bias is not None:
            self.bias.grad = self.bias.grad - dy.reshape(-1, self.out_features)[0]
        return dx


class Kink(minidl.ReLU):
    def backward(self, dy):
        return torch.where(self.kept >= 0, dy, 0) * (self.kept.sign() if self.kept.any() else 1)


class Sum(minidl.MSELoss):
    def gradient(self, gap):
        return 2 * gap


class Forgets(minidl.Adam):
    def update(self, at):
        self.mean.clear(), self.square.clear(), self.steps.clear()
        super().update(at)


class Same(minidl.Dropout):
    """One mask for all times."""

    def draw(self, x):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return super().draw(x)


def fan_out(tensor, *given):
    return minidl.init.kaiming_normal_(tensor, *given, mode="fan_out")


@pytest.mark.parametrize(
    "name, judge, changes",
    [
        ("Tanh", "differences", dict(Tanh=Slope)),
        ("Tanh", "vjp", dict(Tanh=Slope)),
        ("Sigmoid", "symbolic", dict(Sigmoid=Value)),
        ("Sigmoid", "torch.nn", dict(Sigmoid=Value)),
        ("Linear", "differences", dict(Linear=Bias)),
        ("ReLU", "kink", dict(ReLU=Kink)),
        ("MSELoss", "differences", dict(MSELoss=Sum)),
        ("Adam", "torch.optim", dict(Adam=Forgets)),
        ("Dropout(0.2)", "law", dict(Dropout=Same)),
        (
            "kaiming_normal_",
            "law",
            dict(init=types.SimpleNamespace(**vars(minidl.init) | {"kaiming_normal_": fan_out})),
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_wrong_one_is_refused(name, judge, changes):
    assert beyond(name, judge, **changes)


def test_a_module_that_it_does_not_know_is_refused():
    class New(minidl.Tanh):
        pass

    (bad,) = [r for r in certificate.certificate(package(New=New), only="New") if not r["passed"]]
    assert bad["name"] == "New" and bad["error"] == math.inf


@pytest.mark.parametrize("broken", [False, True])
def test_the_table_and_its_page(broken, monkeypatch, tmp_path, capsys):
    rows = [*ROWS, certificate.row("Odd", "vjp", torch.float64, (2,), math.nan, 1e-12)] if broken else ROWS
    monkeypatch.setattr(certificate, "certificate", lambda: rows)
    monkeypatch.setattr(chapters, "BUILD", tmp_path)
    assert certificate.main() == broken
    assert len(json.loads((tmp_path / "certificate.json").read_text())["rows"]) == len(rows)
    page = (tmp_path / "certificate.html").read_text()
    assert page.count("<tr") == len(rows) + 1 and page.count("class=bad") == broken
    assert ("beyond its limit" in capsys.readouterr().out) == broken
