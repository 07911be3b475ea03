"""The module that trains the readings of chapter 18: PyTorch's stack is autograd's, and both sides are watched."""

import sys

import pytest
import torch
from torch import nn

import chapters

sys.path.append(str(chapters.CHAPTERS))
import judge
import study

SEEDS = range(3)
DATA = judge.circles(SEEDS, n=60)


def network(p):
    """A small one, with each kind of layer that the reports have."""
    return p.Sequential(p.Linear(2, 5), p.ReLU(), p.Linear(5, 4), p.Sigmoid(), p.Linear(4, 2), p.Sigmoid())


@pytest.mark.parametrize("loss", ["MSELoss", "L1Loss", "CrossEntropyLoss"])
@pytest.mark.parametrize("rule, rules", [("SGD", dict(lr=0.5)), ("Adam", dict(lr=0.05))])
def test_pytorchs_stack_is_eager_pytorch(loss, rule, rules):
    """Each network's losses are those of the loop that PyTorch's users write; the last batch is a smaller one."""
    run = study.study(network, DATA, SEEDS, p=nn, loss=loss, rule=rule, epochs=5, batch_size=25, **rules)
    x, label, *_ = DATA
    for r, seed in enumerate(SEEDS):
        model = study.seeded(network, seed, nn)
        alone = judge.eager(
            model, getattr(nn, loss)(), getattr(torch.optim, rule)(model.parameters(), **rules),
            (x[r], study.targets(label[r], 2)), epochs=5, batch_size=25,
            generator=torch.Generator().manual_seed(seed))  # fmt: skip
        torch.testing.assert_close(run.step_loss[:, r], torch.tensor(alone), rtol=1e-4, atol=1e-6)
    assert run.step_loss[-1].sum() < run.step_loss[0].sum()


def test_a_recorded_step_is_autograds_to_the_bit():
    """Views are left out, and nothing else."""
    params, _ = torch.func.stack_module_state([study.seeded(network, seed, nn) for seed in SEEDS])
    params = {name: p.detach() for name, p in params.items()}
    model, t = network(nn), study.targets(DATA[1], 2)

    def loss(params, x, t):
        return nn.functional.mse_loss(torch.func.functional_call(model, params, (x,)), t)

    slopes = torch.func.vmap(torch.func.grad_and_value(loss))
    made = judge.recorded(slopes, params, DATA[0], t)
    for scale in (1, 3):  # other numbers than those that were recorded
        moved = {name: scale * p for name, p in params.items()}
        (grads, value), (again, same) = slopes(moved, DATA[0], t), made(moved, DATA[0], t)
        assert torch.equal(value, same) and all(torch.equal(grads[name], again[name]) for name in grads)


def test_dropout_tosses_anew_in_a_recorded_step():
    """With a rate of zero only the mask can change a loss; afterwards there is none."""

    def dropping(p):
        return p.Sequential(p.Linear(2, 8), p.Dropout(0.5), p.Linear(8, 2))

    run = study.study(dropping, DATA, SEEDS, p=nn, epochs=4, batch_size=60, lr=0.0)
    assert len({*run.step_loss[:, 0].tolist()}) == 4
    assert torch.equal(run.predict(DATA[0]), run.predict(DATA[0]))


def test_each_network_has_a_rate_of_its_own():
    """The same as alone, with a number; in either framework."""
    rates = torch.tensor([0.1, 0.5, 2.0])
    for p in (study.mini, nn):
        run = study.study(network, DATA, SEEDS, p=p, epochs=3, batch_size=20, lr=rates)
        for r, rate in enumerate(rates.tolist()):
            data = [part[r : r + 1] for part in DATA]
            alone = study.study(network, data, SEEDS[r : r + 1], p=p, epochs=3, batch_size=20, lr=rate)
            torch.testing.assert_close(run.step_loss[:, r], alone.step_loss[:, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("p", [study.mini, nn], ids=["minidl", "PyTorch"])
def test_a_watch_sees_the_networks_after_each_epoch(p):
    """The last look is what the run ends with."""
    seen = {}
    run = study.study(network, DATA, SEEDS, p=p, epochs=3, batch_size=20, lr=0.5, rows=40,
                      watch=lambda epoch, predict: seen.update({epoch: predict(DATA[2])}))  # fmt: skip
    assert list(seen) == [1, 2, 3] and seen[1].shape == (3, 60, 2)
    assert not torch.equal(seen[1], seen[2]) and torch.equal(seen[3], run.predict(DATA[2]))
    assert torch.equal(study.error_rates(seen[3], DATA[3]), run.test)
