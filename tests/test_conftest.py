"""conftest.py: a notebook's cells stay together, whatever shares out the work."""

import os
import shutil
import subprocess
import sys
import types

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import chapters


@pytest.fixture
def folder(tmp_path):
    """A project of two notebooks in which every cell needs the ones before it."""
    (tmp_path / "tests").mkdir()
    for name in "conftest.py", "tests/nbval_sanitize.cfg":
        shutil.copy(chapters.ROOT / name, tmp_path / name)
    for name in "first", "second":
        cells = [new_code_cell("x = 0", execution_count=1)]
        for count in range(1, 4):
            printed = new_output("stream", name="stdout", text=f"{count}\n")
            cells.append(new_code_cell("x += 1\nprint(x)", execution_count=count + 1, outputs=[printed]))
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    return tmp_path


def run(folder, *arguments):
    """What pytest says in `folder`, and how it ended; the run around it has no part in it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", *arguments]
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, encoding="utf-8")
    return done.returncode, done.stdout


def test_cells_stay_together(folder):
    code, said = run(folder, "-n", "2")
    assert code == 0 and "8 passed" in said, said


def test_cells_apart_fail(folder):
    (folder / "conftest.py").unlink()
    code, said = run(folder, "-n", "2", "--dist", "load", "--nbval-current-env")
    assert code == 1 and "NameError" in said, said


@pytest.mark.parametrize("asked, given", [("load", "loadfile"), ("worksteal", "loadfile"), ("no", "no")])
def test_dist_is_by_file_whatever_is_asked(request, asked, given):
    option = types.SimpleNamespace(nbval=True, nbval_kernel_name="", nbval_sanitize_with="", dist=asked)
    (own,) = (plugin for plugin in request.config.pluginmanager.get_plugins() if is_root_conftest(plugin))
    own.pytest_configure(types.SimpleNamespace(option=option))
    assert option.dist == given and option.nbval_current_env


def is_root_conftest(plugin):
    """Whether a plugin of pytest is the project's conftest.py."""
    return getattr(plugin, "__file__", None) == str(chapters.ROOT / "conftest.py")
