"""What chapter 18 trains with: studies by both frameworks, their parts, other disks; and the claim about a share."""

import math
import sys

import pytest
import torch
from torch import nn

import chapters
from minidl import CosineAnnealingLR

sys.path.append(str(chapters.CHAPTERS))
from claims import margin, share, share_limits  # noqa: E402
from judge import circles  # noqa: E402
from study import chain, error_rates, mini, study  # noqa: E402

SEEDS = [3, 1, 2]


def bends(p):
    return chain(p, ("Tanh", "ReLU", "Tanh", "Sigmoid"), out=1)


def moved(p, bias):
    """The same with another last bias."""
    model = bends(p)
    model[6].bias.fill_(bias)
    return model


def run(**options):
    """Two epochs on small sets."""
    return study(options.pop("build", bends), circles(SEEDS, n=100), SEEDS, epochs=2, batch_size=50, lr=0.5, **options)


@pytest.mark.parametrize("p", [mini, nn])
@pytest.mark.parametrize("rows", [slice(1, 3), [2, 0], torch.tensor([True, False, True])])
def test_a_part_has_the_numbers_of_its_networks(p, rows):
    """Its errors follow from what it predicts, and its losses are those of its networks."""
    whole, (*_, x, label) = run(p=p), circles(SEEDS, n=100)
    part = whole.part(rows)
    at = torch.arange(3)[rows]
    assert len(at) == 2 and torch.equal(part.step_loss, whole.step_loss[:, at])
    torch.testing.assert_close(part.predict(x[at]), whole.predict(x)[at])
    assert torch.equal(error_rates(part.predict(x[at]), label[at]), part.test)
    assert part.seconds == pytest.approx(whole.seconds * 2 / 3)


def test_a_list_builds_each_network():
    shifted = [lambda p, bias=bias: moved(p, bias) for bias in (0.0, 1.0, 2.0)]
    mixed = run(build=shifted)
    for k, build in enumerate(shifted):
        assert torch.equal(mixed.step_loss[:, k], run(build=build).step_loss[:, k])
    assert len(set(mixed.step_loss[0].tolist())) == 3
    with pytest.raises(ValueError, match="argument 2 is longer"):
        run(build=[bends, bends])


def test_a_schedule_of_pytorchs_is_ours():
    """The rate falls after each epoch, in both."""
    ours = run(callbacks=[CosineAnnealingLR(2)])
    theirs = run(p=nn, schedule=lambda rule: torch.optim.lr_scheduler.CosineAnnealingLR(rule, 2))
    torch.testing.assert_close(ours.step_loss, theirs.step_loss.to(ours.step_loss), rtol=0, atol=1e-6)
    assert not torch.equal(run(p=nn).step_loss[2:], theirs.step_loss[2:])


def test_other_disks():
    """Class 1 is what lies inside; the task's own disk gives the task's labels."""
    same = circles([0], scaled=False, disk=(0.5, (2 * math.pi) ** -0.5))
    for a, b in zip(same, circles([0], scaled=False), strict=True):
        assert torch.equal(a, b)
    x, label, *_ = circles([0], scaled=False, disk=(0, math.sqrt(2 / math.pi)))
    assert torch.equal(label[0].bool(), x[0].square().sum(1) < 2 / math.pi)
    assert abs(label.double().mean() - 0.5) < 5 * math.sqrt(0.25 / 1000)


def test_a_share_is_claimed_at_its_limit(monkeypatch, capsys):
    monkeypatch.delenv("QUICK", raising=False)
    monkeypatch.delenv("CLAIMS", raising=False)
    hits = torch.arange(50) < 45
    low, high = share_limits(45, 50)
    share("hits", hits, least=low - 1e-6)
    share("hits", hits, most=high + 1e-6)
    assert "45 of 50; true share at least" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="does not hold"):
        share("hits", hits, least=low + 1e-6)
    with pytest.raises(AssertionError, match="does not hold"):
        share("hits", hits, most=high - 1e-6)


def test_one_value_leaves_everything_possible():
    assert margin([0.3]) == math.inf
