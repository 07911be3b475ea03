"""Run the chapters as other machines would: on other processors, with more threads, from other seeds.

python tools/portable.py [--only SETTING ...] [--notebooks PATTERN ...] [--list]

Each setting runs every chapter and every solution through pytest, in a copy of what they need. An interrupted run
goes on where it stopped: what was run, and has not changed since, is read from build/portable/.
"""

import argparse
import asyncio
import dataclasses
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import re
import shutil
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
LIMIT = 20 * 60  # seconds for one notebook; the slowest takes two minutes
FIXED_TAG = "fixed-seed"
# Asserts have margins of five standard errors, but not every seed of a single network is a good one: those that
# shifted seeds break are looked at, and do not make the command fail.
SHIFTED_SEEDS_FAIL = False

# In the copy this module is imported by every cell, before its first line.
SEEDS = '''
"""Every seed, shifted."""

import torch

by = 0
_manual_seed, _Generator = torch.manual_seed, torch.Generator


class _Kind(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _Generator)


class Generator(_Generator, metaclass=_Kind):
    def manual_seed(self, seed):
        super().manual_seed(seed + by)
        return self


def manual_seed(seed):
    return _manual_seed(seed + by)


torch.Generator, torch.manual_seed, torch.random.manual_seed = Generator, manual_seed, manual_seed
'''
# Appended to the copy's conftest.py. Kernels that start at the same moment can draw the same ports: these meet in files.
FILES_FOR_PORTS = """

import functools

import nbval.kernel

nbval.kernel.KernelManager = functools.partial(nbval.kernel.KernelManager, transport="ipc", ip={ip!r})
"""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to run: variables of the environment, and by how much the seeds are shifted."""

    name: str
    capability: str | None = None  # of ATen; None: the processor's own
    threads: int = 1
    compatible: bool = False  # MKL's results the same on every processor
    shift: int = 0

    def environment(self):
        """The variables of this process, with those of the setting."""
        dropped = "QUICK", "CLAIMS", "ATEN_CPU_CAPABILITY", "MKL_CBWR"
        kept = {key: value for key, value in os.environ.items() if key not in dropped}
        own = {"OMP_NUM_THREADS": str(self.threads), "PYTHONDONTWRITEBYTECODE": "1"}
        if self.capability:
            own["ATEN_CPU_CAPABILITY"] = self.capability
        if self.compatible:
            own["MKL_CBWR"] = "COMPATIBLE"
        return kept | own


def capabilities():
    """What ATEN_CPU_CAPABILITY can be on this processor, the best one last: it needs no variable."""
    fresh = {key: value for key, value in os.environ.items() if key != "ATEN_CPU_CAPABILITY"}
    ask = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    best = subprocess.run([sys.executable, "-c", ask], env=fresh, capture_output=True, text=True, check=True)
    best = best.stdout.strip().lower().replace(" ", "")
    steps = ["default", "avx2", "avx512"]
    if platform.machine().lower() in ("x86_64", "amd64") and best in steps:
        return steps[: steps.index(best) + 1]
    return list(dict.fromkeys(["default", best]))


def settings(drawn):
    """Every setting, in the order of the table."""
    names = capabilities()
    plain = [
        Setting(name + "+2threads" * (threads == 2), None if name == names[-1] else name, threads)
        for threads in (1, 2)
        for name in names
    ]
    shifted = [Setting(f"seeds+{shift}", shift=shift) for shift in (1000, 2000, drawn)]
    return [*plain, Setting(f"{names[-1]}+cbwr", compatible=True), *shifted]


def files(path):
    """What a run of the notebook at `path` can read, from ROOT."""
    beside = [*ROOT.glob("chapters/**/*.py"), *ROOT.glob("minidl/*.py")]
    return [path, *sorted(beside), ROOT / "conftest.py", ROOT / "pyproject.toml", ROOT / "tests" / "nbval_sanitize.cfg"]


def key(path):
    """A hash of the notebook at `path`, of what its run can read, of the versions and of this file."""
    digest = hashlib.sha256(f"{sys.version} {importlib.metadata.version('torch')}".encode())
    for file in [pathlib.Path(__file__), *files(path)]:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def shifted(notebook, shift):
    """The notebook with a first line in every cell, which says by how much seeds are shifted from here on."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            by = 0 if FIXED_TAG in cell.metadata.get("tags", []) else shift
            cell.source = f"import shifted_seeds; shifted_seeds.by = {by}\n{cell.source}"
    return notebook


def furnish(folder, path, shift, ip):
    """Copy into `folder` what a run of the notebook at `path` needs, with seeds shifted; return its key and its place."""
    for file in files(path):
        copied = folder / file.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copied)
    with open(folder / "conftest.py", "a", encoding="utf-8") as conftest:
        conftest.write(FILES_FOR_PORTS.format(ip=ip))
    copied = folder / path.relative_to(ROOT)
    if shift:
        (folder / "shifted_seeds.py").write_text(SEEDS, encoding="utf-8")
        nbformat.write(shifted(nbformat.read(copied, as_version=4), shift), copied)
    return copied


def brief(message):
    """One line of what nbval says of a cell."""
    message = re.sub(r"(\x1b|#x1B)\[[\d;]*m", "", message)
    errors = re.findall(r"(?m)^(?:E +)?(\w*(?:Error|Exception|Interrupt|Exit|Warning)\b.*)", message)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return errors[-1] if errors else " ".join(lines[1:2] or lines)


def verdict(report, log, code):
    """(cells run, [[cell, message] of those that fail]), from what pytest wrote."""
    ran, failures = 0, []
    if report.exists():
        for case in xml.etree.ElementTree.parse(report).iter("testcase"):
            ran += 1
            for what in (case.find("failure"), case.find("error")):
                if what is not None:
                    failures.append([case.get("name"), brief(what.get("message") + "\n" + (what.text or ""))])
    if not ran or (code and not failures):
        last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        failures.append(["the notebook", (last or ["no output"])[-1]])
    return ran, failures


async def run(setting, path):
    """Run the notebook at `path` under `setting`; the result, as it is kept."""
    started = time.perf_counter()
    here = tempfile.TemporaryDirectory(dir=RESULTS, ignore_cleanup_errors=True)
    meet = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # the path of a socket has at most 107 characters
    with here as folder, meet as sockets:
        folder = pathlib.Path(folder)
        was = key(path)
        copied = furnish(folder, path, setting.shift, f"{sockets}/kernel")
        report, log = folder / "report.xml", folder / "log"
        how = "--nbval-lax" if setting.shift else "--nbval"
        command = [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider"]
        command += ["--nbval-kernel-startup-timeout=300"]  # a busy machine
        command += [how, f"--junitxml={report}", str(copied)]
        environment = setting.environment() | {"PYTHONPATH": str(folder), "JUPYTER_RUNTIME_DIR": sockets}
        with open(log, "w") as output:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            code = await asyncio.wait_for(process.wait(), LIMIT)
            ran, failures = verdict(report, log, code)
        except TimeoutError:
            ran, failures = 0, [["the notebook", f"killed after {LIMIT / 60:.0f} minutes"]]
        finally:
            if process.returncode is None:
                process.kill()  # its kernel sees that, and ends
                await process.wait()
    seconds = round(time.perf_counter() - started, 1)
    return {"key": was, "cells": ran, "failures": failures, "seconds": seconds}


def kept_at(setting, path):
    """The file of the result."""
    return RESULTS / setting.name / path.relative_to(ROOT).with_suffix(".json")


def write(file, content):
    """Write `content` as JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    part.replace(file)


def read(file):
    """What was kept, or None."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


async def run_all(jobs):
    """{(setting, path): result} of all jobs; what is kept and has not changed is not run again."""
    results = {}
    for setting, path in jobs:
        kept = read(kept_at(setting, path))
        if kept and kept["key"] == key(path):
            results[setting, path] = kept
    missing = [job for job in jobs if job not in results]
    with tqdm(total=len(jobs), initial=len(results), unit="notebook") as bar:
        for threads in sorted({setting.threads for setting, _ in missing}):
            free = asyncio.Semaphore(max(1, os.cpu_count() // threads))

            async def one(setting, path, free=free):
                async with free:
                    result = await run(setting, path)
                write(kept_at(setting, path), result)
                results[setting, path] = result
                bar.update()
                if result["failures"]:
                    bar.write(f"{setting.name}: {path.relative_to(ROOT)}: {len(result['failures'])} cells fail")

            await asyncio.gather(*(one(*job) for job in missing if job[0].threads == threads))
    return results


def table(results):
    """The table, and a line for each cell that fails."""
    rows = {}
    for (setting, _), result in results.items():
        row = rows.setdefault(setting.name, [0, 0])
        row[0] += result["cells"]
        row[1] += len(result["failures"])
    yield f"{'setting':24}{'cells run':>12}{'cells that fail':>18}"
    for name, (ran, failing) in rows.items():
        yield f"{name:24}{ran:12}{failing:18}"
    for (setting, path), result in results.items():
        for cell, message in result["failures"]:
            yield f"{setting.name}: {path.relative_to(ROOT)}: {cell}: {message}"


def largest_first(paths):
    """Those that took the longest, or that are the longest, first."""
    return sorted(paths, key=lambda path: -path.stat().st_size)


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="SETTING", default=["*"])
    parser.add_argument("--notebooks", nargs="+", metavar="PATTERN", default=["*"])
    parser.add_argument("--list", action="store_true", help="print the settings, run nothing")
    arguments = parser.parse_args(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    drawn_at = RESULTS / "drawn.json"
    drawn = read(drawn_at) or random.SystemRandom().randrange(3000, 10**6)
    write(drawn_at, drawn)
    chosen = [s for s in settings(drawn) if any(fnmatch.fnmatch(s.name, pattern) for pattern in arguments.only)]
    if arguments.list:
        print("\n".join(setting.name for setting in chosen))
        return 0
    paths = [
        path
        for path in largest_first(chapters.notebooks())
        if any(fnmatch.fnmatch(str(path.relative_to(ROOT)), pattern) for pattern in arguments.notebooks)
    ]
    jobs = [(setting, path) for setting in chosen for path in paths]
    results = asyncio.run(run_all(jobs))
    print("\n".join(table({job: results[job] for job in jobs})))
    if any(setting.shift == drawn for setting in chosen):
        drawn_at.unlink()
    return int(any(result["failures"] for (s, _), result in results.items() if SHIFTED_SEEDS_FAIL or not s.shift))


if __name__ == "__main__":
    sys.exit(main())
