"""`make reproduce`, on small parts of a last chapter."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
import reproduce
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import chapters

HEAD = 'print("report  error")\n'
ROW = HEAD + 'print("{}     {}")'
COUNT = 'with open("ran", "a", encoding="utf-8") as file:\n    file.write("{} ")'
CLAIM = 'from claims import claim\nclaim("a share", 0.25, low=0.5)\nclaim("another", 1, 0, 2)'
HERE = chapters.CHAPTERS  # before any test changes it


def part(folder, name, *sources, tag=reproduce.TABLE_TAG):
    """A notebook under a heading: its cells, and stored outputs that are not this run's. The last is tagged."""
    stored = [nbformat.v4.new_output("stream", name="stdout", text="stored, not computed\n")]
    cells = [new_markdown_cell("# A part\n\n## The need"), *(new_code_cell(s, outputs=stored) for s in sources)]
    cells[-1].metadata["tags"] = [tag]
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")


ALL = ["18a_one", "18b_two", "18c_three"]


def parts(folder, **further):
    """Three parts. Each adds its name to the file `ran`, then come its cells of `further`, then a table of one row."""
    for name in ALL:
        number = f"00{ALL.index(name)}"
        part(folder, name, COUNT.format(name), *further.get(name[4:], []), ROW.format(number, 0.1))


def ran(folder):
    """The names of the parts that ran since the last call, sorted."""
    file = folder / "ran"
    names = file.read_text(encoding="utf-8").split() if file.exists() else []
    file.unlink(missing_ok=True)
    return sorted(names)


def kept(folder):
    """The names of the parts that the next call takes up, sorted."""
    return sorted(file.stem.rsplit("-", 1)[0] for file in (folder / "build" / "reproduction").glob("*.ipynb"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(chapters, "CHAPTERS", tmp_path)
    monkeypatch.setattr(chapters, "BUILD", tmp_path / "build")
    monkeypatch.setenv("QUICK", "1")
    shutil.copy(HERE / "claims.py", tmp_path)
    return tmp_path


def page(folder):
    return (folder / "build" / "reproduction.html").read_text(encoding="utf-8")


def table(capsys):
    """What was printed to stdout below the empty line under the head."""
    return capsys.readouterr().out.split("\n\n", 1)[1].splitlines()


FIGURES = "figures: build/reproduction.html"


@pytest.mark.parametrize("quick", ["", "1"])
def test_one_table_of_all_parts(folder, capsys, monkeypatch, quick):
    monkeypatch.setenv("QUICK", quick)
    part(folder, "17_before", "1 / 0")  # is not run
    part(folder, "18a_first", HEAD + 'import os\nprint("000    ", os.environ["QUICK"] or "all")')
    noise = (
        'import os, sys\nprint("oh", file=sys.stderr)\nos.write(1, b"from below\\n")\nos.system("echo from a child")'
    )
    part(folder, "18b_second", noise, "print('oh', file=sys.stderr)\nprint('a note')\n" + ROW.format("001", 0.2))
    reproduce.reproduce()
    out = capsys.readouterr().out
    first, second, *lines = out.splitlines()
    assert re.fullmatch(
        r"minidl \d+\.\d+\.\d+, \d{4}-\d\d-\d\d \d\d:\d\d, commit (unknown|[0-9a-f]{7,}( with changes)?)"
        + (", QUICK=1: a preview, no verdicts" if quick else ""),
        first,
    )
    assert re.fullmatch(
        r"Python 3\.\d+\.\d+, PyTorch 2\.\S+, processor [A-Z]\w+, threads \d+ \(a part may set its own\), cores \d+",
        second,
    )
    assert lines == ["", "report  error", f"000     {quick or 'all'}", "a note", "001     0.2", FIGURES]
    html = page(folder)
    assert html.index(first) < html.index(second) < html.index("000 ") < html.index("001 ")
    assert "stored, not computed" not in html and ("Preview: QUICK" in html) == bool(quick)
    names = re.findall(r' id="([^"]*)"', html)
    assert len(names) == len(set(names)) and {"18a_first-The-need", "18b_second-The-need"} <= set(names)
    assert {"18a_first-The-need", "18b_second-The-need"} <= set(re.findall(r'href="#([^"]*)"', html))


REPORT = """
from verdict import Paper, Report
report = Report("{0}", "2 / 3 %", {{"": Paper(2.0, 3.0, 0.5, 0.5, 10)}})
report.add("as stated", "", {1}, {1}, stated=True, seconds=1.5)
report
"""


def test_reports_make_the_front(folder, monkeypatch, capsys):
    """Table 1 above all else, Table 2 with a line a reading, both in the reports' order; the terminal has them too."""
    monkeypatch.setenv("QUICK", "")
    shutil.copy(HERE / "verdict.py", folder)
    far, near = "[0.1, 0.11] * 20", "[0.02, 0.03] * 20"
    part(folder, "18a_one", REPORT.format("001", far))
    part(folder, "18b_two", "import matplotlib.pyplot", REPORT.format("000", near))
    reproduce.reproduce()
    lines = table(capsys)
    assert lines[:2] == [
        "report 000: reproduced; 2 / 3 %",
        "report 001: not reproduced; 2 / 3 %",
    ]
    assert sum(line.startswith(("000  as stated", "001  as stated")) for line in lines) == 2
    assert max(map(len, lines)) <= 100
    html = page(folder)
    front = html.index("<h1>")  # the styles before it have words of their own
    places = [html.index(text, front) for text in ("<h1>", "Table 1.", "Abstract", "Contents", "Table 2.", "What ran")]
    places += [html.index('id="18a_one"'), html.rindex("References")]
    assert places == sorted(places)
    assert html.index("reproduced</td>") < html.index("not reproduced</td>") and "https://" not in style_free(html)


def test_a_preview_says_so_on_every_table(folder, capsys):
    shutil.copy(HERE / "verdict.py", folder)
    part(folder, "18a_one", REPORT.format("001", "[0.1, 0.11]"))
    reproduce.reproduce()
    assert table(capsys)[0] == "report 001: preview, no verdict; 2 / 3 %"
    html = page(folder)
    html = html[html.index("<h1>") :]
    assert html.count("(preview: QUICK, no verdicts)</span></caption>") == 2 and "reproduced</td>" not in html
    assert "It excludes" not in html


def test_a_distance_may_be_infinite(folder, capsys):
    """Where all networks are alike and the paper has one run; in a notebook's JSON it is a word."""
    shutil.copy(HERE / "verdict.py", folder)
    one_run = REPORT.replace("0.5, 0.5, 10", "n=1")
    part(folder, "18a_one", one_run.format("001", "[0.1, 0.1]"))
    reproduce.reproduce()
    assert ">inf / inf<" in page(folder)


SPEEDS = """
from speeds import Speeds
speeds = Speeds(50)
speeds.add("000", ([1e-6] * 3, [2e-6, 4e-6, 3e-6]), ([8e-6], [4e-6]))
speeds
"""


def test_speeds_are_table_3(folder, capsys):
    """Medians of the rounds, and the median of their ratios with the least and the largest."""
    shutil.copy(HERE / "speeds.py", folder)
    part(folder, "18a_one", SPEEDS)
    reproduce.reproduce()
    assert table(capsys)[:2] == [
        "µs a step        alone   PyTorch             ratio   one of 50   PyTorch             ratio",
        "000                  1         3  3.0 (2.0 to 4.0)           8         4  0.5 (0.5 to 0.5)",
    ]
    row = re.search(r"<td>000</td>(.*?)</tr>", page(folder))[1]
    cells = re.findall(r"<span>(.*?)</span>", row)
    assert cells == ["1", "3", "3.0 (2.0 to 4.0)", "8", "4", "0.5 (0.5 to 0.5)"]


def test_the_picture_is_figure_1(folder):
    show = "import io\nfrom IPython.display import Image, display\nfrom matplotlib import pyplot\n"
    show += "pyplot.plot([1, 2]); b = io.BytesIO(); pyplot.savefig(b); pyplot.close()\n"
    show += "display(Image(b.getvalue()), metadata={'image/png': {'alt': 'six regions'}})"
    part(folder, "18a_one", show, tag="picture")
    part(folder, "18b_two", ROW.format("000", 0.1))
    reproduce.reproduce()
    html = page(folder)
    assert html.index("<figcaption>Figure 1. six regions</figcaption>") < html.index("What ran")


def style_free(html):
    """What a browser might fetch: sources, and links of style sheets."""
    return " ".join(re.findall(r'(?:src|href)="([^"]*)"', re.sub(r"<a .*?>", "", html)))


def test_code_is_folded_and_figures_have_captions(folder, monkeypatch):
    monkeypatch.setenv("QUICK", "")
    show = "import io, base64\nfrom IPython.display import Image, display\nfrom matplotlib import pyplot\n"
    show += "pyplot.plot([1, 2]); b = io.BytesIO(); pyplot.savefig(b); pyplot.close()\n"
    show += "display(Image(b.getvalue()), metadata={'image/png': {'alt': 'a line'}})"
    part(folder, "18a_one", show, ROW.format("000", 0.1))
    reproduce.reproduce()
    html = page(folder)
    assert html.count('<details class="code">') == 2 and "<details open" not in html
    assert re.search(r"<figcaption>Figure 2\. a line</figcaption>", html)


def test_links_stay_on_the_page(folder):
    part(folder, "18a_one", ROW.format("000", 0.1))
    part(folder, "18b_two", ROW.format("001", 0.1))
    notebook = nbformat.read(folder / "18b_two.ipynb", as_version=4)
    words = "[one](18a_one.ipynb), [linear](04_linear.ipynb), [solved](solutions/18a_one.ipynb), [need](#The-need)"
    notebook.cells.insert(1, new_markdown_cell(words))
    nbformat.write(notebook, folder / "18b_two.ipynb")
    reproduce.reproduce()
    assert '<a href="#18a_one">one</a>, linear, solved, <a href="#18b_two-The-need">need</a>' in page(folder)


def test_parts_without_a_table_are_refused(folder):
    part(folder, "18a_first", COUNT, tag="other")
    with pytest.raises(SystemExit, match="expected a cell tagged"):
        reproduce.reproduce()
    assert not ran(folder)


def test_a_part_that_fails_leaves_the_others(folder, capsys, monkeypatch):
    """One loses its kernel, one raises after its table, one hangs: each shows what it had, and will run anew."""
    monkeypatch.setattr(reproduce, "CELL_SECONDS", 2)
    parts(folder, two=["print('so far')", "import os; os._exit(1)"])
    part(folder, "18d_four", "1 / 0", "print('not run')", ROW.format("003", 0.3))
    notebook = nbformat.read(folder / "18d_four.ipynb", as_version=4)
    notebook.cells.insert(1, notebook.cells.pop())
    nbformat.write(notebook, folder / "18d_four.ipynb")
    part(folder, "18e_five", "print('before it hangs')", "while True: pass")
    with pytest.raises(SystemExit, match="parts that failed: 3; claims that did not hold: 0"):
        reproduce.reproduce()
    assert table(capsys) == [
        "report  error",
        "000     0.1",
        "18b_two: failed in cell 3: DeadKernelError: Kernel died",
        "002     0.1",
        "003     0.3",
        "18d_four: failed in cell 2: ZeroDivisionError: division by zero",
        "18e_five: failed in cell 2: CellTimeoutError: A cell timed out while it was being executed, after 2 seconds.",
        FIGURES,
    ]
    html = page(folder)
    for text in ("so far", "18b_two: failed in cell 3", "18d_four: failed in cell 2", "before it hangs", "18e_five: "):
        assert text in html
    assert "not run" not in html and "stored, not computed" not in html
    assert ran(folder) == ALL and kept(folder) == ["18a_one", "18c_three"]


def test_a_claim_that_does_not_hold(folder, capsys, monkeypatch):
    """The rest of its part and the others go on; it stands at the end of table and page, the next time too."""
    monkeypatch.setenv("QUICK", "")
    parts(folder, two=[CLAIM])
    for expected in (ALL, []):
        with pytest.raises(SystemExit, match="parts that failed: 0; claims that did not hold: 1"):
            reproduce.reproduce()
        assert ran(folder) == expected
        assert table(capsys) == [
            "report  error",
            "000     0.1",
            "001     0.1",
            "002     0.1",
            "Claims that did not hold:",
            (claim := "18b_two: a share: 0.25 (at least 0.5)"),
            FIGURES,
        ]
        assert page(folder).index(claim) > page(folder).index("002     0.1")


def test_a_preview_judges_no_claim(folder, capsys):
    """With QUICK=1 its value is shown, and the status is 0."""
    part(folder, "18a_one", HEAD + CLAIM)
    reproduce.reproduce()
    lines = table(capsys)
    assert "a share: 0.25 (preview, no claim)" in lines and lines[-1] == FIGURES


def test_what_has_not_changed_is_taken_up(folder, capsys):
    parts(folder)

    def again():
        """The parts that ran, and those of which head, page and terminal say that they were taken up."""
        reproduce.reproduce()
        printed = capsys.readouterr()
        assert printed.out.endswith("\n\nreport  error\n000     0.1\n001     0.1\n002     0.1\n" + FIGURES + "\n")
        line = re.compile(r"^(?:.*<code>)?(\w+): taken up, ran \d{4}-\d\d-\d\d \d\d:\d\d, commit \w+", re.MULTILINE)
        said = [line.findall(text) for text in (printed.out, page(folder), printed.err)]
        assert said[0] == said[1] == said[2]
        return ran(folder), said[0]

    assert again() == (ALL, [])
    assert again() == ([], ALL)
    part(folder, "18b_two", COUNT.format("18b_two"), "0", ROW.format("001", 0.1))
    for file in (folder / "build" / "reproduction").glob("18c*"):
        file.write_text("{", encoding="utf-8")  # not a notebook
    assert again() == (["18b_two", "18c_three"], ["18a_one"])


def test_edited_while_it_ran(folder, capsys):
    part(folder, "18a_one", "open('judge.py', 'a', encoding='utf-8').write('1')", ROW.format("000", 0.1))
    reproduce.reproduce()
    assert not kept(folder)
    assert "18a_one: not kept, something that it hangs on was edited meanwhile" in capsys.readouterr().err


def test_what_the_results_hang_on(folder, monkeypatch):
    """A module beside the notebooks, the package, QUICK, the threads and the processor each have their own place."""
    part(folder, "18a_one", "1")

    def places(change, *arguments):
        with monkeypatch.context() as patched:
            getattr(patched, change)(*arguments)
            return reproduce.place(folder / "18a_one.ipynb")

    found = [
        reproduce.place(folder / "18a_one.ipynb"),
        places("setenv", "QUICK", ""),
        places("setenv", "OMP_NUM_THREADS", "7"),
        places("setattr", reproduce.torch.backends.cpu, "get_cpu_capability", lambda: "ABACUS"),
        places("setattr", reproduce.torch, "__version__", "0.1"),
        places("setattr", chapters, "PACKAGE", folder / "empty"),
    ]
    (folder / "judge.py").write_text("1", encoding="utf-8")
    assert len({*found, reproduce.place(folder / "18a_one.ipynb")}) == 7


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    assert reproduce.now().endswith(", commit unknown")
    (tmp_path / ".git").mkdir()  # empty
    assert reproduce.now().endswith(", commit unknown")


START = """
import pathlib, signal
import chapters, reproduce
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
chapters.CHAPTERS = pathlib.Path.cwd()
chapters.BUILD = chapters.CHAPTERS / "build"
reproduce.main()
"""
BEATS = """
import pathlib, time
while not pathlib.Path("go").exists():
    pathlib.Path("beat").write_text(str(time.time()), encoding="utf-8")
    time.sleep(0.05)
"""


def wait_for(what, seconds=120):
    """Wait until `what()` is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.parametrize("how", ["kill -9", "kill -9 of make", "Ctrl-C"])
def test_interrupted(folder, capsys, monkeypatch, how):
    """The kernel ends too, and the next call does what is left."""
    monkeypatch.setenv("QUICK", "")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    parts(folder, two=[BEATS])
    command, beat = [sys.executable, "-c", START], folder / "beat"
    if how == "kill -9 of make":
        monkeypatch.setenv("MAKELEVEL", "1")
        command = ["sh", "-c", '"$0" "$@"; true', *command]
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(reproduce.__file__))
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for(beat.exists)
        finally:
            process.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
        out, err = process.communicate(timeout=120)  # until nobody holds the other ends, the kernels included
    last = beat.read_text(encoding="utf-8")
    time.sleep(0.5)
    assert beat.read_text(encoding="utf-8") == last
    assert out == "" and "Traceback" not in err, err
    if how == "Ctrl-C":
        assert process.returncode == 130
        assert err.endswith("interrupted; the next call takes up the parts that are finished\n")
    assert kept(folder) == ["18a_one"] and ran(folder) == ["18a_one", "18b_two"]
    if how == "kill -9":
        (folder / "go").touch()
        reproduce.reproduce()
        assert ran(folder) == ["18b_two", "18c_three"]
        assert table(capsys) == ["report  error", "000     0.1", "001     0.1", "002     0.1", FIGURES]
