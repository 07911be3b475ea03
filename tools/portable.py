"""Run the chapters as other machines would: on other processors, with more threads, from other seeds.

python tools/portable.py                          every chapter and solution under every setting: hours
python tools/portable.py --list                   the settings, and how many notebooks each has still to run
python tools/portable.py --only SETTING ...       these alone; seeds+N adds N to every seed
python tools/portable.py --notebooks PATTERN ...  these alone, as in 'chapters/18*'
python tools/portable.py --failed                 run again what failed

Each notebook runs through pytest, in a copy of what it needs. A call that was interrupted goes on where it stopped:
what was run before, and has not changed since, is read from build/portable/, where pytest's words lie too. A cell has
the number that nbval gives it, from 0. The table goes to build/portable.md as well, the results to build/portable.json.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import fnmatch
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

import nbformat
from tqdm import tqdm

import chapters

ROOT = chapters.ROOT
RESULTS = chapters.BUILD / "portable"
THIS = pathlib.Path(__file__).read_bytes()
LIMIT = 20 * 60  # seconds for a notebook; the slowest takes two minutes
# A claim about random trainings has a margin of five standard errors, and holds from any seed. A plain assert about one
# network need not: what shifted seeds break is reported, for someone to judge, and the command does not fail.
SHIFTED_SEEDS_FAIL = False

# shifted_seeds.py of the copy. The chapters draw from PyTorch's generators, and pandas from NumPy's RandomState.
SEEDS = """
import numpy
import torch

by = {shift}
Base, base_seed = torch.Generator, torch.manual_seed


class Kind(type(Base)):
    def __instancecheck__(cls, value):
        return isinstance(value, Base)  # copies too, and PyTorch's global generator


class Generator(Base, metaclass=Kind):
    def __new__(cls, device="cpu"):
        made = super().__new__(cls, device)
        return made.manual_seed(made.initial_seed())

    def manual_seed(self, seed):
        super().manual_seed(seed + by)
        return self


class RandomState(numpy.random.RandomState):
    def __init__(self, seed=None):
        super().__init__(seed + by if isinstance(seed, int) else seed)


def manual_seed(seed):
    return base_seed(seed + by)


numpy.random.RandomState = RandomState
torch.Generator, torch.manual_seed, torch.random.manual_seed = Generator, manual_seed, manual_seed
manual_seed(torch.initial_seed())
"""
# The end of the copy's conftest.py. Kernels that start together can draw the same port; sockets are files of their own.
SOCKETS = """

import functools

import nbval.kernel

nbval.kernel.KernelManager = functools.partial(nbval.kernel.KernelManager, transport="ipc", ip={ip!r})
"""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to run: variables of the environment, and by how much seeds are shifted."""

    name: str
    variables: tuple = ()
    threads: int = 1
    shift: int = 0

    def environment(self):
        """The variables of this process; but those that decide what a chapter computes are the setting's."""
        decide = "ATEN_CPU_CAPABILITY", "CLAIMS", "MKL_CBWR", "QUICK"
        kept = {name: value for name, value in os.environ.items() if name not in decide}
        return kept | dict(self.variables) | {"OMP_NUM_THREADS": str(self.threads), "PYTHONDONTWRITEBYTECODE": "1"}

    def place(self, notebook, suffix=".json"):
        """The file of a result."""
        return RESULTS / self.name / pathlib.Path(notebook).with_suffix(suffix)


def best_capability():
    """What PyTorch takes this processor for, if no variable tells it otherwise."""
    command = [sys.executable, "-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"]
    return subprocess.check_output(command, env=Setting("").environment(), text=True).strip().lower()


def capabilities(best, machine):
    """{name: variables} for each capability of the processor; the last is its own, which needs no variable."""
    steps = ["default", "avx2", "avx512"]
    x86 = machine.lower() in ("x86_64", "amd64") and best in steps
    below = steps[: steps.index(best)] if x86 else ["default"]
    return {name: (("ATEN_CPU_CAPABILITY", name),) for name in below if name != best} | {best: ()}


def settings(drawn, asked=()):
    """Every setting, in the order of the table, and the shifts among the names that were `asked` for."""
    found = capabilities(best_capability(), platform.machine())
    shifts = {"seeds+1000": 1000, "seeds+2000": 2000, f"drawn+{drawn}": drawn}
    shifts |= {name: int(name[6:]) for name in asked if re.fullmatch(r"seeds\+\d+", name)}
    return [
        *(Setting(name, variables) for name, variables in found.items()),
        *(Setting(f"{name}+2threads", variables, threads=2) for name, variables in found.items()),
        Setting(f"{list(found)[-1]}+cbwr", (("MKL_CBWR", "COMPATIBLE"),)),
        *(Setting(name, shift=shift) for name, shift in shifts.items()),
    ]


def needed(notebook):
    """The files that a run of `notebook` can read, by their names below ROOT."""
    modules = [str(file.relative_to(ROOT)) for top in ("chapters", "minidl") for file in ROOT.glob(f"{top}/**/*.py")]
    return [notebook, *sorted(modules), "conftest.py", "pyproject.toml", "tests/nbval_sanitize.cfg"]


def key(notebook, root):
    """A hash of what decides the result: `notebook` below `root` and what it can read, this file, the versions."""
    digest = hashlib.sha256(f"{sys.version} {importlib.metadata.version('torch')}".encode() + THIS)
    for name in needed(notebook):
        content = (root / name).read_bytes()
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def shifted(notebook, shift):
    """The notebook with a line above each cell that says by how much seeds are shifted: a fixed seed not at all.

    No cell is added, so the cells keep their numbers; nor is anything to be undone where a cell fails.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            by = 0 if "fixed-seed" in cell.metadata.get("tags", []) else shift
            cell.source = f"import shifted_seeds; shifted_seeds.by = {by}\n{cell.source}"
    return notebook


def furnish(folder, notebook, shift, ip):
    """Fill `folder` with what `notebook` needs, its seeds shifted, its kernel at the socket `ip`; the copy's key."""
    for name in needed(notebook):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    copied = key(notebook, folder)
    with open(folder / "conftest.py", "a", encoding="utf-8") as conftest:
        conftest.write(SOCKETS.format(ip=ip))
    if shift:
        (folder / "shifted_seeds.py").write_text(SEEDS.format(shift=shift), encoding="utf-8")
        with contextlib.suppress(Exception):  # if it is no notebook, pytest says so
            nbformat.write(shifted(nbformat.read(folder / notebook, as_version=4), shift), folder / notebook)
    return copied


def brief(text):
    """One line of what pytest says of a cell: the error, or the first line that differs from what is stored."""
    text = re.sub(r"(\x1b|#x1B)\[[\d;]*m", "", text)
    _, _, details = text.partition("Cell outputs differ")
    if details:
        pair = [re.search(rf"(?m)^ +[{sign}] (.+)", details) for sign in "+-"]  # pytest compares the new to the stored
        rest = details.partition("Traceback:")[2].strip().split("\n")[0]
        return f"stored {pair[0][1]!r}, now {pair[1][1]!r}" if all(pair) else f"outputs differ: {rest}"
    errors = re.findall(r"(?m)^(?:E +)?(\w*(?:Error|Exception|Interrupt|Exit|Warning)\b.*)", text)
    return errors[-1] if errors else text.strip().split("\n")[-1]


def verdict(report, log, code, cells):
    """The number of cells run, and [cell, message] for each that fails, from what pytest wrote and its exit status."""
    cases = list(xml.etree.ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failures = [
        [case.get("name"), brief(what.text or what.get("message"))]
        for case in cases
        for what in (*case.iter("failure"), *case.iter("error"))
    ]
    if len(cases) != cells or code != bool(failures):
        last = log.read_text(encoding="utf-8", errors="replace").strip().split("\n")[-1]
        failures.append(["notebook", f"{len(cases)} of {cells} cells, exit status {code}: {last}"])
    return len(cases), failures


async def run(setting, notebook, folder, sockets):
    """Run `notebook` in the empty `folder`; the result."""
    started, report, log = time.perf_counter(), folder / "report.xml", setting.place(notebook, ".log")
    copied = furnish(folder, notebook, setting.shift, f"{sockets}/kernel")
    cells = len(re.findall('"cell_type": *"code"', (folder / notebook).read_text(encoding="utf-8")))
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["--nbval-lax" if setting.shift else "--nbval", "--nbval-kernel-startup-timeout=300", notebook]
    variables = setting.environment() | {"PYTHONPATH": str(folder), "JUPYTER_RUNTIME_DIR": sockets}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=variables, stdout=out, stderr=out, start_new_session=True
        )
    try:
        ran, failures = verdict(report, log, await asyncio.wait_for(process.wait(), LIMIT), cells)
    except TimeoutError:
        ran, failures = 0, [["notebook", f"killed after {LIMIT / 60:g} minutes"]]
    finally:
        if process.returncode is None:
            process.kill()  # its kernel looks for it every second, and ends
            await process.wait()
    return {"key": copied, "cells": ran, "failures": failures, "seconds": time.perf_counter() - started}


def write(file, content):
    """Write `content` as JSON, all of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".part").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".part").replace(file)


def read(file):
    """What `write` wrote, or nothing."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def length(notebook):
    """The most seconds that a notebook took so far; first come those that were not run yet, by the size of the file."""
    took = [read(file)["seconds"] for file in RESULTS.glob(f"*/{pathlib.Path(notebook).with_suffix('.json')}")]
    return max(took, default=math.inf), (ROOT / notebook).stat().st_size


def known(jobs, failed):
    """{job: result} of what was run and has not changed since; if `failed`, without those where a cell fails."""
    keys = {notebook: key(notebook, ROOT) for _, notebook in jobs}
    kept = {(setting, notebook): read(setting.place(notebook)) for setting, notebook in jobs}
    return {job: r for job, r in kept.items() if r and r["key"] == keys[job[1]] and not (failed and r["failures"])}


async def run_all(jobs, results):
    """Add to `results` those of the jobs that it lacks, run as many at a time as there are cores for their threads."""
    with tqdm(total=len(jobs), initial=len(results), unit="notebook", smoothing=0) as bar:

        async def one(setting, notebook, free):
            async with free:
                meet = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # the path of a socket has to be short
                with tempfile.TemporaryDirectory(dir=RESULTS, ignore_cleanup_errors=True) as folder, meet as sockets:
                    result = await run(setting, notebook, pathlib.Path(folder), sockets)
            write(setting.place(notebook), result)
            results[setting, notebook] = result
            bar.update()
            if result["failures"]:
                bar.write(f"{setting.name} {notebook} fails: {', '.join(cell for cell, _ in result['failures'])}")

        missing = [job for job in jobs if job not in results]
        for threads in sorted({setting.threads for setting, _ in missing}):
            free = asyncio.Semaphore(max(1, os.cpu_count() // threads))
            await asyncio.gather(*(one(*job, free) for job in missing if job[0].threads == threads))


def table(results):
    """Markdown: a row for each setting, and below them a line for each cell that fails."""
    rows = {setting.name: [0, 0, 0] for setting, _ in results}
    for (setting, _), result in results.items():
        counts = 1, result["cells"], len(result["failures"])
        rows[setting.name] = [a + b for a, b in zip(rows[setting.name], counts, strict=True)]
    lines = ["| setting          | notebooks | cells run | cells that fail |", "|:---|---:|---:|---:|"]
    lines += [f"| {name:<16} | {n:>9} | {ran:>9} | {fail:>15} |" for name, (n, ran, fail) in rows.items()] + [""]
    for (setting, notebook), result in results.items():
        lines += [f"- {setting.name} {notebook} {cell}: {message}" for cell, message in result["failures"]]
    return "\n".join(lines)


def select(names, patterns):
    """The names that match one of the patterns; a pattern that matches none ends the program."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            sys.exit(f"portable: expected one of {', '.join(names)}, got {pattern}")
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def main(words=None):
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="SETTING", default=["*"])
    parser.add_argument("--notebooks", nargs="+", metavar="PATTERN", default=["*"])
    parser.add_argument("--failed", action="store_true")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args(words)
    RESULTS.mkdir(parents=True, exist_ok=True)
    draw = RESULTS / "drawn.json"  # kept until every notebook was run with it
    drawn = read(draw) or random.SystemRandom().randrange(3000, 10**6)
    found = {setting.name: setting for setting in settings(drawn, arguments.only)}
    chosen = [found[name] for name in select(list(found), arguments.only)]
    notebooks = select([str(path.relative_to(ROOT)) for path in chapters.notebooks()], arguments.notebooks)
    notebooks.sort(key=length, reverse=True)
    jobs = [(setting, notebook) for setting in chosen for notebook in notebooks]
    results = known(jobs, arguments.failed)
    if arguments.list:
        for setting in chosen:
            print(f"{setting.name:<16} {sum(job[0] == setting and job not in results for job in jobs):>3} to run")
        return 0
    if found[f"drawn+{drawn}"] in chosen:
        write(draw, drawn)
        print(f"drawn by chance, and added to every seed: {drawn}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(run_all(jobs, results))
    except KeyboardInterrupt:
        sys.exit("portable: interrupted; what was run is kept")
    if found[f"drawn+{drawn}"] in chosen and arguments.notebooks == ["*"]:
        draw.unlink()
    results = {job: results[job] for job in jobs}
    print(table(results))
    RESULTS.with_suffix(".md").write_text(table(results) + "\n", encoding="utf-8")
    write(RESULTS.with_suffix(".json"), [{"setting": s.name, "notebook": n} | r for (s, n), r in results.items()])
    return int(any(r["failures"] for (setting, _), r in results.items() if SHIFTED_SEEDS_FAIL or not setting.shift))


if __name__ == "__main__":
    sys.exit(main())
