"""`make reproduce`, on two small parts of a last chapter."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import chapters

HEAD = 'print("report  error")\n'


def part(folder, name, *sources, tag=(chapters.TABLE_TAG,)):
    cells = [new_code_cell(source, metadata={"tags": list(tag)}) for source in sources]
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "CHAPTERS", tmp_path)
    monkeypatch.setattr(chapters, "BUILD", tmp_path / "build")
    return tmp_path


@pytest.mark.parametrize("quick", ["", "1"])
def test_one_table_of_all_parts(folder, capsys, monkeypatch, quick):
    monkeypatch.setenv("QUICK", quick)
    part(folder, "17_before", "1 / 0")  # is not run
    part(folder, "18a_first", HEAD + 'import os\nprint("000    ", os.environ["QUICK"] or "all")')
    part(folder, "18b_second", HEAD + 'print("001      0.2")')
    chapters.reproduce()
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["report  error", f"000     {quick or 'all'}", "001      0.2", "figures: build/reproduction.html"]
    page = (folder / "build" / "reproduction.html").read_text(encoding="utf-8")
    assert page.index("000") < page.index("001")


def test_a_part_that_fails_ends_it(folder):
    part(folder, "18a_first", "1 / 0")
    with pytest.raises(SystemExit):
        chapters.reproduce()


def test_parts_without_a_table_are_refused(folder):
    part(folder, "18a_first", "1", tag=())
    with pytest.raises(SystemExit, match="expected a cell tagged"):
        chapters.reproduce()
