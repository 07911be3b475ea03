"""In JupyterLab, in a browser: every chapter with a slider runs, and its picture follows the slider.

`make browser` runs this; it needs playwright and a Chromium (CHROMIUM=/path/to/it).
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import nbformat
import pytest

import chapters

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # render every cell, seen or not
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
RUN_ALL = """async () => {
    const app = window.jupyterapp, panel = app.shell.currentWidget;
    await app.restored; await panel.context.ready; await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;  // the kernel has answered: sooner, a run can hang for ever
    await app.commands.execute("notebook:run-all-cells");  // comes back at the first refusal; the rest goes on
}"""
HAVE_RUN = """() => [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].every(
    (prompt, i) => prompt.textContent.trim() === `[${i + 1}]:`)"""
FAILED = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'


def cells(path):
    """The code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


PLAYED = [path for path in chapters.notebooks() if any("interact(" in cell.source for cell in cells(path))]


@contextlib.contextmanager
def jupyter_lab(notebook):
    """The address of a copy of `notebook` in a JupyterLab of its own: loopback, a free port, a token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        folder = pathlib.Path(folder)
        (folder / "work").mkdir()
        for file in [notebook, *chapters.CHAPTERS.glob("*.py")]:  # judge.py, beside the last chapters
            shutil.copy(file, folder / "work")
        for name, value in SETTINGS.items():
            file = folder / "settings" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(value), encoding="utf-8")
        places = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
        places |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
        environment = os.environ | {name: str(folder / place) for name, place in places.items()}
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
        command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
        command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'work'}"]
        log = folder / "log"
        with log.open("w", encoding="utf-8") as out:
            server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token={token}", timeout=2).close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/lab/tree/{notebook.name}?token={token}&reset"
        finally:
            server.send_signal(signal.SIGTERM)  # it ends its kernels
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no chromium: install it, or name it in CHROMIUM")
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def run_in(browser, path):
    """The page of a notebook in JupyterLab, every cell run; afterwards, nothing must have gone wrong."""
    with jupyter_lab(path) as address, browser.new_context(viewport={"width": 1300, "height": 1000}) as context:
        page = context.new_page()
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for(timeout=60_000)
        page.evaluate(RUN_ALL)
        page.wait_for_function(HAVE_RUN, timeout=600_000)
        shown = sum("raises-exception" in cell.metadata.get("tags", []) for cell in cells(path))
        assert page.locator(FAILED).count() == shown
        yield page
        assert page.locator(FAILED).count() == shown
        assert wrong == []


def changes(page, cell, act):
    """Do `act`, and wait until the picture of the cell is another one."""
    picture = cell.locator(".widget-output img, .jp-RenderedImage img")
    picture.last.wait_for(timeout=30_000)
    before = picture.last.get_attribute("src")
    act()
    moved = "([cell, before]) => { const i = [...cell.querySelectorAll('img')].pop(); return i && i.src !== before }"
    page.wait_for_function(moved, arg=[cell.element_handle(), before], timeout=60_000)


def move(cell):
    """A slider one step on, or back from its end; of a list to choose from, its first line."""
    handle = cell.locator(".noUi-handle").first
    if not handle.count():
        return cell.locator(".widget-interact select").first.select_option(index=0)
    end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    handle.press("ArrowLeft" if end else "ArrowRight")


@pytest.mark.parametrize("path", PLAYED, ids=lambda path: path.stem)
def test_slider_moves_the_picture(path, browser):
    with run_in(browser, path) as page:
        played = page.locator(".jp-CodeCell", has=page.locator(".widget-interact")).first
        changes(page, played, lambda: move(played))
        assert played.locator(".widget-interact .widget-output img").count() == 1


def test_the_playground_goes_on_and_stops(browser):
    with run_in(browser, chapters.CHAPTERS / "18g_pytorch.ipynb") as page:
        played = page.locator(".jp-CodeCell", has=page.locator(".widget-interact")).first
        more, stop = (played.get_by_role("button", name=name) for name in ("ten epochs", "stop"))
        changes(page, played, more.click)
        changes(page, played, lambda: None)  # it goes on by itself
        stop.click()
        page.wait_for_timeout(3000)
        pictures = played.locator("img")
        still = pictures.last.get_attribute("src")
        page.wait_for_timeout(3000)
        assert pictures.last.get_attribute("src") == still and pictures.count() == 2
