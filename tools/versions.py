"""Run every test and notebook with each Python and torch that pyproject.toml admits and `make test` does not run.

python tools/versions.py [-n 2] [PATH ...]    PATH: what pytest runs in place of everything

Each combination has its environment and its result in build/versions/. What was run in the present state of the files
is not run again. The Pythons are those that the command line finds, pyenv's, or those of Windows' launcher `py`.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "versions"
COMBINATIONS = [("3.11", "2.14.1"), ("3.12", "2.13.0"), ("3.13", "2.14.1")]
SOURCES = ["*.txt", "*.toml", "*.py", "chapters/**/*", "minidl/*.py", "tests/*", "tools/*.py"]


def interpreter(version):
    """The command that starts this version of Python: `["python3.12"]`."""
    pyenv = pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")
    tell = "import sys; print('%d.%d' % sys.version_info[:2])"
    for command in [f"python{version}"], ["py", f"-{version}"], *([str(path)] for path in sorted(pyenv)):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "-c", tell], capture_output=True, text=True)
            if done.returncode == 0 and done.stdout.strip() == version:
                return command
    sys.exit(f"versions: expected a Python {version} on this machine, found none")


def constraints(torch):
    """The text of constraints.txt with another torch."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.sub(r"^torch==.*", f"torch=={torch}", text, flags=re.MULTILINE)


def environment(python, torch):
    """The interpreter of an environment with these two; it is made, or made anew when what it holds has changed."""
    folder = BUILD / f"python{python}-torch{torch}"
    made, pins = folder / "made.txt", BUILD / f"{folder.name}.txt"
    wanted = constraints(torch) + (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    inside = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not made.exists() or made.read_text(encoding="utf-8") != wanted:
        BUILD.mkdir(parents=True, exist_ok=True)
        pins.write_text(constraints(torch), encoding="utf-8")
        subprocess.run([*interpreter(python), "-m", "venv", "--clear", folder], check=True)
        for what in [f"torch=={torch}"], ["-e", ".[dev]"]:
            subprocess.run([inside, "-m", "pip", "install", "-q", "-c", pins, *what], cwd=ROOT, check=True)
        subprocess.run([inside, "-c", "import matplotlib.font_manager"], check=True)  # its cache of fonts
        made.write_text(wanted, encoding="utf-8")
    return inside


def state(paths):
    """A number that changes with the files and with what is run."""
    files = sorted({file for pattern in SOURCES for file in ROOT.glob(pattern) if file.is_file()})
    files = [file for file in files if not {"__pycache__", ".ipynb_checkpoints"} & set(file.parts)]
    read = b"".join(str(file.relative_to(ROOT)).encode() + file.read_bytes() for file in files)
    return hashlib.sha256(read + json.dumps(paths).encode()).hexdigest()


def counts(report):
    """What a report of pytest holds: the number of tests that passed, and the names of those that failed."""
    passed, failed = 0, []
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        found = {child.tag for child in case}
        if found & {"failure", "error"}:
            failed.append(f"{case.get('classname')} {case.get('name')}")
        passed += not found & {"failure", "error", "skipped"}
    return passed, failed


def run(python, torch, paths, at_a_time):
    """The result of one combination, as it is kept in its file."""
    result = BUILD / f"python{python}-torch{torch}.json"
    now = state(paths)
    if result.exists():
        kept = json.loads(result.read_text(encoding="utf-8"))
        if kept["state"] == now:
            return kept
    inside, report = environment(python, torch), result.with_suffix(".xml")
    report.unlink(missing_ok=True)
    print(f"Python {python}, torch {torch}", flush=True)
    command = [inside, "-m", "pytest", "-q", "--nbval", "-n", str(at_a_time), f"--junitxml={report}", *paths]
    code = subprocess.run(command, cwd=ROOT).returncode
    passed, failed = counts(report) if report.exists() else (0, [])
    failed += [f"pytest ended with {code}"] if code and not failed else []
    kept = {"state": now, "passed": passed, "failed": failed}
    result.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return kept


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=2, help="files at a time")
    parser.add_argument("paths", nargs="*")
    arguments = parser.parse_args()
    results = {pair: run(*pair, arguments.paths, arguments.n) for pair in COMBINATIONS}
    print("python  torch   passed  failed")
    for (python, torch), kept in results.items():
        print(f"{python:7} {torch:7} {kept['passed']:6} {len(kept['failed']):7}")
    failed = [f"{python} {torch}: {name}" for (python, torch), kept in results.items() for name in kept["failed"]]
    sys.exit("\n".join(failed) or None)


if __name__ == "__main__":
    main()
