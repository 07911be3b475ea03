"""The notebooks keep their promises: run top to bottom, in order, and looking only at what came before.

A guard is a function from a notebook (and its path, where it matters) to complaints, a line each.
Every guard is shown a planted violation too: one that cannot complain guards nothing.
"""

import ast
import re
from collections import defaultdict

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import chapters

PATHS = chapters.notebooks()
NOTEBOOKS = {path: nbformat.read(path, as_version=4) for path in PATHS}
LAST = chapters.last_number()
SECTIONS = ["The need", "Words and symbols", "Recap", "Exercises", "Sources"]
HERE = re.escape(str(chapters.ROOT))
A_PATH = re.compile(rf"(?<![\w/.])/(home|Users|root|tmp|usr|opt|var|mnt)/|\b[A-Z]:\\\w|site-packages|ipykernel_|{HERE}")


def code(notebook):
    """The code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    """All Markdown, as one text."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def tags(cell):
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def tree(cell):
    """The syntax tree of a cell, without lines that are IPython's."""
    return ast.parse(re.sub(r"(?m)^[%!].*", "", cell.source))


def exports(notebook):
    """The (module, name) of every class, function and constant that a notebook exports."""
    default = None
    for cell in code(notebook):
        for what, module in re.findall(r"(?m)^#\| *(default_exp|export\w?)\b *(\S*)", cell.source):
            if what == "default_exp":
                default = module
                continue
            for node in tree(cell).body:
                stored = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
                found = [node.name] if hasattr(node, "name") else stored if isinstance(node, ast.Assign) else []
                yield from ((module or default, name) for name in found)


def number(path):
    """A chapter's place among the others: 09, or 10a."""
    return path.name.split("_")[0]


def catalogue(notebooks):
    """{module: {name: numbers of the chapters that export it}}."""
    found = defaultdict(lambda: defaultdict(list))
    for path, notebook in notebooks.items():
        if path.parent.name != "solutions":
            for module, name in exports(notebook):
                found[module][name].append(number(path))
    return found


CATALOGUE = catalogue(NOTEBOOKS)


def early(notebook, path, catalogue=CATALOGUE):
    """Imports of what no earlier chapter exported; a solution may use what its own chapter exports."""
    known = number(path) + "~" * (path.parent.name == "solutions")  # behind its chapter
    top = defaultdict(list)  # what `from minidl import ...` can find
    for names in catalogue.values():
        for name, numbers in names.items():
            top[name] += numbers
    for cell in code(notebook):
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.Import):
                whole = [alias.name for alias in node.names if alias.name.split(".")[0] == "minidl"]
                yield from (f"import {name}: import name by name" for name in whole)
            if isinstance(node, ast.ImportFrom):
                package, _, module = node.module.partition(".")
                for alias in node.names:
                    numbers = (catalogue.get(module, {}) if module else top).get(alias.name)
                    if alias.name == "*":
                        yield f"from {node.module} import *: import name by name"
                    elif package == "minidl" and alias.name != "__version__" and not (numbers and max(numbers) < known):
                        yield f"{alias.name} of {node.module}: no chapter before {known.rstrip('~')} exports it"


def unexecuted(notebook):
    """A notebook was run once, from top to bottom."""
    counts = [cell.execution_count for cell in code(notebook)]
    return (
        [] if counts == list(range(1, len(counts) + 1)) else [f"expected the counts 1 to {len(counts)}, got {counts}"]
    )


def noisy(notebook):
    """Outputs that belong to one machine, or that should not be there, or that should."""
    for cell in code(notebook):
        kinds = {output.get("name", output.output_type) for output in cell.outputs}
        texts = [{k: v for k, v in o.get("data", o).items() if not k.startswith("image/")} for o in cell.outputs]
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        if "stderr" in kinds:
            yield f"stderr: {cell.source}"
        if ("error" in kinds) != ("raises-exception" in tags(cell)):
            yield f"an error without the tag raises-exception, or the tag without an error: {cell.source}"
        if A_PATH.search(str(texts)):
            yield f"a path of one machine: {texts}"
        if any(not image.metadata.get("image/png", {}).get("alt") for image in images):
            yield f"a picture without a description: {cell.source}"
        if "interact(" in cell.source and not images:
            yield f"no picture stored for a slider: {cell.source}"


def asserts(cell):
    """Whether a cell can fail by what it finds."""
    return re.search(r"\b(assert |claim\(|share\()", cell.source) is not None


def unchecked(notebook):
    """Cells that nbval would not compare, but sliders, tables with times, and numbers that are shown and asserted.

    A time alone is printed and judges nothing: only `make bench` measures well enough.
    """
    for cell in code(notebook):
        marks = " ".join([*tags(cell), *re.findall(r"(?m)^\s*#\s*(\w+)\s*$", cell.source)]).lower().replace("_", "-")
        timing = re.search(r"\b(perf_counter|process_time|µs|microseconds)\b", cell.source) or (
            re.search(r"\b(time|seconds)\b", cell.source) and asserts(cell)
        )
        shown = "shown" in tags(cell) and asserts(cell)
        if "nbval-skip" in marks or "nbval-raises-exception" in marks:
            yield f"a mark that hides a cell: {cell.source}"
        if "ignore-output" in marks and "interact(" not in cell.source and not timing and not shown:
            yield f"ignores its output, and is no slider, no timing, nor shown numbers with an assert: {cell.source}"
        if "shown" in tags(cell) and "nbval-ignore-output" not in tags(cell):
            yield f"shown, but compared: {cell.source}"


def crowded(notebook, path):
    """More cells with the tag `shown` than a chapter may have: four, ten in one of the last."""
    shown, most = sum("shown" in tags(cell) for cell in code(notebook)), 10 if number(path)[:2] == LAST else 4
    return [f"expected at most {most} cells tagged shown, got {shown}"] if shown > most else []


def fixed(*notebooks):
    """Seeds that `make portable` does not shift: each cell says why in a comment, and there are at most five in all."""
    cells = [cell for notebook in notebooks for cell in code(notebook) if "fixed-seed" in tags(cell)]
    yield from (f"a fixed seed, no comment says why: {c.source}" for c in cells if not re.search(r"# \w+ ", c.source))
    yield from [f"expected at most 5 cells tagged fixed-seed in all, got {len(cells)}"] if len(cells) > 5 else []


def wide(notebook):
    """Lines of code that a page cannot show."""
    return [line for cell in code(notebook) for line in cell.source.splitlines() if len(line) > 79]


def rough(notebook):
    """A notebook that is not in normal form."""
    return (
        [] if nbformat.writes(notebook) + "\n" == chapters.normal_form(notebook) else ["not in normal form: make run"]
    )


def dangling(notebook, path):
    """Links to files that do not exist."""
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", prose(notebook))
    return [link for link in links if not (path.parent / link).exists()]


def incomplete(notebook, path):
    """Parts that every chapter has: a title and a sentence, its sections, its solutions."""
    if path.parent.name != "solutions":
        titled = re.match(r"# \S.*\n\n> \S", notebook.cells[0].source) and notebook.cells[0].cell_type == "markdown"
        yield from [] if titled else ["no title followed by a sentence in a quotation"]
        yield from [s for s in SECTIONS if not re.search(rf"(?m)^##+ {s}", prose(notebook))]
        yield from [] if (path.parent / "solutions" / path.name).exists() else ["no solutions"]


def homeless(notebook):
    """Exports to no file: nbdev drops them with a warning."""
    return [f"{name}: exported before any default_exp" for module, name in exports(notebook) if not module]


GUARDS = [unexecuted, noisy, unchecked, fixed, wide, rough, homeless]
PLACED = [early, dangling, incomplete, crowded]  # those that need to know where the notebook lies


@pytest.mark.parametrize("guard", [*GUARDS, *PLACED])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(chapters.CHAPTERS)))
def test_notebook(guard, path):
    complaints = list(guard(NOTEBOOKS[path], path) if guard in PLACED else guard(NOTEBOOKS[path]))
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def test_every_file_and_name_has_one_owner():
    sources = [cell.source for notebook in NOTEBOOKS.values() for cell in code(notebook)]
    owned = [file for source in sources for file in re.findall(r"(?m)^#\| *default_exp +(\S+)", source)]
    assert sorted(set(owned)) == sorted(owned)
    twice = [name for names in CATALOGUE.values() for name, numbers in names.items() if len(numbers) > 1]
    assert twice == []


def test_the_map_gives_each_chapters_minutes():
    path = next(path for path in PATHS if path.name == "00_map.ipynb")
    rows = dict(re.findall(r"(?m)^\| (\d\d[a-g]?) \|[^|]*\|[^|]*\| ([\d +]+?) \|", prose(NOTEBOOKS[path])))
    own = {}
    for path in PATHS:
        if path.parent.name == "chapters":
            head = " ".join(prose(NOTEBOOKS[path])[:2000].split())
            found = re.search(
                r"\*\*reading\*\* (\d+) minutes, \*\*exercises\*\* (\d+)|\*\*about\*\* (\d+) minutes", head
            )
            own[path.name.split("_")[0]] = found[3] or f"{found[1]} + {found[2]}"
    assert rows == own


def test_few_seeds_are_fixed():
    assert list(fixed(*NOTEBOOKS.values())) == []


def cell(source="1", count=1, tag=(), outputs=()):
    """A code cell, fine by default."""
    return new_code_cell(
        source, execution_count=count, metadata={"tags": list(tag)} if tag else {}, outputs=list(outputs)
    )


def picture(alt):
    """The output of a figure."""
    return new_output("display_data", {"image/png": "iVBO"}, metadata={"image/png": {"alt": alt}} if alt else {})


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
STDERR = new_output("stream", name="stderr", text="careful")
WHERE = chapters.CHAPTERS / "08_planted.ipynb"
SAYS_WHERE = new_output("stream", name="stdout", text=f"{WHERE}")
WAS = {"optim": {"SGD": ["08"], "Adam": ["09"]}, "linear": {"Linear": ["04"]}}


@pytest.mark.parametrize(
    "guard, planted",
    [
        (unexecuted, cell(count=2)),
        (unexecuted, cell(count=None)),
        (noisy, cell(outputs=[STDERR])),
        (noisy, cell(outputs=[ERROR])),
        (noisy, cell(tag=["raises-exception"])),
        (noisy, cell(outputs=[SAYS_WHERE])),
        (noisy, cell(outputs=[picture(alt="")])),
        (noisy, cell("_ = interact(draw, k=slider)")),
        (unchecked, cell(tag=["nbval-skip"])),
        (unchecked, cell("#NBVAL_SKIP\n1")),
        (unchecked, cell(tag=["nbval-ignore-output"])),
        (unchecked, cell("# NBVAL_IGNORE_OUTPUT\n1")),
        (unchecked, cell("print(run.seconds)", tag=["nbval-ignore-output"])),
        (unchecked, cell("print(1)", tag=["shown", "nbval-ignore-output"])),
        (unchecked, cell("assert 1 < 2", tag=["shown"])),
        (crowded, [cell("assert 1 < 2", tag=["shown"]) for _ in range(5)]),
        (fixed, cell("#| export\ntorch.manual_seed(7)", tag=["fixed-seed"])),
        (fixed, [cell("torch.manual_seed(7)  # the paper's own", tag=["fixed-seed"]) for _ in range(6)]),
        (wide, cell("x = 1" + " " * 70 + "# too far")),
        (rough, new_code_cell("1", metadata={"collapsed": True})),
        (homeless, cell("#| export\nx = 1")),
        (early, cell("from minidl.optim import SGD")),
        (early, cell("from minidl.optim import Adam")),
        (early, cell("from minidl.linear import SGD")),
        (early, cell("def f():\n    from minidl import Adam")),
        (early, cell("from minidl import linear")),
        (early, cell("from minidl.linear import *")),
        (early, cell("import math, minidl.linear as m")),
        (dangling, new_markdown_cell("See [there](07_gone.ipynb#part).")),
        (incomplete, new_markdown_cell("# A title\n\n## The need")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_guards_complain(guard, planted):
    where = {early: (WHERE, WAS)}.get(guard, (WHERE,) if guard in PLACED else ())
    planted = planted if isinstance(planted, list) else [planted]
    assert list(guard(new_notebook(cells=planted), *where))


def test_guards_are_content():
    fine = [
        cell("from minidl.linear import Linear\nfrom minidl import Linear, __version__"),
        cell("no()", 2, ["raises-exception"], [ERROR]),
        cell("_ = interact(draw)", 3, ["nbval-ignore-output"], [picture(alt="a line")]),
        cell("print(perf_counter() - start)", 4, ["nbval-ignore-output"]),
        cell("assert 1 < 2", 5, ["shown", "nbval-ignore-output"]),
        cell("torch.manual_seed(7)  # the paper's own", 6, ["fixed-seed"]),
        new_markdown_cell("See [the map](00_map.ipynb), [a page](https://example.org) and [above](#here)."),
    ]
    notebook = chapters.clean(new_notebook(cells=fine))
    assert [complaint for guard in GUARDS for complaint in guard(notebook)] == []
    assert [*early(notebook, WHERE, WAS), *dangling(notebook, WHERE)] == []
    solution = new_notebook(cells=[cell("from minidl.optim import SGD")])
    assert list(early(solution, WHERE.parent / "solutions" / WHERE.name, WAS)) == []


def test_catalogue_reads_directives():
    cells = [
        cell("#| default_exp optim"),
        cell("#| export\nclass A:\n    x = 1\nB, C = 1, 2"),
        cell("#|export plots\ndef d(): 1"),
    ]
    found = catalogue({WHERE: new_notebook(cells=cells)})
    assert found == {"optim": {"A": ["08"], "B": ["08"], "C": ["08"]}, "plots": {"d": ["08"]}}
