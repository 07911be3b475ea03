"""Run, normalise, export and show the chapters.

python tools/chapters.py run   [NOTEBOOK ...]  execute in a fresh kernel, write in normal form
python tools/chapters.py clean [NOTEBOOK ...]  write in normal form, without executing
python tools/chapters.py html  [NOTEBOOK ...]  write build/html/NAME.html, readable without a network
python tools/chapters.py export                write minidl/ from the chapters
python tools/chapters.py check                 fail unless notebooks and package are as these would write them

Without NOTEBOOK, every chapter and every solution is meant.
"""

import argparse
import asyncio
import base64
import copy
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbclient.output_widget import OutputWidget
from nbconvert import HTMLExporter

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHAPTERS, PACKAGE, BUILD = ROOT / "chapters", ROOT / "minidl", ROOT / "build"

NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"tags", "nbgrader"}
PICTURE_TAG = "picture"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"

# nbconvert's own page fetches its scripts from the network and drops the alt text of figures.
PAGE = """
{%- extends "lab/index.html.j2" -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}
<script>MathJax = {tex: {inlineMath: [["$", "$"]], processEscapes: true}};</script>
<script src="tex-svg.js" defer></script>
{%- endblock -%}
{%- block data_png -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data["image/png"] }}"
     alt="{{ (output | get_metadata("alt", "image/png") or "") | escape_html }}">
</div>
{%- endblock -%}
"""


def notebooks():
    """Every chapter, then every solution, each in the order of the numbers."""
    return sorted(CHAPTERS.glob("*.ipynb")) + sorted(CHAPTERS.glob("solutions/*.ipynb"))


def last_number():
    """The number of the last chapter, as its files begin: 18."""
    return max(path.name[:2] for path in CHAPTERS.glob("[0-9][0-9]*_*.ipynb"))


def freeze_widgets(outputs, state):
    """Replace each widget by the picture it shows now, at the default value of its sliders.

    A page without a kernel can show that; running the cell in JupyterLab brings the sliders back.
    """

    def shown(reference):
        model = state.get(reference.removeprefix("IPY_MODEL_"), {}).get("state", {})
        own = [nbformat.from_dict(output) for output in model.get("outputs", [])]
        return own + [output for child in model.get("children", []) for output in shown(child)]

    frozen = []
    for output in outputs:
        view = output.get("data", {}).get(WIDGET)
        known = view and view["model_id"] in state  # buttons alone show nothing
        frozen += shown(view["model_id"]) if known else [output]
    return frozen


def join_streams(outputs):
    """Join neighbouring pieces of what was printed: where a kernel cuts it depends on the clock."""
    joined = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.name == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def clean(notebook):
    """Return a copy of `notebook` in normal form: outputs kept, noise gone.

    The counts stay as they are: only a run makes them 1..n, so they tell whether there was one.
    """
    notebook = copy.deepcopy(notebook)
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    for cell in notebook.cells:
        kept = {key: value for key, value in cell.metadata.items() if key in CELL_METADATA}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type != "code":
            continue
        cell.outputs = join_streams(freeze_widgets(cell.outputs, state))
        for output in cell.outputs:
            if output.output_type == "error":  # a refusal shown on purpose: no paths of a machine
                output.traceback = [f"{output.ename}: {output.evalue}"]
            if "data" in output:
                alt = output.metadata.get("image/png", {}).get("alt")
                output.metadata = nbformat.from_dict({"image/png": {"alt": alt}} if alt else {})
                if len(output.data) > 1:
                    output.data.pop(WIDGET, None)  # another model id in every run
                if "image/png" in output.data:
                    output.data["image/png"] = output.data["image/png"].rstrip("\n")
    return notebook


def normal_form(notebook):
    """The text of the file that holds `notebook` in normal form."""
    notebook = clean(notebook)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


class Output(OutputWidget):
    """What a slider's function shows, kept without an answer to the kernel.

    An answer sent while a reply is awaited can hide that reply: the run then waits for ever (nbclient, issue 312).
    """

    def _publish_msg(self, *args, **options):
        """Say nothing."""


class Client(NotebookClient):
    """Runs the notebook at `path` in a fresh kernel; `bar` shows its progress and what it prints."""

    def __init__(self, path, bar=None):
        notebook = nbformat.read(path, as_version=4)
        here = {"metadata": {"path": str(path.parent)}}
        sys.path.append(str(ROOT))
        import conftest  # noqa: F401 -- it sets what a kernel of `pytest --nbval` has, and writes the cache of fonts

        quiet = ["--log-level=ERROR"]  # the kernel's own notices: one on TCP at every start
        super().__init__(notebook, kernel_name="python3", resources=here, extra_arguments=quiet)
        self.widget_registry["@jupyter-widgets/output"]["OutputModel"] = Output
        self.bar = bar
        if bar is not None:
            bar.reset(sum(cell.cell_type == "code" for cell in self.nb.cells))
            self.on_cell_complete = lambda cell, cell_index: bar.update()

    def process_message(self, msg, cell, cell_index):
        """Take one message of the kernel; printed text is shown at once, not after the cell."""
        if self.bar is not None and msg["msg_type"] == "stream":
            self.bar.write(msg["content"]["text"].rstrip("\n"), file=sys.stderr)
        return super().process_message(msg, cell, cell_index)


async def execute(path):
    """The notebook at `path`, run; a cell that fails ends the program with its traceback."""
    try:
        return await Client(path).async_execute()
    except CellExecutionError as error:
        sys.exit(f"{path.name}: {error}")


def exported():
    """What the chapters export: {file name: bytes}.

    nbdev-export works on a copy, in an empty folder: no stale file survives, and a failure half-way
    leaves the package as it was. Its index `_modidx.py` serves nbdev's website alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        project = pathlib.Path(folder)
        (project / "chapters").mkdir()
        for source in [ROOT / "pyproject.toml", *CHAPTERS.glob("*.ipynb")]:
            shutil.copy(source, project / source.relative_to(ROOT))
        nbdev = "from nbdev.doclinks import nbdev_export; nbdev_export()"  # the command nbdev-export
        command = [sys.executable, "-P", "-X", "utf8", "-c", nbdev]
        done = subprocess.run(command, cwd=project, stderr=subprocess.PIPE, encoding="utf-8")
        if done.returncode:
            sys.exit("nbdev-export: " + "\n".join(done.stderr.splitlines()[-4:]))
        return read_package(project / "minidl")


def read_package(folder):
    """The files of a package that nbdev writes: {file name: bytes}. `__init__.py` is written by hand."""
    return {file.name: file.read_bytes().replace(b"\r\n", b"\n") for file in folder.glob("[!_]*.py")}


def out_of_step():
    """The names of the files in minidl/ that are not what the chapters export: changed, missing or stale."""
    is_, should_be = read_package(PACKAGE), exported()
    return sorted(n for n in is_.keys() | should_be.keys() if is_.get(n) != should_be.get(n))


def export():
    """Make minidl/ what the chapters export."""
    new = exported()
    for name in read_package(PACKAGE).keys() - new.keys():
        (PACKAGE / name).unlink()
    for name, content in new.items():
        (PACKAGE / name).write_bytes(content)


def check(paths):
    """What is not in order, a line each."""
    rough = [p for p in paths if p.read_text(encoding="utf-8") != normal_form(nbformat.read(p, as_version=4))]
    return [f"{p.relative_to(ROOT)}: not in normal form, try `make run`" for p in rough] + [
        f"minidl/{name}: not what the chapters export, try `make export`" for name in out_of_step()
    ]


def page(notebook, target, chapters=""):
    """Write `notebook` as one HTML page with MathJax beside it.

    A link to a chapter leads to its page, or to the notebook in the folder `chapters`.
    """
    html, _ = HTMLExporter(raw_template=PAGE).from_notebook_node(notebook)
    link = rf'href="{chapters}\1.ipynb' if chapters else r'href="\1.html'
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(re.sub(r'href="([\w./]+)\.ipynb', link, html), encoding="utf-8")
    mathjax = pathlib.Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
    shutil.copy(mathjax / "static" / "mathjax" / "tex-svg.js", target.parent)


def pictures(notebook):
    """The figures of cells tagged as the chapter's picture, which the README shows."""
    tagged = [cell for cell in notebook.cells if PICTURE_TAG in cell.metadata.get("tags", [])]
    outputs = [output.get("data", {}) for cell in tagged for output in cell.outputs]
    return [base64.b64decode(data["image/png"]) for data in outputs if "image/png" in data]


def write(path, what):
    """Execute the notebook at `path`, or take it as it is; write it in normal form, or as a page."""
    started = time.perf_counter()
    notebook = asyncio.run(execute(path)) if what == "run" else nbformat.read(path, as_version=4)
    if what == "html":
        page(notebook, BUILD / "html" / path.relative_to(CHAPTERS).with_suffix(".html"))
    elif (text := normal_form(notebook)) != path.read_text(encoding="utf-8"):
        path.write_text(text, encoding="utf-8", newline="\n")
        for picture in pictures(notebook):
            path.with_suffix(".png").write_bytes(picture)
    print(f"{path.relative_to(ROOT)}: {time.perf_counter() - started:.1f} s", flush=True)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "clean", "html", "export", "check"])
    parser.add_argument("notebooks", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    paths = [path.resolve() for path in arguments.notebooks] or notebooks()
    if arguments.what == "export":
        export()
    elif arguments.what == "check":
        sys.exit("\n".join(check(paths)) or None)
    else:
        for path in paths:
            write(path, arguments.what)


if __name__ == "__main__":
    main()
