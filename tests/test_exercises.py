"""Every exercise's check says "right" to the solution, names likely mistakes, and meets nonsense without a traceback.

An exercise is a cell of a chapter with the tag `exercise`. What a reader fills in stands there as `...`: the bodies of
functions, or the value of a name. Its last expression is what the check says. The solution is what the chapter's
solutions define under the same name. The table of wrong answers is `tests/exercises/NUMBER.py`:

    WRONG = {"name": {"what the check says": "source of a wrong answer, or a list of several", ...}, ...}
    LINES = ["a line of the chapter's exported code that an exercise speaks of", ...]

A source is one or more definitions that take the place of those of the same name; a method, that of the class `name`.
A cell runs behind those cells of its chapter whose names it uses, and no others: so it must not need what a call did.
"""

import ast
import functools
import inspect
import re
import runpy
import sys
import types

import matplotlib
import nbformat
import pytest
import torch

import chapters

matplotlib.use("Agg")
TABLES = {path.stem: {"LINES": [], **runpy.run_path(str(path))} for path in chapters.ROOT.glob("tests/exercises/*.py")}
# What anyone may try: nothing may be called right, and nothing may end in a traceback.
NONSENSE = ["None", "(1, 2)", "'a word'", "torch.zeros(7, 5, 3)", "1 / 0", "float('nan')", "[torch.ones(2)]"]


@functools.cache
def notebook(path):
    """The notebook at `path`."""
    return nbformat.read(path, as_version=4)


def path_of(number, folder=chapters.CHAPTERS):
    """The notebook with this number."""
    return next(folder.glob(f"{number}_*.ipynb"))


def code(path):
    """The cells that Python can run again: no sliders, and none that is meant to fail."""
    cells = [cell for cell in notebook(path).cells if cell.cell_type == "code" and "interact(" not in cell.source]
    return [cell for cell in cells if "raises-exception" not in cell.metadata.get("tags", [])]


def binds(node):
    """The names that a statement defines."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if hasattr(node, "name"):
        return {node.name}
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - {"_"}


def uses(node):
    """The names that a piece of code reads."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def blank(node):
    """Whether something is left to fill in: a value, or the body of a function, that is `...`."""
    return any(
        isinstance(getattr(part, "value", None), ast.Constant) and part.value.value is ...
        for part in ast.walk(node)
        if isinstance(part, ast.Assign | ast.Expr)
    )


def exercises(number):
    """{name: cell} of a chapter; the name is that of the first blank."""
    found = {}
    for cell in code(path_of(number)):
        if "exercise" in cell.metadata.get("tags", []):
            blanks = [node for node in ast.parse(cell.source).body if blank(node)]
            assert blanks, f"{number}: nothing is left to fill in: {cell.source}"
            found[sorted(binds(blanks[0]))[0]] = cell
    return found


def before(number, cell):
    """The source of the cells above `cell` whose names it needs, in their order."""
    cells, found = code(path_of(number)), []
    wanted = uses(ast.parse(cell.source))
    for above in reversed(cells[: cells.index(cell)]):
        tree = ast.parse(above.source)
        bound = set().union(*map(binds, tree.body))
        if bound & wanted:
            wanted |= uses(tree)
            found.append(above.source)
    return found[::-1]


@functools.cache
def start(number, name):
    """The (globals of the chapter above an exercise, copied for each run)."""
    module = types.ModuleType(f"exercise_{number}")
    sys.modules[module.__name__] = module
    for source in before(number, exercises(number)[name]):
        exec(compile(source, f"chapter {number}", "exec"), vars(module))
    return module


class Fill(ast.NodeTransformer):
    """Put `value` where `...` stands: as the value of a name, or as what a function returns."""

    def __init__(self, value):
        self.value = ast.parse(value, mode="eval").body

    def visit_Assign(self, node):
        return ast.Assign(node.targets, self.value) if blank(node) else node

    def visit_FunctionDef(self, node):
        if any(isinstance(part, ast.Expr) and blank(part) for part in node.body):
            node.body = [ast.Return(self.value)]
        return node


def replaced(tree, answer, name):
    """The exercise's `tree` with the definitions of `answer` in the place of those of the same name."""
    homes = [tree] + [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    for node in answer.body:
        places = [
            (home.body, i)
            for home in homes
            for i, old in enumerate(home.body)
            if binds(old) and binds(old) == binds(node)
        ]
        if places:
            body, i = places[0]
            body[i] = node
        else:
            tree.body.insert(0, node)  # something that the answer needs
    return tree


def says(number, name, answer=None, value=None):
    """What the check says to an answer, or to a value in place of each blank, and what is printed on the way."""
    tree = ast.parse(exercises(number)[name].source)
    tree = Fill(value).visit(tree) if value else replaced(tree, ast.parse(answer), name) if answer else tree
    assert isinstance(tree.body[-1], ast.Expr), f"{number} {name}: expected the check as the last expression"
    last = ast.Expression(tree.body.pop().value)
    space = dict(vars(start(number, name)))
    torch.manual_seed(0)
    exec(compile(ast.fix_missing_locations(tree), f"exercise {number} {name}", "exec"), space)
    return str(eval(compile(ast.fix_missing_locations(last), f"check {number} {name}", "eval"), space))


def solution(number, name):
    """The definition of `name` in the chapter's solutions."""
    for cell in code(path_of(number, chapters.CHAPTERS / "solutions")):
        for node in ast.parse(cell.source).body:
            if name in binds(node):
                return ast.unparse(node)
    raise AssertionError(f"solutions of {number}: expected a definition of {name}")


ROWS = [(number, name) for number, table in sorted(TABLES.items()) for name in table["WRONG"]]


def test_every_exercise_is_in_the_table():
    tagged = [path.name.split("_")[0] for path in chapters.CHAPTERS.glob("*.ipynb") if '"exercise"' in path.read_text()]
    assert sorted(tagged) == sorted(TABLES)
    assert [(number, name) for number in sorted(TABLES) for name in exercises(number)] == ROWS


@pytest.mark.parametrize("number, name", ROWS)
def test_solution_is_right(number, name):
    assert says(number, name, solution(number, name)) == "right"


@pytest.mark.parametrize("number, name", ROWS)
def test_mistakes_are_named(number, name):
    wrong = TABLES[number]["WRONG"][name]
    pairs = [(words, source) for words, of in wrong.items() for source in ([of] if isinstance(of, str) else of)]
    for words, source in pairs:
        assert says(number, name, inspect.cleandoc(source)) == words, source
    assert len([words for words in wrong if not words.startswith(("not yet", "right"))]) >= 2


@pytest.mark.parametrize("number, name", ROWS)
def test_nonsense_meets_no_traceback(number, name):
    assert says(number, name) == says(number, name, value="None") == "not answered yet"
    number_alone = any(
        isinstance(node, ast.Assign) and blank(node) for node in ast.parse(exercises(number)[name].source).body
    )
    for value in NONSENSE[1:]:
        if number_alone and value == "1 / 0":
            continue  # Python itself answers that
        found = says(number, name, value=value)
        assert found != "right" and "\n" not in found, (value, found)


@pytest.mark.parametrize("number", TABLES)
def test_lines_that_exercises_speak_of_are_exported(number):
    exported = "\n".join(cell.source for cell in code(path_of(number)) if re.match(r"#\| export", cell.source))
    assert [line for line in TABLES[number]["LINES"] if line not in exported] == []
