"""Nothing is fetched at run time, and `make lab` opens its door to this machine alone."""

import ast
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

import chapters

NETWORK = {"aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "ssl", "urllib", "urllib3"}
# A namespace without any network but its own loopback, which a notebook and its kernel talk over.
ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def can_be_alone():
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0


def imported(text):
    """The modules, at the top, that a text imports, and the functions that load something by an address."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Attribute) and node.attr in ("hub", "model_zoo", "load_state_dict_from_url"):
            yield "requests"


def sources():
    """(file, code) of the package, the tools, and every chapter and solution."""
    for folder in (chapters.PACKAGE, chapters.ROOT / "tools", chapters.CHAPTERS):
        yield from ((path, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py")))
    for path in chapters.notebooks():
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert not any(line.startswith(("!", "%")) for cell in cells for line in cell.splitlines()), path
        yield path, "\n".join(cells)


def test_no_code_asks_for_a_network():
    found = {path.name: NETWORK & set(imported(text)) for path, text in sources()}
    assert len(found) > 40 and {name: modules for name, modules in found.items() if modules} == {}
    for planted in ("import urllib.request", "from requests import get", "torch.hub.load('a', 'b')"):
        assert NETWORK & set(imported(planted))


@pytest.mark.skipif(not can_be_alone(), reason="no right to a network of one's own")
def test_a_chapter_runs_without_a_network():
    look = "import socket; socket.create_connection(('192.0.2.1', 80), 2)"
    assert b"unreachable" in subprocess.run([*ALONE, sys.executable, "-c", look], capture_output=True).stderr
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [*ALONE, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval"]
    chapter = chapters.CHAPTERS / "01_circle.ipynb"
    done = subprocess.run([*command, str(chapter)], cwd=chapters.ROOT, env=own, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout


def test_lab_listens_on_loopback_with_a_token():
    """`make lab` leaves Jupyter's own settings: this machine alone, a token of 48 digits, no root."""
    from jupyter_server.serverapp import ServerApp

    app = ServerApp()
    assert (app.ip, app.allow_remote_access, app.allow_root) == ("localhost", False, False)
    tokens = {app.identity_provider_class(parent=app).token for _ in range(2)}
    assert len(tokens) == 2 and all(re.fullmatch("[0-9a-f]{48}", token) for token in tokens)
    makefile = (chapters.ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r".*-m jupyterlab.*", makefile)
    assert line.strip() == "exec $(PY) -m jupyterlab chapters/00_map.ipynb"
