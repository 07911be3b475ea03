"""`make portable`, on small notebooks: what it runs, what it shifts, what it counts, and that it goes on."""

import json
import re

import nbformat
import portable
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import chapters

HERE = chapters.ROOT  # before a test changes it
DEAL = "import torch\n\n\ndef deal():\n    torch.manual_seed(4)\n    return torch.initial_seed()\n"
# What a cell sees of seeds: one of its own, one of the package, one that nobody set; it writes them to a file.
SEES = """
import copy, json, numpy, os, torch
import minidl.deal
g = torch.Generator()
assert isinstance(copy.deepcopy(g), torch.Generator) and "portable" in minidl.deal.__file__
torch.randperm(2, generator=copy.deepcopy(g).set_state(g.get_state()))
seeds = [torch.Generator().manual_seed(3).initial_seed(), minidl.deal.deal(), g.initial_seed() % 1000_000]
seeds.append(int(numpy.random.RandomState(5).get_state()[1][0]))
seen = {k: os.environ.get(k) for k in ("ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS", "QUICK")}
with open(os.environ["SEEN"], "a", encoding="utf-8") as file:
    print(json.dumps([seeds, seen]), file=file)
"""
UNSET = 67280421310721 % 1000_000  # a generator of PyTorch that nobody has set


def cell(source, *outputs, tags=()):
    """A cell that was run."""
    return new_code_cell(source, execution_count=1, outputs=list(outputs), metadata={"tags": list(tags)})


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """A function that calls the command in a small checkout: its exit status, its table, and what was run."""
    same = {name: (HERE / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "conftest.py")}
    other = {"tests/nbval_sanitize.cfg": "", "minidl/__init__.py": "", "minidl/deal.py": DEAL}
    for name, text in (same | other).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "chapters" / "solutions").mkdir(parents=True)
    monkeypatch.setattr(portable, "ROOT", tmp_path)
    monkeypatch.setattr(portable, "RESULTS", tmp_path / "build" / "portable")
    monkeypatch.setattr(chapters, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr(portable, "best_capability", lambda: "avx2")
    monkeypatch.setattr(portable.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("QUICK", "1")

    def call(*words):
        runs, run = [], portable.run

        def counted(setting, notebook, *places):
            runs.append((setting.name, notebook))
            return run(setting, notebook, *places)

        with monkeypatch.context() as patch:
            patch.setattr(portable, "run", counted)
            status = portable.main(words)
        return status, capsys.readouterr().out, sorted(runs)

    call.put = lambda name, *cells: nbformat.write(new_notebook(cells=list(cells)), tmp_path / "chapters" / name)
    return call


def test_settings_shifts_and_counts(call, tmp_path):
    no = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
    raises = cell(SEES + "raise ValueError('no')", no, tags=["fixed-seed", "raises-exception"])
    call.put("01_sees.ipynb", cell(SEES), raises, cell(SEES))
    lucky = cell("import torch\nassert torch.manual_seed(3).initial_seed() == 3, torch.initial_seed()")
    wrong = cell("print('one\\ntwo')", new_output("stream", name="stdout", text="one\nthree\n"))
    call.put("solutions/02_fails.ipynb", cell("1 + 1", tags=["nbval-ignore-output"]), lucky, wrong)

    status, printed, runs = call("--only", "default", "seeds+500")
    notebooks = ["chapters/01_sees.ipynb", "chapters/solutions/02_fails.ipynb"]
    assert runs == [(setting, notebook) for setting in ("default", "seeds+500") for notebook in notebooks]
    assert status == 1
    assert re.findall(r"(?m)^\| (\S+) +\| +(\d+) \| +(\d+) \| +(\d+) \|$", printed) == [
        ("default", "2", "6", "1"),
        ("seeds+500", "2", "6", "1"),
    ]
    assert printed.splitlines()[-2:] == [
        f"- default {notebooks[1]} Cell 2: stored 'three', now 'two'",
        f"- seeds+500 {notebooks[1]} Cell 1: AssertionError: 503",
    ]
    assert printed.endswith((tmp_path / "build" / "portable.md").read_text(encoding="utf-8"))
    assert len(json.loads((tmp_path / "build" / "portable.json").read_text(encoding="utf-8"))) == 4

    seen = [json.loads(line) for line in (tmp_path / "seen").read_text(encoding="utf-8").splitlines()]
    seen.sort(key=lambda line: line[1]["ATEN_CPU_CAPABILITY"] or "")  # first those of the shifted seeds, in order
    written, shifted = [3, 4, UNSET, 5], [503, 504, UNSET + 500, 505]
    assert [seeds for seeds, _ in seen] == [shifted, written, shifted, written, written, written]
    assert seen[0][1] == {"ATEN_CPU_CAPABILITY": None, "OMP_NUM_THREADS": "1", "QUICK": None}
    assert seen[3][1] == {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1", "QUICK": None}

    assert call("--only", "seeds+500")[::2] == (0, [])  # what shifted seeds break is reported only
    assert call("--only", "default", "--failed", "--list")[1:] == ("default            1 to run\n", [])


def test_not_a_notebook_and_one_that_hangs(call, tmp_path, monkeypatch):
    (tmp_path / "chapters" / "03_broken.ipynb").write_text("{", encoding="utf-8")
    status, printed, _ = call("--only", "seeds+500")
    assert status == 0 and "03_broken.ipynb notebook: 1 of 0 cells, exit status 2" in printed
    call.put("03_broken.ipynb", cell("while True:\n    pass"))
    monkeypatch.setattr(portable, "LIMIT", 0.3)
    status, printed, runs = call("--only", "avx2")
    assert status == 1 and len(runs) == 1 and "notebook: killed after 0.005 minutes" in printed


def test_goes_on_where_it_was_interrupted(call, tmp_path, monkeypatch):
    for name in "abc":
        call.put(f"{name}.ipynb", cell("1"))
    stops = {"c"}

    async def run(setting, notebook, folder, sockets):
        if notebook[-7] in stops:
            raise KeyboardInterrupt
        return {"key": portable.furnish(folder, notebook, 0, ""), "cells": 1, "failures": [], "seconds": 1.0}

    monkeypatch.setattr(portable, "run", run)
    monkeypatch.setattr(portable.os, "cpu_count", lambda: 1)
    with pytest.raises(SystemExit, match="interrupted"):
        call("--only", "drawn*", "default")
    drawn = json.loads((portable.RESULTS / "drawn.json").read_text(encoding="utf-8"))
    assert not list(portable.RESULTS.glob("*/**/c.*"))
    stops.clear()
    assert call("--only", "drawn*", "--notebooks", "*/a.ipynb")[0] == 0
    status, printed, runs = call("--only", "drawn*", "default")
    assert status == 0 and f"added to every seed: {drawn}\n" in printed
    assert ("default", "chapters/c.ipynb") in runs and ("default", "chapters/b.ipynb") not in runs
    assert not (portable.RESULTS / "drawn.json").exists()  # run to the end

    one = ["--only", "default"]
    assert call(*one)[2] == []
    call.put("b.ipynb", cell("1 + 1"))
    assert call(*one)[2] == [("default", "chapters/b.ipynb")]
    (tmp_path / "minidl" / "deal.py").write_text(DEAL + "\n", encoding="utf-8")
    assert len(call(*one)[2]) == 3
    (tmp_path / "chapters" / "judge.py").write_text("", encoding="utf-8")
    assert len(call(*one, "--notebooks", "*/[ab].ipynb")[2]) == 2
    with pytest.raises(SystemExit, match=r"expected one of default, avx2, .*, got avx3"):
        call("--only", "avx3")


def test_settings(call):
    found = {setting.name: setting for setting in portable.settings(5, ["*", "seeds+7"])}
    others = ["default", "avx2", "default+2threads", "avx2+2threads", "avx2+cbwr"]
    assert list(found) == [*others, "seeds+1000", "seeds+2000", "drawn+5", "seeds+7"]
    assert [setting.shift for setting in found.values()] == [0] * 5 + [1000, 2000, 5, 7]
    both = found["default+2threads"].environment()
    assert (both["ATEN_CPU_CAPABILITY"], both["OMP_NUM_THREADS"]) == ("default", "2") and "QUICK" not in both
    assert found["avx2+cbwr"].environment()["MKL_CBWR"] == "COMPATIBLE"
    assert "ATEN_CPU_CAPABILITY" not in found["avx2+cbwr"].environment()
    assert list(portable.capabilities("avx512", "x86_64")) == ["default", "avx2", "avx512"]
    assert portable.capabilities("avx2", "AMD64") == {"default": (("ATEN_CPU_CAPABILITY", "default"),), "avx2": ()}
    assert portable.capabilities("default", "aarch64") == portable.capabilities("default", "x86_64") == {"default": ()}
    assert list(portable.capabilities("sve256", "aarch64")) == ["default", "sve256"]


def test_no_other_seeds():
    """Those of NumPy's own functions, of its newer generators and of Python would not be shifted."""
    files = [file for top in ("minidl", "chapters") for file in HERE.glob(f"{top}/*.py")]
    sources = [(file, file.read_text(encoding="utf-8")) for file in files]
    for path in chapters.notebooks():
        cells = nbformat.read(path, as_version=4).cells
        sources += [(path, cell.source) for cell in cells if cell.cell_type == "code"]
    other = r"\b(?:np|numpy)\.random\b|\bdefault_rng\b|\bimport random\b|\bfrom random import\b"
    assert [path.name for path, source in sources if re.search(other, source)] == []


@pytest.mark.parametrize(
    "text, line",
    [
        ("Cell 1: x\n\nInput:\n1/0\n\nTraceback:\n#x1B[0;31mZeroDivisionError#x1B[0m: no", "ZeroDivisionError: no"),
        ("E   RuntimeError: Kernel died\n\nkernel.py:3: in f", "RuntimeError: Kernel died"),
        (
            "Cell 1: Cell outputs differ\n\nTraceback:\nMissing output fields: x",
            "outputs differ: Missing output fields: x",
        ),
        ("something\nelse", "else"),
    ],
)
def test_brief(text, line):
    assert portable.brief(text) == line
