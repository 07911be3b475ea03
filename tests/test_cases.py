"""What people report of programs like this one: each case with its number, its kind, and the right value.

30 is in `test_conftest.py`. Where a kind has more sides, the other test files have them too.
"""

import math
import signal
import subprocess
import threading
import zipfile

import numpy as np
import pandas
import pytest
import torch
from torch import nn

import chapters
import minidl
from minidl import (
    ELU,
    SELU,
    SGD,
    Adam,
    BCELoss,
    BCEWithLogitsLoss,
    CosineAnnealingLR,
    CrossEntropyLoss,
    Dropout,
    EarlyStopping,
    History,
    L1Loss,
    LeakyReLU,
    Linear,
    Module,
    MSELoss,
    ReLU,
    RestartWhenStuck,
    Sequential,
    Sigmoid,
    StepLR,
    Tanh,
    accuracy,
    batches,
    bootstrap,
    choose,
    circle,
    clip_grad_norm_,
    describe,
    error_rate,
    fit,
    gradcheck,
    grid,
    load,
    numeric_grad,
    one_hot,
    predict,
    save,
    split,
    stack,
    standardize,
    sweep,
    unstack,
)
from minidl.sweeps import _write

F64 = torch.float64
X, LABEL = circle(150, torch.Generator().manual_seed(0))
X, T = standardize(X), one_hot(LABEL)
HELD = (X[100:], T[100:])


def network(seed=0, width=6):
    torch.manual_seed(seed)
    return Sequential(Linear(2, width), Tanh(), Linear(width, 2))


def train(model, optimizer, epochs, callbacks=(), criterion=None, data=(X[:100], T[:100]), **options):
    options = dict(batch_size=30, progress=False, validation=HELD, shuffle=False) | options
    return fit(model, criterion or MSELoss(), optimizer, data, epochs=epochs, callbacks=callbacks, **options)


def pairs(seed):
    return [(X[:50], T[:50]), (X[50:100], T[50:100]), (X[100:], T[100:])]


def build(width=4):
    return Sequential(Linear(2, width), Tanh(), Linear(width, 2))


def swept(configurations, seeds=(0, 1), **options):
    options = dict(criterion=MSELoss, optimizer=SGD, epochs=2, batch_size=25, progress=False) | options
    return sweep(build, pairs, configurations, seeds, **options)


def values(model):
    return torch.cat([p.flatten() for p in model.parameters()]).clone()


# A wrong result, or lost data, in silence


def test_01_what_save_takes_load_gives_back(tmp_path):
    model, path = network(), tmp_path / "model.pt"
    optimizer = SGD(model.parameters(), np.logspace(-2, -1, 2)[0])
    history = train(model, optimizer, 2, metric=lambda output, target: np.float64(0.25))
    save(path, model, optimizer, history)
    other, loaded = network(1), History()
    load(path, other, SGD(other.parameters(), 7.0), loaded)
    assert torch.equal(values(other), values(model)) and loaded == history and loaded.metric == [0.25, 0.25]
    optimizer.lr = np.float64(0.1)  # by hand, behind the constructor: refused, and the file stays
    with pytest.raises(TypeError, match=r"save: .* got float64 as checkpoint\['optimizer'\]\['lr'\]"):
        save(path, model, optimizer)
    load(path, other)


@pytest.mark.parametrize("shape", [(4,), (4, 1)], ids=str)
def test_02_metrics_of_a_yes_or_no(shape):
    """Outputs (N,) too: a yes above the threshold, which is 0 for logits."""
    output, target = torch.tensor([0.8, 0.1, 0.9, 0.2]).reshape(shape), torch.tensor([1.0, 0.0, 1.0, 0.0])
    for t in (target.reshape(shape), target.long()):
        assert error_rate(output, t) == 0 and accuracy(output, t) == 1
        assert error_rate(1 - output, t) == 1 and error_rate(output, t, 0.15) == 0.25
        assert error_rate(output - 0.5, t) == 0.5 and error_rate(output - 0.5, t, 0.0) == 0


class Column(Module):
    """(N, 1) -> (N,)"""

    def forward(self, x):
        return x[:, 0]

    def backward(self, dy):
        return dy[:, None]


@pytest.mark.parametrize("flat", [False, True], ids=["column", "flat"])
def test_03_fit_measures_logits_at_zero(flat):
    """A metric knows its criterion's outputs: in the history, for callbacks, and in a sweep's columns."""
    torch.manual_seed(0)
    model = Sequential(Linear(2, 25), Tanh(), Linear(25, 1), *[Column()] * flat)
    t = LABEL.float() if flat else LABEL[:, None].float()
    options = dict(criterion=BCEWithLogitsLoss(), data=(X, t), validation=(X, t), batch_size=150)
    history = train(model, SGD(model.parameters(), 0.5), 90, **options)
    logits = predict(model, X).reshape(-1)
    wrong = [((logits > cut) != (LABEL == 1)).double().mean().item() for cut in (0.0, 0.5)]
    assert wrong[0] != wrong[1] and history.validation_metric[-1] == wrong[0]
    still = SGD(model.parameters(), 0.0)
    assert train(model, still, 1, **options).metric == [wrong[0]]
    assert train(model, still, 1, **options, metric=accuracy).metric == [1 - wrong[0]]
    assert train(model, still, 1, **options, metric=lambda y, t: (y > 0.5).sum()).metric == [(logits > 0.5).sum()]
    rule = RestartWhenStuck(lambda model, generator: None, error=sum(wrong) / 2)  # sees the same number
    train(model, still, 3, [rule], **options)
    assert rule.restarts == 2 * (wrong[0] > wrong[1])


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.7, 1e6 + 0.3, 1e-25, math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_04_a_constant_feature_has_no_scale(value, dtype):
    """Of any size: the mean is rounded, so a computed deviation of 0 is not what to look for."""
    varied = torch.rand(1000, 1).to(dtype)
    for n in (*range(2, 100), 500, 829, 1000):
        constant = torch.full((n, 1), value, dtype=dtype)
        for train in (constant, torch.cat([constant, varied[:n]], 1)):
            with pytest.raises(ValueError, match="standardize: expected features that vary, got standard deviations"):
                standardize(train, train)


def test_05_numbers_of_numpy_and_pytorch_in_a_grid(tmp_path):
    assert choose(swept(grid(width=np.array([3, 5]), lr=[0.1])), ["width"])["width"] in (3, 5)
    alike = torch.tensor([0.1, 0.1 + 1e-7], dtype=F64)  # they print alike
    table = swept(grid(lr=alike), np.arange(2), path=tmp_path / "sweep.csv")
    assert table["lr"].tolist() == [alike[0].item()] * 2 + [alike[1].item()] * 2
    assert table["seed"].tolist() == [0, 1, 0, 1]
    assert swept(grid(lr=alike), range(2), path=tmp_path / "sweep.csv").equals(table)
    assert type(choose(swept(grid(lr=torch.logspace(-2, -1, 3))), ["lr"])["lr"]) is float


def test_06_a_row_does_not_depend_on_its_neighbours():
    """One of them diverges, and early stopping puts a best network back."""
    options = dict(epochs=40, callbacks=lambda: [EarlyStopping(25)])
    together = swept(grid(lr=[0.05, 30.0]), **options)
    alone = pandas.concat([swept(grid(lr=[lr]), **options, memory=1) for lr in (0.05, 30.0)], ignore_index=True)
    numbers = ["train_error", "validation_error", "test_error", "loss", "trained"]
    assert together["ended"].tolist() == alone["ended"].tolist() and "not finite" in together["ended"][2]
    pandas.testing.assert_frame_equal(together[numbers], alone[numbers], rtol=1e-5)
    assert together["loss"].map(math.isfinite).all()


@pytest.mark.parametrize("way", ["epochs", "Ctrl-C", "bad loss"])
def test_07_early_stopping_gives_the_best_model_at_every_way_out(way):
    class Leave:
        def on_epoch_end(self, run):
            if run.epoch == 12 and way == "Ctrl-C":
                signal.raise_signal(signal.SIGINT)
            if run.epoch == 12 and way == "bad loss":
                run.model[0].weight.fill_(math.nan)

    model, stopping, history = network(), EarlyStopping(50), None
    try:
        history = train(model, SGD(model.parameters(), 1.5), 12 + 9 * (way != "epochs"), [stopping, Leave()])
    except RuntimeError as error:
        history = error.history
    losses = history.validation_loss
    best = MSELoss()(predict(model, HELD[0]), HELD[1]).item()
    assert len(losses) == 12 and best == min(losses) == stopping.best < losses[-1]


# An error too late, of the wrong kind, or none


def test_08_a_run_without_a_value_is_never_chosen():
    rows = {"lr": [1, 1, 2, 2, 3, 3], "validation_error": [math.nan, math.nan, 0.1, math.nan, 0.2, 0.3]}
    table = pandas.DataFrame(rows | {"test_error": rows["validation_error"]})
    assert choose(table, ["lr"]) == {"lr": 3}
    assert describe(table, "lr")["n"].tolist() == [0, 1, 2] and describe(table, "lr")["nan"].tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="choose: expected a configuration with an error for each seed, got none"):
        choose(table[:4], ["lr"])
    with pytest.raises(ValueError, match=r"bootstrap: expected .* no nan, got \[1.0, nan, 2.0\]"):
        bootstrap([1, math.nan, 2])


SHARED = {
    "EarlyStopping": lambda: EarlyStopping(3),
    "StepLR": lambda: StepLR(2),
    "CosineAnnealingLR": lambda: CosineAnnealingLR(5),
    "RestartWhenStuck": lambda: RestartWhenStuck(lambda model, generator: None, 9.0, -1.0),
}


@pytest.mark.parametrize("name", SHARED)
def test_09_one_callback_for_two_trainings(name):
    """The second one is as with a new callback; in a sweep too."""
    found = []
    for callback in (SHARED[name](), SHARED[name]()):
        for seed in range(2 - len(found)):  # the first instance has had another model before
            model = network(1 - seed)
            optimizer = SGD(model.parameters(), 0.05)
            history = train(model, optimizer, 8, [callback])
        model = network(3)
        optimizer = SGD(model.parameters(), 0.05)
        history = train(model, optimizer, 8, [callback])
        found.append((history, optimizer.lr, values(model).tolist()))
    assert found[0] == found[1]
    shared, configurations = SHARED[name](), grid(lr=[0.5, 0.01])
    options = dict(epochs=8, memory=1)
    given = swept(configurations, **options, callbacks=lambda: [shared])
    assert given.equals(swept(configurations, **options, callbacks=lambda: [SHARED[name]()]))


def test_10_a_second_fit_of_a_stack_trains():
    models = stack(network(seed) for seed in range(3))
    optimizer = minidl.each(SGD)(models.parameters(), lr=torch.tensor([0.5, 1.0, 0.0]))
    stopping = EarlyStopping(1)
    assert "callback" in train(models, optimizer, 30, [stopping]).stopped
    before = values(models)
    history = train(models, optimizer, 2)
    assert all(loss.isfinite().all() for loss in history.loss) and history.stopped == ["", "", ""]
    moved = [not torch.equal(a, b) for a, b in zip(before.reshape(-1, 1), values(models).reshape(-1, 1))]
    assert any(moved) and len(history) == 2
    assert not torch.equal(before, values(models)) and len(unstack(models)) == 3


def test_11_cross_entropy_without_a_chance_for_some_class():
    """A class that is not the target has no part in the loss, even where its probability is 0."""
    criterion, target = CrossEntropyLoss(), torch.tensor([0])
    for output, wanted, gradient in (
        (torch.tensor([[0.0, -torch.inf, 1.0]]), 1.3133, [[-0.7311, 0.0, 0.7311]]),
        (torch.tensor([[4e4, -4e4]]).half(), 0.0, [[0.0, 0.0]]),
    ):
        for t in (target, one_hot(target, output.shape[1]).to(output.dtype)):
            assert criterion(output, t).item() == pytest.approx(wanted, abs=1e-4)
            assert torch.allclose(criterion.backward().float(), torch.tensor(gradient), atol=1e-4)
    assert criterion(torch.tensor([[-torch.inf, 0.0]]), target) == torch.inf


@pytest.mark.parametrize("wrong", [2, -1])
@pytest.mark.parametrize("where", ["data", "validation"])
def test_12_a_wrong_label_in_any_row_is_refused_before_anything_changes(where, wrong):
    label = LABEL[:100].clone()
    label[77] = wrong
    model, generator = network(), torch.Generator().manual_seed(1)
    before, drawn, state = values(model), generator.get_state(), torch.get_rng_state()
    options = {"data": (X, LABEL), "validation": (X, LABEL), "generator": generator, "shuffle": True}
    low, high = (0, 2) if wrong == 2 else (-1, 1)
    with pytest.raises(ValueError, match=rf"CrossEntropyLoss: expected classes in \[0, 2\), got {low} to {high}"):
        optimizer = SGD(model.parameters(), 0.1)
        train(model, optimizer, 3, criterion=CrossEntropyLoss(), **options | {where: (X[:100], label)})
    assert torch.equal(values(model), before) and all(p.grad is None for p in model.parameters())
    assert torch.equal(generator.get_state(), drawn) and torch.equal(torch.get_rng_state(), state)


WRONG_PARTS = {
    "three generators": (dict(generator=[torch.Generator() for _ in range(3)]), "expected 1 generators, got 3"),
    "another order": (dict(callbacks=[EarlyStopping(3), StepLR(3)]), "EarlyStopping: expected its own state"),
    "another schedule": (dict(callbacks=[CosineAnnealingLR(3), EarlyStopping(3)]), "CosineAnnealingLR: expected its"),
    "none": (dict(callbacks=[]), "load: expected 2 callbacks, got 0"),
}


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_13_load_is_all_or_nothing(name, tmp_path):
    wrong, rule = WRONG_PARTS[name]
    model, rules = network(), [StepLR(3), EarlyStopping(3)]
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    train(model, optimizer, 4, rules)
    save(tmp_path / "model.pt", model, optimizer, generator=torch.Generator(), callbacks=rules)
    mine = network(1)
    own, before, drawn = SGD(mine.parameters(), 7.0), values(mine), torch.get_rng_state()
    parts = dict(optimizer=own, generator=torch.Generator(), callbacks=[StepLR(3), EarlyStopping(3)]) | wrong
    with pytest.raises(ValueError, match=rule):
        load(tmp_path / "model.pt", mine, **parts)
    assert torch.equal(values(mine), before) and own.lr == 7.0 and own.velocity == {}
    assert torch.equal(torch.get_rng_state(), drawn)


def test_13_a_file_of_pytorchs_own_is_no_checkpoint(tmp_path):
    torch.save(network().state_dict(), tmp_path / "state.pt")
    with pytest.raises(ValueError, match="load: expected a checkpoint of `save`, got another file"):
        load(tmp_path / "state.pt", network(1))


def test_14_a_checkpoint_from_a_gpu_is_read_without_one(tmp_path):
    """The file says of each tensor where it lay; here, as a GPU's would."""
    model, path = network(), tmp_path / "model.pt"
    optimizer = Adam(model.parameters())
    train(model, optimizer, 1)
    save(path, model, optimizer)
    with zipfile.ZipFile(path) as file:
        parts = {info: file.read(info) for info in file.infolist()}
    (pickled,) = [info for info in parts if info.filename.endswith("data.pkl")]
    cpu, gpu = (len(name).to_bytes(4, "little") + name for name in (b"cpu", b"cuda:0"))
    assert cpu in parts[pickled]
    parts[pickled] = parts[pickled].replace(b"X" + cpu, b"X" + gpu)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for info, data in parts.items():
            file.writestr(info.filename, data)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path)
    other = network(1)
    load(path, other, Adam(other.parameters()))
    assert torch.equal(values(other), values(model))


def test_16_two_sweeps_on_one_path(tmp_path):
    """One runs while the other does; both sets are in the file, and neither is run again."""
    path, left = tmp_path / "sweep.csv", [grid(lr=[0.3, 0.4])]

    def meanwhile():
        if left:
            swept(left.pop(), path=path)
        return []

    first = swept(grid(lr=[0.1, 0.2]), path=path, memory=1, callbacks=meanwhile)
    assert sorted(pandas.read_csv(path)["lr"]) == [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4] and len(first) == 4
    given = swept(grid(lr=[0.3, 0.4]), path=path, callbacks=lambda: pytest.fail("trained again"))
    assert len(given) == 4


def test_16_writers_at_the_same_moment_lose_nothing(tmp_path):
    def write(who):
        rows = {}
        for i in range(8):
            results = dict(train_error=0.0, validation_error=0.0, test_error=0.0, loss=0.0, trained=1, ended="")
            rows[(float(i), float(who))] = {"seed": who, "lr": i} | results
            _write(tmp_path / "sweep.csv", rows)

    writers = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    table = pandas.read_csv(tmp_path / "sweep.csv")
    assert sorted(zip(table["seed"], table["lr"])) == [(who, i) for who in range(4) for i in range(8)]
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.csv"]


def test_17_the_folder_of_a_path(tmp_path):
    """It is made; where nothing can be written, that is said at the call, and nothing has been trained."""
    swept(grid(lr=[0.1]), path=tmp_path / "new" / "folder" / "sweep.csv")
    assert len(pandas.read_csv(tmp_path / "new" / "folder" / "sweep.csv")) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        swept(grid(lr=[0.1]), path=tmp_path / "file" / "sweep.csv", callbacks=lambda: pytest.fail("trained"))


@pytest.mark.parametrize(
    "make, rule",
    [
        (lambda: SGD(torch.ones(2, 3), lr=1.0), (TypeError, "SGD: expected a list of parameters, got a Tensor")),
        (
            lambda: Adam(nn.Parameter(torch.ones(2))),
            (TypeError, "Adam: expected a list of parameters, got a Parameter"),
        ),
        (lambda: SGD({torch.ones(1)}, lr=1.0), (TypeError, "SGD: expected a list of parameters, got a set")),
        (
            lambda: Adam([torch.ones(1)], betas=(0.9, torch.tensor(0.99))),
            (ValueError, "Adam: expected two betas, both plain or both tensors"),
        ),
        (lambda: Adam([torch.ones(1)], betas=0.9), (ValueError, "Adam: expected two betas.* got 0.9")),
        (lambda: SGD([torch.ones(2)], lr=torch.ones(2)), (ValueError, "SGD: expected one number as lr, got tensor")),
        (lambda: SGD([torch.ones(2)], lr="fast"), (ValueError, "SGD: expected one number as lr, got 'fast'")),
        (lambda: SGD([torch.ones(2)], lr=None), (ValueError, "SGD: expected one number as lr, got None")),
        (lambda: SGD([torch.ones(2).long()], lr=1.0), (TypeError, "SGD: expected .* floating .*got torch.int64")),
    ],
    ids=range(9),
)
def test_19_refused_at_construction(make, rule):
    with pytest.raises(rule[0], match=rule[1]):
        make()


def test_20_clipping_nothing_and_a_bare_tensor():
    p = torch.zeros(2)
    for parameters in (p, [p], []):
        norm = clip_grad_norm_(parameters, 1.0)
        assert norm.shape == () and norm.item() == 0 and p.grad is None
    p.grad = torch.tensor([3.0, 4.0])
    q = p.clone()
    q.grad = p.grad.clone()
    assert clip_grad_norm_(p, 1.0) == torch.nn.utils.clip_grad_norm_(q, 1.0) == 5
    assert torch.equal(p.grad, q.grad)


class Gate(Module):
    """y = x sigmoid(linear(x)); its backward reads what a child kept."""

    def __init__(self, features):
        self.linear, self.sigmoid = Linear(features, features), Sigmoid()

    def forward(self, x):
        self.kept = x
        return x * self.sigmoid(self.linear(x))

    def backward(self, dy):
        y = self.sigmoid.kept
        return dy * y + self.linear.backward(self.sigmoid.backward(dy * self.kept))


def test_22_fit_is_the_loop_by_hand_for_a_module_of_ones_own():
    found = []
    for by_hand in (False, True):
        torch.manual_seed(0)
        model, criterion = Sequential(Linear(2, 6), Gate(6), Linear(6, 2)), MSELoss()
        optimizer = SGD(model.parameters(), 0.1)
        if by_hand:
            for _ in range(2):
                for x, t in batches(X[:100], T[:100], 30):
                    optimizer.zero_grad()
                    criterion(model(x), t)
                    model.backward(criterion.backward())
                    optimizer.step()
        else:
            train(model, optimizer, 2)
        found.append(values(model))
    assert torch.equal(*found)


@pytest.mark.parametrize("target", [-1.0, 2.0, math.nan])
@pytest.mark.parametrize("loss", [BCELoss, BCEWithLogitsLoss, CrossEntropyLoss])
def test_26_targets_that_are_no_share(loss, target):
    criterion, output = loss(), torch.full((1, 3), 0.5)
    with pytest.raises(ValueError, match=rf"^{loss.__name__}: expected targets in \[0, 1\], got .* to "):
        criterion(output, torch.tensor([[0.0, target, 1.0]]))
    with pytest.raises(RuntimeError, match="expected a forward before each backward"):  # nothing was kept
        criterion.backward()


@pytest.mark.parametrize(
    "module", [ReLU(), Sigmoid(), Tanh(), Sequential(Linear(3, 3), Tanh())], ids=lambda module: type(module).__name__
)
def test_27_an_output_changed_in_place(module):
    """The slope is taken from it: PyTorch refuses, and so do we; a new forward, and all is well."""
    x = torch.randn(4, 3)
    y = module(x)
    dy = torch.ones_like(y)
    wanted = module.backward(dy)
    y = module(x)
    y += 1
    with pytest.raises(RuntimeError, match="(ReLU|Sigmoid|Tanh): expected what forward kept as it was, got it changed"):
        module.backward(dy)
    module(x)
    assert torch.equal(module.backward(dy), wanted)
    leaf = x.clone().requires_grad_()
    y = leaf.tanh()
    y += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("module", [Linear(3, 3), ELU(), SELU()], ids=repr)
def test_27_an_input_changed_in_place(module):
    """What is kept may be the input, or a view of it."""
    for x in (torch.randn(4, 3), torch.randn(2, 4, 3)):
        y = module(x)
        x.zero_()
        with pytest.raises(RuntimeError, match="expected what forward kept as it was, got it changed in place"):
            module.backward(torch.ones_like(y))


@pytest.mark.parametrize(
    "module", [LeakyReLU(), Dropout(0.5), Dropout(0.5).eval()], ids=["LeakyReLU", "Dropout", "eval"]
)
def test_27_what_is_kept_may_be_ones_own(module):
    x = torch.ones(4, 3)
    torch.manual_seed(0)
    module(x)
    wanted = module.backward(torch.ones(4, 3))
    torch.manual_seed(0)
    y = module(x.clone())
    y += 1
    assert torch.equal(module.backward(torch.ones(4, 3)), wanted)


@pytest.mark.parametrize("loss", [MSELoss, L1Loss, BCELoss, BCEWithLogitsLoss, CrossEntropyLoss])
def test_27_losses_keep_tensors_of_their_own(loss):
    """So the gradient is that of the numbers that the loss saw."""
    output, target, criterion = torch.rand(4, 3), torch.rand(4, 3), loss()
    criterion(output, target)
    wanted = criterion.backward()
    criterion(output, target)
    output += 1
    target.zero_()
    assert torch.equal(criterion.backward(), wanted)


def test_27_works_where_pytorch_counts_no_changes():
    with torch.inference_mode():
        module, x = Sequential(Linear(3, 3), Tanh()), torch.randn(4, 3)
        assert module.backward(torch.ones_like(module(x))).shape == (4, 3)


def test_28_a_clone_has_the_same_bytes_everywhere():
    """Also with `core.autocrlf=true`."""
    files = ["chapters/00_map.ipynb", "minidl/data.py", "README.md", "chapters/18g_pytorch.png"]
    command = ["git", "check-attr", "text", "eol", "--", *files]
    if not (chapters.ROOT / ".git").exists():
        pytest.skip("no clone")
    said = subprocess.run(command, cwd=chapters.ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[:6] == [line for f in files[:3] for line in (f"{f}: text: auto", f"{f}: eol: lf")]
    assert said[6] == f"{files[3]}: text: unset"


@pytest.mark.parametrize("name, value", [("mean", 0.5), ("square", 7.0), ("steps", 90)])
def test_31_memory_set_by_hand_counts(name, value):
    theirs = {"mean": "exp_avg", "square": "exp_avg_sq", "steps": "step"}[name]
    p, q = torch.ones(2), torch.ones(2)
    ours, twin = Adam([p], 0.1), torch.optim.Adam([q], 0.1)
    for step in range(4):
        if step == 3:
            before = p.clone()
            getattr(ours, name)[0] = value if name == "steps" else torch.full_like(p, value)
            twin.state[q][theirs] = torch.tensor(float(value)) if name == "steps" else torch.full_like(q, value)
        p.grad, q.grad = 3 * p, 3 * q
        ours.step()
        twin.step()
    assert torch.equal(p, q) and not torch.equal(p, before)


ARRAY = np.ones((4, 2))
NUMPY = {
    "Sequential": lambda: Sequential(Linear(2, 2))(ARRAY),
    "Linear": lambda: Linear(2, 2)(ARRAY),
    "MSELoss": lambda: MSELoss()(torch.ones(4, 2), ARRAY),
    "CrossEntropyLoss": lambda: CrossEntropyLoss()(ARRAY, LABEL[:4]),
    "batches": lambda: batches(ARRAY, T[:4], 2),
    "split": lambda: split(ARRAY, ARRAY),
    "standardize": lambda: standardize(X, ARRAY),
    "one_hot": lambda: one_hot(ARRAY),
    "error_rate": lambda: error_rate(torch.ones(4, 2), ARRAY),
    "numeric_grad": lambda: numeric_grad(sum, ARRAY),
    "gradcheck": lambda: gradcheck(Tanh(), ARRAY),
    "SGD": lambda: SGD([ARRAY], 0.1),
    "Tanh": lambda: (module := Tanh(), module(X), module.backward(ARRAY)),
}


@pytest.mark.parametrize("name", NUMPY)
def test_32_a_numpy_array_is_named(name):
    with pytest.raises(TypeError, match=f"^{name}.*: expected .*, got ndarray"):
        NUMPY[name]()
