"""Run the last chapter: its table, and build/reproduction.html. `make reproduce` calls this.

A part is a notebook of that chapter. What a part has found is kept in build/reproduction/ as soon as it is finished,
under a hash of all that it hangs on, and later calls take it up from there: after an interruption only what is left
runs. A part that fails leaves the others alone and is not kept; it runs anew the next time.

The exit status is 0 if every part ran and every claim held, 1 if not, 130 after Ctrl-C. QUICK=1 is a preview: there
are too few networks for claims and verdicts, so numbers are shown and nothing is judged.
"""

import asyncio
import dataclasses
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import textwrap
import threading
import time

import nbformat
import paper
import torch
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_markdown_cell, new_notebook
from tqdm import tqdm

import chapters
import minidl

TABLE_TAG = "reproduction-table"
CELL_SECONDS = 3600  # a cell that takes longer hangs: all parts together take minutes


@dataclasses.dataclass
class Part:
    """What one notebook has found: its cells as far as they ran, and the claims that did not hold, a line each."""

    name: str
    cells: list
    claims: list
    ran: str  # when, and at which commit
    error: str = ""  # empty: it ran to its end
    taken_up: bool = False

    def title(self):
        """What its first heading says."""
        found = [re.match(r"# (.+)", cell.source) for cell in self.cells if cell.cell_type == "markdown"]
        return next((match[1] for match in found if match), self.name)

    def rows(self):
        """The lines of its table: what its tagged cells printed; no warnings, they went to the terminal."""
        outputs = [output for cell in self.cells if is_table(cell) for output in cell.outputs]
        printed = [output.text for output in outputs if output.get("name") == "stdout"]
        shown = [output.data.get("text/plain", "") for output in outputs if "data" in output]
        return [line for text in printed + shown for line in text.splitlines()]


def is_table(cell):
    """Whether the lines that `cell` prints belong to the table."""
    return cell.cell_type == "code" and TABLE_TAG in cell.metadata.get("tags", [])


def threads():
    """How many threads a kernel begins with; a part may set its own number."""
    return os.environ.get("OMP_NUM_THREADS", "1")  # chapters.Client sets 1


def now():
    """The minute and the commit, as `2026-01-31 12:00, commit 1234abc`; where there is no git, `commit unknown`."""

    def git(*arguments):
        command = ["git", "--no-optional-locks", "-C", chapters.ROOT, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    commit = "unknown"
    if (chapters.ROOT / ".git").exists():  # else git would name a repository further up
        try:
            commit = git("rev-parse", "--short", "HEAD")
            commit += " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        except (OSError, subprocess.CalledProcessError):
            pass
    return f"{time.strftime('%Y-%m-%d %H:%M')}, commit {commit}"


def head(parts):
    """What ran, where and when, a line each; then the parts that were taken up."""
    quick = os.environ.get("QUICK")
    return [
        f"minidl {minidl.__version__}, {now()}" + (f", QUICK={quick}: a preview, no verdicts" if quick else ""),
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, processor "
        f"{torch.backends.cpu.get_cpu_capability()}, threads {threads()} (a part may set its own), "
        f"cores {os.cpu_count()}",
        *(f"{part.name}: taken up, ran {part.ran}" for part in parts if part.taken_up),
    ]


def tail(parts):
    """The claims that did not hold, a line each."""
    lines = [f"{part.name}: {claim}" for part in parts for claim in part.claims]
    return ["Claims that did not hold:", *lines] if lines else []


def place(path):
    """The file for what the part at `path` finds, whether it is there or not: its name has the hash."""
    files = [*sorted(chapters.CHAPTERS.glob("*.py")), *sorted(chapters.PACKAGE.glob("*.py"))]
    hangs_on = [
        [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in nbformat.read(path, as_version=4).cells],
        [(file.name, file.read_text(encoding="utf-8")) for file in files],
        [os.environ.get("QUICK", ""), platform.python_version(), torch.__version__],
        [torch.backends.cpu.get_cpu_capability(), threads()],
    ]
    key = hashlib.sha256(json.dumps(hangs_on).encode()).hexdigest()[:16]
    return chapters.BUILD / "reproduction" / f"{path.stem}-{key}.ipynb"


def keep(part, file):
    """Write `part` to `file`: it is there as a whole or not at all.

    Raises: OSError, also where the part or a module was edited while it ran: the hash in the name may be wrong.
    """
    if place(chapters.CHAPTERS / f"{part.name}.ipynb") != file:
        raise OSError("something that it hangs on was edited meanwhile")
    notebook = new_notebook(cells=part.cells, metadata=chapters.NOTEBOOK_METADATA)
    notebook.metadata["reproduction"] = {"claims": part.claims, "ran": part.ran}
    half = file.with_suffix(f".{os.getpid()}")
    half.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    os.replace(half, file)


def take_up(path):
    """The part at `path` from its file, or None: not there, or not readable, after a power cut perhaps."""
    try:
        notebook = nbformat.read(place(path), as_version=4)
        kept = notebook.metadata["reproduction"]
        return Part(path.stem, notebook.cells, list(kept["claims"]), kept["ran"], taken_up=True)
    except (OSError, ValueError, KeyError):
        return None


async def run(path, bar):
    """Run the part at `path` and keep it. What goes wrong in it becomes its `error`."""
    file = place(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    noted = file.with_suffix(".claims")  # claims.py writes there
    noted.write_text("", encoding="utf-8")
    client = chapters.Client(path, bar)
    client.timeout, client.shutdown_kernel = CELL_SECONDS, "immediate"
    client.startup_timeout = 600  # on a busy machine a minute is not enough
    for cell in client.nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None  # what is stored is another run's
    begun = []
    client.on_cell_execute = lambda cell, cell_index: begun.append(cell_index)
    part = Part(path.stem, [], [], "")
    try:
        # Whatever a kernel writes past its cells goes to the terminal, not into the table.
        await client.async_execute(env=os.environ | {"CLAIMS": str(noted)}, stdout=2)
    except Exception as error:
        if asyncio.current_task().cancelling():  # nbclient takes Ctrl-C for the death of its kernel
            raise asyncio.CancelledError from None
        named = isinstance(error, CellExecutionError)
        what = f"{error.ename}: {error.evalue}" if named else f"{type(error).__name__}: {error}"
        part.error = f"failed in cell {len(begun)}: {what}" if begun else f"failed before its first cell: {what}"
        bar.write(f"{part.name}: {error}", file=sys.stderr)
    client.set_widgets_metadata()
    part.cells = chapters.clean(client.nb).cells[: begun[-1] + 1 if part.error and begun else None]
    part.claims = [json.loads(line) for line in noted.read_text(encoding="utf-8").splitlines()]
    part.ran = now()
    noted.unlink()
    if not part.error:
        try:
            keep(part, file)
        except OSError as error:  # a full disk, perhaps
            bar.write(f"{part.name}: not kept, {error}", file=sys.stderr)
    return part


async def run_all(paths, at_a_time):
    """The parts at `paths`: those kept are taken up, the others run, with a bar for each."""
    free = asyncio.Semaphore(at_a_time)

    async def get(path):
        if part := take_up(path):
            tqdm.write(f"{part.name}: taken up, ran {part.ran}", file=sys.stderr)
            return part
        async with free:
            with tqdm(desc=path.stem, unit="cell") as bar:
                return await run(path, bar)

    async with asyncio.TaskGroup() as group:  # Ctrl-C: it waits until every part has ended its kernel
        tasks = [group.create_task(get(path)) for path in paths]
    return [task.result() for task in tasks]


class Loop(asyncio.SelectorEventLoop):
    """Leaves Ctrl-C to asyncio, which cancels every part: nbclient would end one kernel, and go on."""

    def add_signal_handler(self, *_):
        """Refuse; nbclient expects that of loops outside the main thread."""
        raise RuntimeError("Ctrl-C is asyncio's")


def table(parts):
    """The lines of all parts, each head once, and what failed; above them a line a report."""
    lines = [
        line
        for data in paper.reports(parts)
        for line in textwrap.wrap(
            f"report {data['report']}: {data['verdict'] or 'preview, no verdict'}; {data['claims']}",
            100, subsequent_indent=" " * 12)
    ]  # fmt: skip
    lines += [""] * bool(lines)
    heads = set()
    for part in parts:
        rows = part.rows()
        lines += [row for row in rows if row not in heads]
        heads |= {rows[0]} if rows else set()
        lines += [f"{part.name}: {part.error.splitlines()[0]}"] if part.error else []
    return lines


def verbatim(lines):
    """A cell that shows `lines` as they are."""
    return new_markdown_cell(textwrap.indent("\n".join(lines), "    ", lambda line: True))


def write_page(parts, target):
    """Write all parts as one page: the front, then a section for each."""
    cells = []
    for part in parts:
        cells += [new_markdown_cell(f'<a id="{part.name}"></a>'), *part.cells]
        cells += [verbatim([f"{part.name}: {part.error}"])] if part.error else []
    paper.write(parts, cells, head(parts), tail(parts), target)


def reproduce():
    """Run or take up the notebooks with the highest number, print their table, write their page.

    One after another, so that their seconds are not shared; with QUICK=1 as many at a time as there are cores.
    """
    paths = sorted(chapters.CHAPTERS.glob(f"{chapters.last_number()}*_*.ipynb"))
    if not any(is_table(cell) for path in paths for cell in nbformat.read(path, as_version=4).cells):
        sys.exit(f"reproduce: expected a cell tagged {TABLE_TAG} in a chapter {chapters.last_number()}, got none")
    at_a_time = os.cpu_count() if os.environ.get("QUICK") else 1
    with asyncio.Runner(loop_factory=Loop) as runner:
        parts = runner.run(run_all(paths, at_a_time))
    print("\n".join([*head(parts), "", *table(parts), *tail(parts)]), flush=True)
    write_page(parts, chapters.BUILD / "reproduction.html")
    print("figures: build/reproduction.html", flush=True)
    failed = sum(bool(part.error) for part in parts)
    claims = sum(len(part.claims) for part in parts)  # a preview has none
    if failed or claims:
        sys.exit(f"reproduce: parts that failed: {failed}; claims that did not hold: {claims}")


def end_with(parent):
    """End when `parent`, make, is gone: killed, it cannot end what it started. The kernels watch us in the same way."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main():
    """The command line: no arguments."""
    if os.environ.get("MAKELEVEL"):
        threading.Thread(target=end_with, args=[os.getppid()], daemon=True).start()
    try:
        reproduce()
    except KeyboardInterrupt:
        print("reproduce: interrupted; the next call takes up the parts that are finished", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
