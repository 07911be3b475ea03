"""How many wrong lines do the tests notice? mutmut changes minidl/ at one place at a time and runs the tests.

`make mutants` takes hours and goes on where it was interrupted; `make mutants FILES="init optim"` takes these alone.
A mutant that survives the tests is shown to the notebooks that derive its file. What survives these too stands in
tests/survivors.json, with the reason, or is new: "equivalent", no argument that is allowed tells the two apart;
"speed", the same values, slower or faster; "debt", a wrong line that nothing notices. The score is what is killed,
of the mutants that are neither equivalent nor a matter of speed. Mutants of the texts of errors are counted apart
too: a test that pins every word would only write the text twice.
"""

import argparse
import ast
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK, NOTES, REASONS = ROOT / "mutants", ROOT / "build" / "mutants.json", ROOT / "tests" / "survivors.json"
KILLED = {1, 3, 24, 36, 152, 255, -24, -9, -11}  # a test failed, or it never ended
NOT_RUN = None
LEFT_OUT = {"__init__", "plots", "ranks"}  # names alone; pictures; processes
GOALS = {name: 98 for name in ("linear", "activations", "losses", "init", "optim", "dropout")}  # percent; else 90


class Blank(ast.NodeTransformer):
    """Takes out what an error says: the arguments of an error, and the words of a `require`."""

    def visit_Call(self, node):
        self.generic_visit(node)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name.endswith("Error"):
            node.args = []
        elif name == "require" and len(node.args) in (2, 3):
            words = (1,) if len(node.args) == 2 else (0, 2)
            node.args = [arg for i, arg in enumerate(node.args) if i not in words]
        return node


def messages(path):
    """The names of those mutants in a mutated file that change the words of an error alone."""
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name
    }

    def dump(node):
        body = [Blank().visit(statement) for statement in node.body]
        return ast.dump(node.args), [ast.dump(ast.fix_missing_locations(statement)) for statement in body]

    blank = {name: dump(node) for name, node in functions.items()}
    return {name for name in blank if blank[name] == blank.get(re.sub(r"__mutmut_\d+$", "__mutmut_orig", name))}


def change(name):
    """What a mutant changes: `function: - old line + new line`."""
    shown = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    ).stdout
    lines = [line for line in shown.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
    where = name.split(".")[-1].rsplit("__mutmut_", 1)[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return f"{where}: " + " ".join(f"{line[0]} {line[1:].strip()}" for line in lines)


def noticed(name, file):
    """Whether a notebook that writes `file` fails with the mutant in place."""
    source = (ROOT / "minidl" / f"{file}.py").read_text(encoding="utf-8")
    chapters = set(re.findall(r"\.\./(chapters/\w+\.ipynb)", source))
    environment = os.environ | {"MUTANT_UNDER_TEST": name, "PYTHONPATH": str(WORK)}
    for chapter in sorted(chapters):
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--nbval", chapter]
        if subprocess.run(command, cwd=WORK, env=environment, capture_output=True).returncode:
            return True
    return False


def table(files, notes, reasons):
    """Print a line a file; the number of files below their goal, or with a mutant that has not been run."""
    columns = ("mutants", "tests", "notebooks", "texts", "equivalent", "speed", "debt", "new", "score", "goal")
    print(f"{'':12}" + "".join(f"{column:>{max(7, len(column) + 2)}}" for column in columns))
    below, known = 0, []
    for file in files:
        codes = json.loads((WORK / "minidl" / f"{file}.py.meta").read_text(encoding="utf-8"))["exit_code_by_key"]
        words = messages(WORK / "minidl" / f"{file}.py")
        texts = {name for name in codes if name.split(".")[-1] in words}
        killed = {name for name, code in codes.items() if code in KILLED} - texts
        late = {name for name in codes if notes.get(file, {}).get(name)} - killed - texts
        left = [change(name) for name in sorted(set(codes) - texts - killed - late)]
        why = [reasons.get(file, {}).get(what, "new") for what in left]
        found = len(killed) + len(late)
        score = 100 * found / max(1, found + sum(reason.split(":")[0] in ("debt", "new") for reason in why))
        unrun, goal = [name for name, code in codes.items() if code is NOT_RUN], GOALS.get(file, 90)
        below += score < goal or bool(unrun)
        kinds = [sum(reason.split(":")[0] == kind for reason in why) for kind in columns[4:8]]
        row = [len(codes), len(killed), len(late), len(texts), *kinds, f"{score:.1f}%", f"{goal}%"]
        line = "".join(f"{value:>{max(7, len(column) + 2)}}" for value, column in zip(row, columns, strict=True))
        print(f"{file:12}{line}" + (f"  {len(unrun)} not run" if unrun else ""))
        known += [(file, *pair) for pair in zip(why, left, strict=True)]
    for file, reason, what in known:
        print(f"{file}: {reason}: {what}")
    return below


def main():
    files = sorted(path.stem for path in (ROOT / "minidl").glob("*.py") if path.stem not in LEFT_OUT)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", choices=[*files, []], help="of minidl, without .py; none: all")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is known")
    asked = parser.parse_args()
    files = asked.files or files
    if not asked.table:
        # one thread: a forked process cannot use its parent's
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        children = str(os.cpu_count() or 1)
        names = [f"minidl.{file}.*" for file in files]
        command = [sys.executable, "-m", "mutmut", "run", "--max-children", children, *names]
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            sys.exit("mutants: mutmut stopped, see above")
    notes = json.loads(NOTES.read_text(encoding="utf-8")) if NOTES.exists() else {}
    if not asked.table:
        for file in files:
            source = (ROOT / "minidl" / f"{file}.py").read_text(encoding="utf-8")
            if notes.get(file, {}).get("source") != source:  # numbers of mutants may have moved
                notes[file] = {"source": source}
            codes = json.loads((WORK / "minidl" / f"{file}.py.meta").read_text(encoding="utf-8"))["exit_code_by_key"]
            words = messages(WORK / "minidl" / f"{file}.py")
            for name, code in codes.items():
                if code not in KILLED and name not in notes[file] and name.split(".")[-1] not in words:
                    notes[file][name] = noticed(name, file)
                    NOTES.parent.mkdir(exist_ok=True)
                    NOTES.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    reasons = json.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
    sys.exit(1 if table(files, notes, reasons) else 0)


if __name__ == "__main__":
    main()
