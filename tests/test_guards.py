"""The package keeps its one rule: basic tensor operations, and nothing that a chapter does not export.

A guard is a function from what it reads to complaints, a line each. Every guard is shown a planted
violation too: one that cannot complain guards nothing.
"""

import ast
import re
import tomllib

import pytest
import torch
import versions
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import chapters

ROOT, PACKAGE = chapters.ROOT, chapters.PACKAGE
FILES = sorted(PACKAGE.rglob("*.py"))

# All that the package takes from PyTorch: functions with `torch.`, methods and attributes with a dot alone.
# The list is exact: a name that is used and not here fails, and so does one that is here and not used.
ALLOWED = {
    "types and constants": """
        torch.Generator torch.Tensor torch.dtype torch.float64 torch.inf torch.int64""",
    "creation": """
        .clone .new_tensor torch.arange torch.as_tensor torch.empty torch.empty_like torch.eye torch.full
        torch.linspace
        torch.ones_like torch.tensor torch.zeros_like""",
    "random": """
        .bernoulli_ .normal_ .uniform_ torch.get_rng_state torch.manual_seed torch.rand torch.randn_like
        torch.default_generator torch.random.fork_rng torch.randint torch.randperm""",
    "arithmetic": """
        .abs .clamp_max .clamp_min .exp .log .log1p .nan_to_num .sign .sqrt .square
        .addcmul .isfinite .isnan torch._foreach_sqrt torch.addmm torch.baddbmm torch.expm1 torch.where""",
    "three activations": """
        torch.relu torch.sigmoid torch.tanh""",
    "reductions": """
        .all .amax .any .argmax .max .mean .median .min .nanmean .norm .sort .std .sum torch.allclose""",
    "shapes and indices": """
        .dim .element_size .expand .flatten .is_contiguous .mT .ndim .numel .reshape .select .shape .split .stride
        .unsqueeze .view torch.cartesian_prod torch.cat
        torch.stack torch.unravel_index""",
    "types and places": """
        .as_subclass .cpu .data .detach .device .double .dtype .float .is_floating_point .item .long .to .tolist""",
    "in place": """
        .add_ .addcdiv_ .addcmul_ .copy_ .div_ .mul_ .scatter_ .zero_ torch._foreach_add_ torch._foreach_addcdiv_
        torch._foreach_addcmul_ torch._foreach_div_ torch._foreach_lerp_ torch._foreach_mul_""",
    "files": """
        torch.load torch.save""",
    "no gradients, and what was changed in place": """
        ._version .requires_grad torch.no_grad""",
    "words that Python's own containers share with tensors": """
        .values""",
    "other modules": """
        contextlib copy dataclasses functools inspect io itertools math numbers os pandas pathlib signal tempfile time
        torch tqdm.auto zipfile concurrent.futures multiprocessing platform threading""",
    "what a worker shares with its caller": """
        torch.get_default_dtype torch.get_num_threads torch.set_default_dtype torch.set_num_threads""",
}
LIST = {name for group in ALLOWED.values() for name in group.split()}
# Messages between processes, and what chapter 16 needs for them: in ranks.py alone.
RANKS = set(
    """
    torch.distributed.all_gather torch.distributed.all_to_all_single torch.distributed.broadcast
    torch.distributed.get_rank torch.distributed.get_world_size torch.zeros
    .new_zeros""".split()
)
OWN = {"backward", "grad"}  # Module.backward and Parameter.grad are what the course is about
PLOTTING = {"IPython", "ipywidgets", "matplotlib", "numpy"}  # in plots.py alone

# Never to be listed: what PyTorch has ready-made, derivatives of its own, and what hides from this list.
READY_MADE = {n for n, f in vars(torch.nn.functional).items() if callable(f) and not isinstance(f, type)}
READY_MADE -= {"relu", "relu_", "sigmoid", "tanh"}
REFUSED = re.compile(
    r"nn|optim|autograd|func|ops|jit|compile|_C|requires_grad_|.*(backward|fused).*|_(?!foreach_|version$).*"
)


def dotted(node):
    """`a.b.c` as a string; None for anything else."""
    if isinstance(node, ast.Attribute) and (front := dotted(node.value)):
        return f"{front}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def is_tensors(word):
    """Whether tensors have an attribute of this name, and it is neither Python's nor the package's own."""
    return hasattr(torch.Tensor, word) and word not in OWN and not word.startswith("__")


def names(text):
    """The (line, name) of everything that a module takes from PyTorch, and of the modules it imports."""
    inner = set()  # torch.random in torch.random.fork_rng, torch in torch.random
    others = set()  # the names of modules that are not PyTorch's: math.sqrt is no method of a tensor
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                others.add(alias.asname or alias.name)
                renamed = alias.asname and alias.name.startswith("torch")
                yield node.lineno, f"{alias.name} as {alias.asname}" if renamed else alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            hers = node.module.split(".")[0] == "torch"
            yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names if hers)
            yield from [] if hers else [(node.lineno, node.module)]
        elif isinstance(node, ast.Attribute):
            name = dotted(node) or ""
            inner.add(node.value)
            if name.startswith("torch."):
                if node not in inner:
                    yield node.lineno, name
            elif node.attr == "requires_grad" and isinstance(node.ctx, ast.Store):
                yield node.lineno, "requires_grad is set"  # it may be read: what comes in is then detached
            elif name.split(".")[0] not in others and name != f"self.{node.attr}" and is_tensors(node.attr):
                yield node.lineno, f".{node.attr}"
        elif isinstance(node, ast.Name) and node.id == "torch" and node not in inner:
            yield node.lineno, "torch as a value"
        elif isinstance(node, ast.Name) and node.id in ("eval", "exec", "__import__"):
            yield node.lineno, node.id
        elif isinstance(node, ast.Call) and dotted(node.func) in ("getattr", "setattr"):
            word, what = getattr(node.args[1], "value", ""), " is set" * (node.func.id == "setattr")
            if isinstance(word, str) and is_tensors(word):
                yield node.lineno, f".{word}{what}"
        elif isinstance(node, ast.keyword) and node.arg == "requires_grad":
            yield node.value.lineno, "requires_grad is set"


def unlisted(text, file="linear.py"):
    """Names that the list does not have."""
    free = PLOTTING if file == "plots.py" else {"minidl"}
    listed = LIST | RANKS if file == "ranks.py" else LIST
    return [
        f"{file}:{line}: {name} is not in ALLOWED"
        for line, name in names(text)
        if name not in listed and name.split(".")[0] not in free
    ]


def unused(texts, listed=LIST):
    """Names on the list that no file uses."""
    return sorted(listed - {name for text in texts for _, name in names(text)})


# What chapter 12 derives: many networks, devices that wait, threads. No chapter before it speaks of them.
LATER = re.compile(
    r"replicas?|(un)?stack(s|ed)?|frozen|fresh|vmap|inference|threads?|"
    r"cuda|gpus?|synchroni[sz]e[ds]?|asynchronous(ly)?|blocking|loop"
)
ASKS = 'getattr(model, "loop", Loop)'  # the one line of `fit` that asks a model for its loop
IDENTIFIERS = ("id", "attr", "arg", "name", "asname", "module")  # where the nodes of a tree have them


def before_12(text):
    """A file of the package, each line that a chapter from 12 on exports left empty."""
    head, *cells = re.split(r"(?m)^(?=# %% \.\./chapters/)", text)
    early = [cell for cell in cells if re.match(r"# %% \.\./chapters/(0|10|11)", cell)]
    return "".join(
        part if part in early or early and part == head else "\n" * part.count("\n") for part in [head, *cells]
    )


def looks_ahead(text, file="linear.py"):
    """Identifiers, and words of docstrings, that chapter 12 is the first to explain; `torch.stack` is none."""
    for node in ast.walk(ast.parse(text)):
        words = [word for field in IDENTIFIERS if isinstance(word := getattr(node, field, None), str)]
        if dotted(node) == "torch.stack" or words == ["Loop"]:
            words = []
        if isinstance(node, ast.Call) and dotted(node.func) in ("getattr", "hasattr", "setattr"):
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            words = [word for word in re.findall(r"\w+", node.value.value) if word != "loop"]
        elif isinstance(node, ast.Name) and node.id == "loop":
            words = []  # a variable
        for word in words:
            pieces = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", word)
            if any(LATER.fullmatch(piece.lower()) for piece in pieces):
                yield f"{file}:{node.lineno}: {word} is what chapter 12 derives"


def refused(listed):
    """Names that no list may have."""
    parts = {name: name.removeprefix("torch").strip(".").split(".") for name in listed}
    return [n for n, words in parts.items() if any(w in READY_MADE or REFUSED.fullmatch(w) for w in words)]


def headless(text, file="linear.py"):
    """A generated file names the chapters it comes from, and they exist."""
    named = re.findall(r"\.\./chapters/([\w.]+\.ipynb)", text)
    missing = [name for name in named if not (chapters.CHAPTERS / name).exists()]
    generated = "AUTOGENERATED! DO NOT EDIT! File to edit: ../chapters/" in text
    return [f"{file}: no chapter {name}" for name in missing] + ([] if generated else [f"{file}: written by hand"])


def stray(files, exported):
    """Files of the package that no chapter exports."""
    return sorted(set(files) - set(exported) - {"__init__.py"})


def narrow(versions):
    """The range from the first to the last of these, a minor release at both ends."""
    minor = sorted(Version(version).release[:2] for version in versions)
    return SpecifierSet(">={}.{}".format(*minor[0])) & SpecifierSet(f"<{minor[-1][0]}.{minor[-1][1] + 1}")


def disagreements(environment, project, makefile, constraints):
    """Where the versions of constraints.txt are not those of the other files, or a range is wider than what was run."""
    lines = [line for line in constraints.splitlines() if not line.startswith("#")]
    found = [f"{line}: not name==version" for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    found += [f"{line}: a build for a GPU" for line in lines if re.match("nvidia|cuda|triton", line)]
    pins = {canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in lines)}
    extras = project["optional-dependencies"]
    for wanted in map(Requirement, project["dependencies"] + extras["dev"] + extras["browser"]):
        pin = pins.get(canonicalize_name(wanted.name)) or "0.0"
        run = [pin] + [torch for _, torch in versions.COMBINATIONS if wanted.name == "torch"]
        if wanted.specifier not in (SpecifierSet(f"=={pin}"), narrow(run)):
            found.append(f"{wanted}: run were {', '.join(run)}")
    *conda, pip = environment["dependencies"]
    python = dict(re.findall(r"(\w+)=([\d.]+)", " ".join(conda))).get("python", "0.0")
    run = [python] + [other for other, _ in versions.COMBINATIONS]
    asked = re.findall(r"\((\d), (\d+)\) <= sys.version_info < \((\d), (\d+)\)", makefile)
    asked = [SpecifierSet(">={}.{},<{}.{}".format(*numbers)) for numbers in asked]
    if not asked == [SpecifierSet(project["requires-python"])] == [narrow(run)]:
        found.append(f"python {project['requires-python']}, in the Makefile {asked}: run were {', '.join(run)}")
    if "pip" not in conda or pip["pip"] != ["-c constraints.txt", "-e .[dev]"]:
        found.append("environment.yml: pip, or what it installs, is missing")
    return found + ([] if f"torch=={pins.get('torch')}\n" in makefile else ["Makefile: another torch"])


def expect_none(complaints):
    """Fail with the complaints themselves, a line each."""
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_package_uses_listed_names_only(file):
    expect_none(unlisted(file.read_text(encoding="utf-8"), file.name))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_chapter_before_12_looks_ahead(file):
    text = before_12(file.read_text(encoding="utf-8"))
    assert text.count(ASKS) == (file.name == "train.py")
    expect_none(list(looks_ahead(text.replace(ASKS, "Loop"), file.name)))


def test_list_has_no_more_than_is_used():
    expect_none(unused(file.read_text(encoding="utf-8") for file in FILES))
    expect_none(unused([(PACKAGE / "ranks.py").read_text(encoding="utf-8")], RANKS))


def test_list_has_nothing_ready_made():
    expect_none(refused(LIST | RANKS))


def test_package_is_what_the_chapters_export():
    expect_none(chapters.out_of_step())
    expect_none(stray((str(file.relative_to(PACKAGE)) for file in FILES), chapters.exported()))


@pytest.mark.parametrize("file", [f for f in FILES if f.name != "__init__.py"], ids=lambda file: file.name)
def test_header_names_chapters(file):
    expect_none(headless(file.read_text(encoding="utf-8"), file.name))


FILES_OF_VERSIONS = ["environment.yml", "pyproject.toml", "Makefile", "constraints.txt"]


def disagreements_with(file=None, old="", new=""):
    """`disagreements` of the four files, in one of them `old` replaced by `new`."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES_OF_VERSIONS}
    if file:
        assert old in texts[file]
        texts[file] = texts[file].replace(old, new)
    environment, project, *others = texts.values()
    return disagreements(yaml.safe_load(environment), tomllib.loads(project)["project"], *others)


def test_versions_agree():
    expect_none(disagreements_with())


@pytest.mark.parametrize(
    "planted",
    [
        "import torch.nn as nn",
        "import torch.distributed",
        "from torch.distributed import all_gather",
        "import torch.nn.functional as F",
        "import torch as t",
        "from torch import nn",
        "from torch.nn import Linear",
        "from torch import *",
        "torch.softmax(x, -1)",
        "torch.nn.functional.relu(x)",
        "torch.ops.aten.tanh_backward(g, y)",
        "torch.random.seed()",
        "x.log_softmax(-1)",
        "(x + 1).prelu(w)",
        "x.requires_grad_()",
        "x.requires_grad = True",
        "x.requires_grad |= True",
        "torch.zeros(2, requires_grad=True)",
        "setattr(x, 'requires_grad', True)",
        "getattr(torch, name)(x)",
        "getattr(x, 'softmax')(-1)",
        "math = torch",
        "__import__('torch').selu(x)",
        "import importlib",
        "import numpy as np",
        "import matplotlib.pyplot as plt",
    ],
)
def test_unlisted_complains(planted):
    assert unlisted(planted)
    assert not unlisted("import math\nimport torch\ntorch.tensor(1.0).sum().backward(x.grad)")


@pytest.mark.parametrize(
    "name",
    """
    torch.nn.functional.relu torch.nn torch.optim.SGD torch.func.grad torch.autograd.grad .requires_grad_
    torch.selu torch.celu torch.prelu torch.rrelu_ torch.gelu .softmax .log_softmax torch._softmax torch.dropout
    torch.mse_loss torch.binary_cross_entropy_with_logits torch.ops.aten.tanh_backward torch.native_dropout_backward
    torch._fused_adam_ torch._C
    """.split(),
)
def test_refused_complains(name):
    assert refused([name])
    assert not refused(["torch.relu", ".tanh", "torch.sigmoid", "torch.addmm", "torch._foreach_add_", "torch.baddbmm"])


@pytest.mark.parametrize(
    "planted",
    [
        "def f(replicas):\n    pass",
        "def unstack(x):\n    pass",
        "class StackedLinear:\n    pass",
        "self.frozen = 1",
        "f(fresh=1)",
        "with torch.inference_mode():\n    pass",
        "torch.set_num_threads(1)",
        "x.to(target, non_blocking=True)",
        "torch.cuda.synchronize()",
        "from .replicas import OneRule",
        "from torch import stack",
        "[].stack",
        "hasattr(model, 'replicas')",
        'class A:\n    """Serves a stack."""',
        'def f(x):\n    """Shape: (N, in), or (R, N, in) for replicas."""',
        '"""In inference mode."""',
        "model.loop(run)",
        ASKS,
    ],
)
def test_looks_ahead_complains(planted):
    early, late = (f"# %% ../chapters/{name}.ipynb #id\n{planted}\n" for name in ("11_dropout", "12a_replicas"))
    assert list(looks_ahead(before_12(early)))
    assert not list(looks_ahead(before_12(late)))


def test_what_looks_ahead_and_what_does_not():
    fine = "x = torch.stack([x])  # no stack\nloop = Loop(run)\nloop.step(x, t)\n'The threads of a stack.'.lower()"
    assert not list(looks_ahead(fine))
    seen = "\n".join(before_12(file.read_text(encoding="utf-8")) for file in FILES)
    numbers = {number[:2] for number in re.findall(r"# %% \.\./chapters/(\w+)", seen)}
    assert numbers == {f"{k:02}" for k in range(12)}


def test_guards_of_files_complain():
    assert unused(["torch.rand(2)"], {"torch.rand", "torch.eye"}) == ["torch.eye"]
    assert headless("# File to edit: ../chapters/99_gone.ipynb.")
    assert headless("x = 1") and not headless((PACKAGE / "data.py").read_text(encoding="utf-8"))
    assert stray(["__init__.py", "data.py", "sub/old.py"], {"data.py": b""}) == ["sub/old.py"]


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("constraints.txt", "torch==2.13.0", "torch==2.14.1"),
        ("constraints.txt", "torch==2.13.0", "torch==2.13.0+cpu"),
        ("constraints.txt", "nbval==0.11.0", "nbval==0.10.0"),
        ("constraints.txt", "tqdm==", "tqdn=="),
        ("constraints.txt", "numpy==", "numpy>="),
        ("constraints.txt", "numpy==2.4", "numpy==2.5"),
        ("constraints.txt", "zmq==", "zmq @ file:///"),
        ("constraints.txt", "tornado", "nvidia-nccl-cu13"),
        ("environment.yml", "python=3.11", "python=3.10"),
        ("environment.yml", "      - -e .[dev]\n", ""),
        ("environment.yml", "      - -c constraints.txt\n", ""),
        ("environment.yml", "  - pip\n", ""),
        ("pyproject.toml", '">=3.11,<3.14"', '">=3.11"'),
        ("pyproject.toml", "torch>=2.13", "torch>=2.12"),
        ("pyproject.toml", "<2.15", "<2.16"),
        ("pyproject.toml", "pandas>=3.1,<3.2", "pandas>=3.0"),
        ("pyproject.toml", "playwright>=1.65,<1.66", "playwright"),
        ("Makefile", "torch==2.13.0", "torch==2.0.0"),
        ("Makefile", "(3, 14)", "(3, 15)"),
    ],
)
def test_disagreements_complains(file, old, new):
    assert disagreements_with(file, old, new)
