"""The page that `make reproduce` writes: five reports as one paper, from what the parts of chapter 18 found.

Tables come from the reports that a part shows (`chapters/verdict.py`), figures and sections from its cells.
"""

import html
import os
import pathlib
import sys

import bs4
from nbformat.v4 import new_notebook

import chapters

sys.path.append(str(chapters.CHAPTERS))
import speeds  # noqa: E402 -- they lie beside the notebooks
import verdict  # noqa: E402

TITLE = "Five reports on a circle, reproduced"
PREVIEW = (
    "Preview: QUICK was set. Fewer networks were trained, so this page has no verdicts, and claims that need "
    "all networks are only printed."
)
STYLE = """
body.jp-Notebook { max-width: 60rem; margin: 0 auto; padding: 1rem; font-size: 16px; }
.front { font-family: var(--jp-content-font-family); }
h1 { margin: .2rem 0; } .front p { margin: .5rem 0; line-height: 1.4; }
.front table { border-collapse: collapse; font-size: 14px; margin: .5rem 0; }
.front th, .front td { text-align: left; padding: .15rem .6rem; vertical-align: top; border-bottom: 1px solid #ddd; }
.front td.n { text-align: right; font-variant-numeric: tabular-nums; } .front td span { white-space: nowrap; }
.front caption { caption-side: top; text-align: left; font-weight: bold; padding: .3rem 0; }
.front caption span { display: block; max-width: calc(100vw - 2rem); }
.scroll { overflow-x: auto; } img { max-width: 100%; height: auto; }
figure { margin: .5rem 0; } figcaption { font: 14px sans-serif; color: #444; max-width: 45rem; }
details.code > summary { cursor: pointer; color: #666; font: 13px sans-serif; margin-left: 1rem; }
.banner { background: #fff3cd; border: 1px solid #cc9a06; padding: .5rem 1rem; }
.jp-InputPrompt, .jp-OutputPrompt { display: none !important; }
pre, .jp-OutputArea-output pre { overflow-x: auto; white-space: pre; word-break: normal; }
.jp-RenderedMarkdown, mjx-container[display] { overflow-x: auto; overflow-y: hidden; max-width: 100%; }
.front h2 { margin: 1rem 0 .3rem; }
@media (max-width: 40rem) { body.jp-Notebook { padding: .6rem; } h1 { font-size: 1.5rem; }
  .front th, .front td { padding: .15rem .3rem; } }
@media print { details.code { display: none; } body.jp-Notebook { max-width: none; padding: 0; font-size: 12px; }
  .scroll { overflow: visible; } .short { break-inside: avoid; }
  .front th, .front td { padding: .1rem .25rem; } .front table { font-size: 9px; }
  mjx-container[display] { overflow: visible; font-size: 85% !important; }
  pre, .jp-OutputArea-output pre { font-size: 9.5px !important; white-space: pre-wrap; }
  h1, h2, h3, caption, thead, p:has(+ table) { break-after: avoid; } tr, figure { break-inside: avoid; } }
"""
REFERENCES = [
    "Reports 000 to 004 on project 2 of EE-559, Deep learning, EPFL: their texts and tables.",
    "S. Holm, A simple sequentially rejective multiple test procedure, 1979.",
    'B. L. Welch, The generalization of "Student\'s" problem when several different population variances are '
    "involved, 1947.",
    "X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.",
    "K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers, 2015.",
    "D. Kingma, J. Ba, Adam: a method for stochastic optimization, 2015.",
    "A. Paszke et al., PyTorch: an imperative style, high-performance deep learning library, 2019.",
]


def tag(name, content, **attributes):
    """An element; `content` is HTML already."""
    words = "".join(f' {key.rstrip("_")}="{html.escape(str(value))}"' for key, value in attributes.items())
    return f"<{name}{words}>{content}</{name}>"


def tabled(caption, head, rows):
    """A table; the cells are HTML, a number with its class `n`."""
    top = tag("thead", tag("tr", "".join(tag("th", html.escape(word)) for word in head)))
    body = tag("tbody", "".join(tag("tr", "".join(row)) for row in rows))
    above = tag("caption", tag("span", html.escape(caption)))
    short = " short" if len(rows) < 12 else ""  # on paper it stays whole
    return tag("div", tag("table", above + top + body), class_=f"scroll{short}")


def text(words):
    """A cell of words."""
    return tag("td", html.escape(words))


def number(*words):
    """A cell of a number, or of two with a slash between them, where a line may break."""
    return tag("td", " / ".join(tag("span", html.escape(word)) for word in words), class_="n")


def handed(parts, kind):
    """What the parts hand over of a kind."""
    outputs = [output for part in parts for cell in part.cells for output in cell.get("outputs", [])]
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def reports(parts):
    """What the parts say of the reports, in the order of their numbers."""
    return sorted(handed(parts, verdict.KIND), key=lambda data: data["report"])


def preview():
    """Whether QUICK is set: every table says so."""
    return " (preview: QUICK, no verdicts)" if os.environ.get("QUICK") else ""


def table_1(found):
    """A line a report: what it claims, and the verdict."""
    rows = [[text(d["report"]), text(d["claims"]), text(d["verdict"] or "preview")] for d in found]
    head = ["report", "its table (theirs)", "verdict"]
    return tabled("Table 1. The reports and the verdict of the rule" + preview(), head, rows)


def table_2(found):
    """A line a reading: both errors of the paper, of minidl and of PyTorch, the distance, the verdict."""
    rows = []
    for data in found:
        for line in data["lines"]:
            errors = line["errors"]

            def both(form):
                return number(*(form(errors[which]) for which in ("train", "test")))

            marks = [line["verdict"], *["stated"] * line["stated"], *["chosen by the test error"] * line["chosen"]]
            z = " / ".join(verdict.z_cell(errors[which]["z"]) for which in ("train", "test"))
            rows.append([
                text(data["report"]), text(verdict.name(line)), both(lambda e: verdict.paper_cell(e["paper"])),
                both(lambda e: verdict.cell(*e["minidl"][:2])), number(verdict.count(errors["test"])),
                both(lambda e: verdict.cell(*e["PyTorch"][:2])) if errors["test"]["PyTorch"] else number("-"),
                number(z), text(", ".join(filter(None, marks))),
            ])  # fmt: skip
    head = ["report", "reading", "paper, %", "minidl, %", "n (PyTorch's)", "PyTorch, %", "z", "verdict"]
    caption = "Table 2. Every reading: training / test error, mean ± standard deviation of n networks"
    legend = (
        "Paper, minidl and PyTorch: training / test error. z: our mean minus the report's in standard errors, training "
        "/ test; where the report has one run, in deviations of one run. The verdict is the "
        "rule's, stated in the section on report 000, from p after Holm's correction. "
        "Stated: takes nothing that the report does not say or leave open. Its PyTorch: held against the report's row "
        "for PyTorch. One run: the report gives one. A dash: PyTorch was not trained."
    )
    return tabled(caption + preview(), head, rows) + tag("p", html.escape(legend))


def table_3(data):
    """A line a network: a step alone, and in a stack, of minidl and of PyTorch, and their ratio."""
    rows = [
        [text(line["network"])]
        + [number(words) for how in ("alone", "stacked") for words in (
            f"{line[how]['minidl']:.0f}", f"{line[how]['PyTorch']:.0f}", speeds.ratio_cell(line[how]))]
        for line in data["lines"]
    ]  # fmt: skip
    head = ["network", "alone: minidl", "PyTorch", "ratio", f"one of {data['n']}: minidl", "PyTorch", "ratio"]
    caption = "Table 3. Microseconds a step and a network, measured in turns: medians of the rounds; the ratio is "
    return tabled(caption + "PyTorch's time over minidl's, with its least and largest round", head, rows)


def abstract(found):
    """About 150 words; the counts are those of the tables."""
    verdicts = [data["verdict"] for data in found]
    lines = [line for data in found for line in data["lines"]]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts) if v)
    out = sum(line["verdict"] == "excluded" for line in lines)
    result = f"Of {len(found)} reports, the rule finds: {counts}. It excludes {out} of {len(lines)} rows below."
    return (
        "Five student reports built small deep-learning frameworks and tested them on one task: to tell the points "
        "inside a circle from those outside. Each prints a few errors or accuracies, some of a single run, and leaves "
        "part of its configuration open. We write each report's network, loss, initialisation and optimiser in "
        "minidl, a framework whose every formula is derived by hand, and train it many times under each reading. One "
        "rule, stated before the results, excludes a reading when its mean training or test error differs from the "
        "report's at p below 0.0027, after Holm's correction. What is not excluded is compatible at best: means were "
        f"compared, not deviations. {'' if preview() else result + ' '}PyTorch trains beside minidl from the same "
        "seeds: single networks with the same loss at every step, to the last bit where the arithmetic is the same; "
        "elsewhere the first steps agree to rounding."
    )


def picture(parts):
    """The figure of the chapter, and its description."""
    cells = [cell for part in parts for cell in part.cells]
    for cell in (cell for cell in cells if chapters.PICTURE_TAG in cell.metadata.get("tags", [])):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = "Figure 1. " + output.metadata.get("image/png", {}).get("alt", "")
                image = tag("img", "", alt=alt, src="data:image/png;base64," + output.data["image/png"].strip())
                return tag("figure", image.removesuffix("</img>") + tag("figcaption", html.escape(alt)))
    return ""


def front(parts, head):
    """What stands above the sections."""
    found, times = reports(parts), handed(parts, speeds.KIND)
    contents = [tag("li", tag("a", html.escape(part.title()), href=f"#{part.name}")) for part in parts]
    return "".join([
        tag("h1", TITLE), tag("p", "The minidl authors"),
        tag("p", html.escape(PREVIEW), class_="banner") if preview() else "",
        table_1(found) if found else "",
        tag("h2", "Abstract") + tag("p", html.escape(abstract(found))) if found else "",
        tag("h2", "Contents"), tag("ol", "".join(contents)),
        picture(parts),
        tag("h2", "All readings") + table_2(found) if found else "",
        tag("h2", "Speeds") + table_3(times[0]) if times else "",
        tag("h2", "What ran"), tag("pre", html.escape("\n".join(head))),
    ])  # fmt: skip


def folded(soup):
    """Each cell's code behind a click."""
    for code in soup.select(".jp-CodeCell > .jp-Cell-inputWrapper"):
        details = soup.new_tag("details", attrs={"class": "code"})
        summary = soup.new_tag("summary")
        summary.string = "code"
        code.wrap(details)
        details.insert(0, summary)


def captioned(soup, first=2):
    """Each figure's description below it, with a number."""
    for k, image in enumerate(soup.select(".jp-OutputArea img[alt]"), first):
        caption = soup.new_tag("figcaption")
        caption.string = f"Figure {k}. {image['alt']}"
        figure = image.wrap(soup.new_tag("figure"))
        figure.append(caption)


def anchored(soup, names):
    """Identifiers, and the links to them, begin with the name of the part that they are in."""
    part = ""
    for element in soup.find_all(True):
        if element.get("id") in names:
            part = element["id"]
        elif part:
            if element.get("id"):
                element["id"] = f"{part}-{element['id']}"
            if element.get("href", "").startswith("#"):
                element["href"] = f"#{part}-{element['href'][1:]}"


def linked(soup, names):
    """A link to a part leads to its place on this page; one to another notebook, which no browser shows, is words."""
    for link in soup.select('a[href*=".ipynb"]'):
        name = pathlib.PurePosixPath(link["href"].partition("#")[0]).stem
        if name in names and "solutions" not in link["href"]:
            link["href"] = f"#{name}"
        else:
            link.unwrap()


def write(parts, cells, head, tail, target):
    """Write the page: the front, then `cells`, among them an anchor for each part, then the references."""
    chapters.page(new_notebook(cells=cells, metadata=chapters.NOTEBOOK_METADATA), target, "../chapters/")
    soup = bs4.BeautifulSoup(target.read_text(encoding="utf-8"), "html.parser")
    names = {part.name for part in parts}
    anchored(soup, names)
    linked(soup, names)
    folded(soup)
    captioned(soup)
    soup.title.string = TITLE
    soup.head.append(soup.new_tag("meta", attrs={"name": "viewport", "content": "width=device-width, initial-scale=1"}))
    style = soup.new_tag("style")
    style.string = STYLE
    soup.head.append(style)
    end = tag("h2", html.escape(tail[0])) + tag("pre", html.escape("\n".join(tail[1:]))) if tail else ""
    cited = end + tag("h2", "References") + tag("ul", "".join(tag("li", html.escape(line)) for line in REFERENCES))
    for where, words in ((0, front(parts, head)), (None, cited)):
        made = bs4.BeautifulSoup(tag("div", words, class_="front"), "html.parser")
        soup.body.insert(0, made) if where == 0 else soup.body.append(made)
    target.write_text(str(soup), encoding="utf-8")
