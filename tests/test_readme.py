"""What the README says was run: its code, its picture, its commands, its list of chapters."""

import contextlib
import io
import os
import re
import subprocess
import sys

import nbformat
import pytest

import chapters

README = (chapters.ROOT / "README.md").read_text(encoding="utf-8")


def test_its_code_prints_what_it_says(tmp_path, monkeypatch):
    code, printed = (re.search(rf"```{kind}\n(.*?)```", README, re.DOTALL)[1] for kind in ("python", "text"))
    assert len(code.splitlines()) == 12
    out, names = io.StringIO(), {"__name__": "__main__"}
    monkeypatch.chdir(tmp_path)  # one writes a file
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        exec(code, names)
    assert out.getvalue() == printed
    for other in re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1:]:
        if "RankLoop" not in other:
            with contextlib.redirect_stderr(io.StringIO()):  # bars
                exec(other, names)
    assert len(names["table"]) == len((tmp_path / "rows.csv").read_text().splitlines()) - 1 == 40


def test_its_program_runs_on_two_ranks(tmp_path):
    first, *_, last = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[:4]
    assert "RankLoop" in last
    imports = "".join(line + "\n" for line in first.splitlines() if re.match("import|from", line))
    (tmp_path / "train.py").write_text(imports + last)
    command = re.search(r"`torchrun (--nproc-per-node=2 train.py)`", README)[1].split()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *command],
        **{"cwd": tmp_path, "env": os.environ | {"GLOO_SOCKET_IFNAME": "lo"}, "capture_output": True, "timeout": 300},
    )
    bars = sum(b"5/5" in line for line in done.stderr.split(b"\n"))  # of rank 0 alone
    assert (done.returncode, bars) == (0, 1), done.stderr.decode()


def test_its_picture_is_the_chapters():
    notebook = chapters.CHAPTERS / "18g_pytorch.ipynb"
    assert chapters.pictures(nbformat.read(notebook, as_version=4)) == [notebook.with_suffix(".png").read_bytes()]


def test_its_commands_and_links_exist():
    makefile = (chapters.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^(\w+):", makefile, re.MULTILINE)
    assert set(re.findall(r"`?make (?:\w+=\S+ )?([a-z]+)", README)) <= {*targets, "their"}
    for link in re.findall(r"\]\(([\w./]+)\)", README):
        assert (chapters.ROOT / link).exists(), link


@pytest.mark.parametrize("notebook", sorted(chapters.CHAPTERS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_its_table_has_every_chapter_under_its_title(notebook):
    title = nbformat.read(notebook, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
    assert f"| {notebook.name.split('_')[0]} | [{title}](chapters/{notebook.name}) |" in README


@pytest.mark.parametrize(
    "what, where, there", [("calls", "12c", "{} calls by the modules"), ("bugs", "17", "convicted, of {}:")]
)
def test_its_numbers_are_those_of_the_chapters(what, where, there):
    number = re.search(rf"(\d+) {what}", README)[1]
    (path,) = chapters.CHAPTERS.glob(f"{where}_*.ipynb")
    assert there.format(number) in path.read_text(encoding="utf-8")
