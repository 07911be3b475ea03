"""PyTorch's side of chapter 18: the same networks with autograd, one by one, or many at once by `vmap`.

Written by hand, and no part of the package: here PyTorch's own modules, losses and optimisers are the judge.
"""

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from minidl import batches, circle, standardize


def eager(model, criterion, optimizer, train, *, epochs, batch_size, generator=None, shuffle=True):
    """The loop that PyTorch's users write; the loss at each step, a list."""
    losses = []
    for _ in range(epochs):
        losses += eager_steps(model, criterion, optimizer, batches(*train, batch_size, shuffle, generator))
    return losses


def eager_steps(model, criterion, optimizer, dealt):
    """A step for each batch (x, t); the losses, a list."""
    losses = []
    for x, t in dealt:
        optimizer.zero_grad()
        loss = criterion(model(x), t)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def recorded(f, *args):
    """The operations of f(*args) as a module, without the views that change nothing; for arguments of these shapes."""
    module = make_fx(f)(*args)
    aten, found = torch.ops.aten, {}

    class Notes(torch.fx.Interpreter):
        def run_node(self, node):
            found[node] = super().run_node(node)
            return found[node]

    Notes(module).run(*args)
    for node in module.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default, aten.expand.default):
            was, now = found[node.args[0]], found[node]
            if (was.shape, was.stride()) == (now.shape, now.stride()):
                node.replace_all_uses_with(node.args[0])
    for node in module.graph.nodes:
        if node.target == aten.transpose.int and getattr(node.args[0], "target", None) == aten.transpose.int:
            if node.args[1:] == node.args[0].args[1:]:  # twice is not at all
                node.replace_all_uses_with(node.args[0].args[0])
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def together(models, criterion, optimizer, train, *, epochs, batch_size, generators, shuffle=True, schedule=None,
             watch=None):  # fmt: skip
    """R networks of one structure, stacked by `torch.func` and trained at once.

    `optimizer(params)` makes a torch optimiser: its arithmetic is elementwise, so a stack of parameters is as good
    as one; `schedule(optimizer)` makes a scheduler, which steps after each epoch. x and t are (R, N, ...), each replica
    shuffled by its own generator; `watch(epoch, predict)` is called after each epoch. Returns `predict`, from
    (R, N, in) to (R, N, out), and the losses, (steps, R).

    What autograd and `vmap` do in a step is the same in all of them: `recorded` once for each size of a batch, as a
    list of operations, and played again. That gives the same bits in a third of the time.
    """
    params, _ = torch.func.stack_module_state(models)
    params = {name: p.detach() for name, p in params.items()}
    model = models[0]

    def output(params, x):
        return torch.func.functional_call(model, params, (x,))

    def loss(params, x, t):
        return criterion(output(params, x), t)

    def predict(x):
        model.eval()
        found = torch.func.vmap(output)(params, x).detach()
        model.train()
        return found

    slopes, made = torch.func.vmap(torch.func.grad_and_value(loss), randomness="different"), {}
    step, (x, t), losses = optimizer(list(params.values())), train, []
    scheduler = schedule and schedule(step)
    each = torch.arange(len(x))[:, None]
    for epoch in range(1, epochs + 1):
        if shuffle or not losses:
            order = torch.stack(
                [  # (R, N)
                    torch.randperm(x.shape[1], generator=g) if shuffle else torch.arange(x.shape[1]) for g in generators
                ]
            )
            x_dealt, t_dealt = x[each, order], t[each, order]
        for i in range(0, x.shape[1], batch_size):
            batch = params, x_dealt[:, i : i + batch_size], t_dealt[:, i : i + batch_size]
            if (rows := batch[1].shape[1]) not in made:
                made[rows] = recorded(slopes, *batch)
            grads, values = made[rows](*batch)
            for name, p in params.items():
                p.grad = grads[name]
            step.step()
            losses.append(values.detach())
        if scheduler:
            scheduler.step()
        if watch:
            watch(epoch, predict)
    return predict, torch.stack(losses)


def circles(seeds, n=1000, scaled=True, disk=None):
    """A training and a test set for each seed: x (R, n, 2), label (R, n), twice; scaled by the training statistics.

    `disk` is the centre, the same in both coordinates, and the radius of another disk than the task's.
    """
    made = []
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        (x, label), (test_x, test_label) = circle(n, g), circle(n, g)
        if disk:
            label, test_label = (((p - disk[0]).norm(dim=1) < disk[1]).long() for p in (x, test_x))
        if scaled:
            x, test_x = standardize(x, test_x)
        made.append((x, label, test_x, test_label))
    return tuple(map(torch.stack, zip(*made)))


def percent(errors):
    """Mean and standard deviation of error rates, (R,), as the reports give them: `1.9 ± 0.6 %`."""
    errors = 100 * torch.as_tensor(errors, dtype=torch.float64)
    return f"{errors.mean():.1f} ± {errors.std():.1f} %"
