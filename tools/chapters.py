"""Run, normalise, export and show the chapters.

    python tools/chapters.py run    [NOTEBOOK ...]  execute in a fresh kernel, write in normal form
    python tools/chapters.py clean  [NOTEBOOK ...]  write in normal form, without executing
    python tools/chapters.py html   [NOTEBOOK ...]  write build/html/NAME.html, readable without a network
    python tools/chapters.py export                 write minidl/ from the chapters
    python tools/chapters.py check                  fail unless every notebook is in normal form, minidl/ in step
    python tools/chapters.py reproduce              run the last chapter, write build/reproduction.html, print its table

Without NOTEBOOK, every chapter and every solution is meant.
"""

import argparse
import copy
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import jinja2
import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from tqdm import tqdm

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHAPTERS, PACKAGE, BUILD = ROOT / "chapters", ROOT / "minidl", ROOT / "build"

NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"tags", "nbgrader"}
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
TABLE_TAG = "reproduction-table"

# nbconvert's own page fetches MathJax 2, RequireJS and Mermaid from the network and drops a figure's alt text.
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
     alt="{{ output | get_metadata("alt", "image/png") or "" | escape_html }}">
</div>
{%- endblock -%}
"""


def notebooks():
    """Every chapter, then every solution, in the order of their numbers."""
    return sorted(CHAPTERS.glob("*.ipynb")) + sorted(CHAPTERS.glob("solutions/*.ipynb"))


def freeze_widgets(outputs, state):
    """Replace each widget by what it shows at its default value, which a page without a kernel can show too.

    Running the cell in JupyterLab brings the slider back.
    """

    def shown(reference):
        model = state.get(reference.removeprefix("IPY_MODEL_"), {}).get("state", {})
        found = [nbformat.from_dict(output) for output in model.get("outputs", [])]
        return found + [output for child in model.get("children", []) for output in shown(child)]

    frozen = []
    for output in outputs:
        view = output.get("data", {}).get(WIDGET)
        frozen += (shown(view["model_id"]) if view else []) or [output]
    return frozen


def clean(notebook):
    """Return a copy of `notebook` in normal form: outputs kept, noise gone, execution counts 1..n."""
    notebook = copy.deepcopy(notebook)
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    count = 0
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in cell.metadata if key in CELL_METADATA})
        if cell.cell_type != "code":
            continue
        if not cell.source.strip():
            cell.execution_count, cell.outputs = None, []
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = freeze_widgets(cell.outputs, state)
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
            if "data" in output:
                alt = output.metadata.get("image/png", {}).get("alt")
                output.metadata = nbformat.from_dict({"image/png": {"alt": alt}} if alt else {})
                if len(output.data) > 1:
                    output.data.pop(WIDGET, None)  # its model id is another one in every run
                if "image/png" in output.data:
                    output.data["image/png"] = output.data["image/png"].rstrip("\n")
            if output.output_type == "error":  # a refusal shown on purpose: the message, not this machine's paths
                output.traceback = [f"{output.ename}: {output.evalue}"]
    return notebook


def normal_form(text):
    """The text of a notebook file in normal form."""
    notebook = clean(nbformat.reads(text, as_version=4))
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


class Client(NotebookClient):
    """Runs a notebook in a fresh kernel; with `bar`, shows there which cell is reached and what it prints."""

    def __init__(self, path, bar=None):
        notebook = nbformat.read(path, as_version=4)
        super().__init__(notebook, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
        self.bar = bar

    def process_message(self, msg, cell, cell_index):
        if self.bar is not None and msg["msg_type"] == "stream":
            self.bar.write(msg["content"]["text"].rstrip("\n"), file=sys.stderr)
        return super().process_message(msg, cell, cell_index)

    async def async_execute_cell(self, cell, *args, **kwargs):
        done = await super().async_execute_cell(cell, *args, **kwargs)
        if self.bar is not None:
            self.bar.update(cell.cell_type == "code")
        return done


def page(notebook, target, links):
    """Write `notebook` as one HTML page, with MathJax beside it; `links` says where a link to a chapter leads."""
    loader = jinja2.DictLoader({"page.html.j2": PAGE})
    html, _ = HTMLExporter(extra_loaders=[loader], template_file="page.html.j2").from_notebook_node(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(re.sub(r'href="([\w/.]+)\.ipynb', f'href="{links}', html), encoding="utf-8")
    mathjax = pathlib.Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent
    shutil.copy(mathjax / "static" / "mathjax" / "tex-svg.js", target.parent)
