"""Lays out one tree that Sphinx can build: the prose, the executed notebooks and the generated pages.

The staged tree mirrors the repository (``book/…``, ``notebooks/…``), so that a page's launch button and its download
point at the tracked source of the same name.
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import yaml

from xaicore.book.claims.schema import EDITIONS
from xaicore.book.compact import without_figures
from xaicore.book.pages.citation import Book, load_book
from xaicore.book.pages.committed import Committed
from xaicore.book.pages.findings import place_figures
from xaicore.book.pages.ledgers import claim_list, ledger_page, scoreboard
from xaicore.book.pages.measured import costs_table, place_measured
from xaicore.book.pages.opening import fold_setup, open_with_claims
from xaicore.book.pages.preview import FILE as PREVIEW
from xaicore.book.pages.preview import alternative, preview
from xaicore.book.pages.statistics import statistics_page
from xaicore.book.pages.tabs import ChapterRun, load_run, other_runs, show_editions
from xaicore.book.pages.takeaway import take_away
from xaicore.book.pages.words import fill_in, pages_of
from xaicore.book.running.editions import load_edition
from xaicore.run.records import ASSETS
from xaicore.run.repository import PublicRepository, commit

SCOREBOARD_MARK = "<!-- scoreboard -->"
CLAIMS_MARK = "<!-- claims -->"
LEDGERS_MARK = "<!-- ledgers -->"
LAUNCH_MARK = "<!-- launch -->"
COSTS_MARK = "<!-- costs: paper -->"
EXTRA = Path("book", "_extra")
"""What lies here goes to the root of the built book (``html_extra_path``)."""
LONG_CELL = 12
"""Cells of more lines are folded, so that the page tells the story and the code is one click away."""

PROVIDERS = ("github.com", "gitlab.com", "bitbucket.org")
"""Hosts that the theme knows; the paths of any other are taken to be like GitLab's."""

LAUNCH_OFF = """```{note}
This copy of the book knows of no public repository, so its pages carry no launch buttons. To turn them on, set
`Repository` under `[project.urls]` in `pyproject.toml`, or give git a remote `origin`, and build again; a GitHub workflow
knows its own.
Without it: on Colab choose *File → Upload notebook* and pick the `.ipynb` that each chapter offers for download; on
Binder paste the address of your own copy of the repository.
```"""

LAUNCH_ON = """```{{tip}}
The rocket at the top of each chapter opens its notebook on Colab or Binder, straight from <{address}>. A notebook that is
downloaded from this book carries the parameters of its page, and on Colab it installs the version that made the page.
```"""


def stage(
    root: Path,
    target: Path,
    *,
    edition: str,
    runs: Mapping[str, Path],
    committed: Committed,
    records: Mapping[str, Mapping[str, Any]],
    compared: Mapping[str, Any] | None = None,
    repository: PublicRepository | None,
) -> None:
    """Write the tree that Sphinx builds to ``target`` (replaced as a whole).

    Args:
        root: the project's folder.
        target: where to put the tree.
        edition: the edition whose runs the chapters are made of; those committed of others stand beside them.
        runs: notebook name → the executed notebook.
        committed: the papers, the evidence and the judgements.
        records: edition → notebook → record.
        compared: how each value of these runs lies to the evidence, see :func:`xaicore.book.pages.ledgers.ledger_page`.
        repository: the public one, None where there is none.
    """
    papers, judgements = committed.papers, committed.judgements
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target / "book", ignore=shutil.ignore_patterns("_toc.yml"))
    shutil.copy(root / "book" / "_toc.yml", target / "_toc.yml")
    picture = alternative(papers, judgements)
    (target / "_config.yml").write_text(_config(root, repository, picture), encoding="utf-8")
    (target / EXTRA / PREVIEW).write_bytes(preview(load_book(root), papers, judgements))

    notebooks = target / "notebooks"
    notebooks.mkdir()
    downloads = target / EXTRA / "_sources" / "notebooks"
    downloads.mkdir(parents=True)
    others = other_runs(root, edition)
    shown = {}
    for name, executed in runs.items():
        here = load_run(edition, executed.parent)
        shown[name] = sorted([here, *others.get(name, [])], key=_strength)
        page = page_notebook(here.notebook)
        nbformat.write(_installing(page, repository), downloads / f"{name}.ipynb")
        show_editions(page, here, others.get(name, []), name, target / EXTRA / "notebooks")
        papers_here = {paper.id for paper in papers if paper.notebook == name}
        mine = [each for each in judgements if each.claim.paper in papers_here]
        open_with_claims(page, mine)
        fold_setup(page)
        nbformat.write(page, notebooks / f"{name}.ipynb")
        for folder in ("tables", "figures"):
            if (executed.parent / folder).is_dir():
                shutil.copytree(executed.parent / folder, notebooks / name / folder)
        assets = executed.parent / ASSETS  # what a page's own script loads: into the built book as it is
        if assets.is_dir():
            shutil.copytree(assets, target / EXTRA / "notebooks" / name / ASSETS)

    ledgers = target / "book" / "claims"
    ledgers.mkdir(exist_ok=True)
    for paper in papers:
        (ledgers / f"{paper.id}.md").write_text(ledger_page(paper, judgements, compared), encoding="utf-8")
    statistics = target / "book" / "statistics.md"
    text = statistics_page(statistics.read_text(encoding="utf-8"), records)
    statistics.write_text(place_measured(root, text), encoding="utf-8")
    front = target / "book" / "index.md"
    _replace(front, SCOREBOARD_MARK, scoreboard(papers, judgements))
    _replace(front, CLAIMS_MARK, claim_list(papers, judgements))
    place_figures(front, shown)
    links = ", ".join(f"{{doc}}`claims/{paper.id}`" for paper in papers)
    for name in ("reading.md", "glossary.md"):
        _replace(target / "book" / name, LEDGERS_MARK, links)
    _replace(target / "book" / "paper_edition.md", COSTS_MARK, costs_table(root, load_edition(root, "paper")))
    running = target / "book" / "running.md"
    _replace(running, LAUNCH_MARK, LAUNCH_ON.format(address=repository.address) if repository else LAUNCH_OFF)
    running.write_text(place_measured(root, running.read_text(encoding="utf-8")), encoding="utf-8")
    for path in pages_of(target):
        fill_in(path, committed)
    take_away(
        root,
        target,
        target / EXTRA,
        edition=edition,
        runs=runs,
        papers=papers,
        judgements=judgements,
    )


def page_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the executed notebook as the page shows it: set-up cells folded away."""
    notebook = nbformat.from_dict(json.loads(json.dumps(notebook)))
    for cell in notebook.cells:
        tags = cell.metadata.setdefault("tags", [])
        long = cell.cell_type == "code" and len(cell.source.splitlines()) > LONG_CELL
        if long or {"parameters", "injected-parameters"} & set(tags):
            tags.append("hide-input")
        if "bootstrap" in tags:
            tags.append("remove-cell")
    return notebook


def _installing(page: nbformat.NotebookNode, repository: PublicRepository | None) -> nbformat.NotebookNode:
    """Return the notebook to download, whose first cell, on Colab, installs the package that made this page."""
    page = without_figures(page)
    values = {"_repository": repository.address, "_tag": repository.version} if repository else {}
    for cell in page.cells:
        if "bootstrap" in cell.metadata.get("tags", []):
            for name, value in values.items():
                cell.source = re.sub(
                    rf'^{name} = ".*?"', f'{name} = "{value}"', cell.source, flags=re.MULTILINE
                )
    return page


def _strength(run: ChapterRun) -> int:
    """The place of a run's edition among those that the evidence prefers; 0 is the strongest."""
    return [*EDITIONS, run.edition].index(run.edition)


def _config(root: Path, repository: PublicRepository | None, picture: str) -> str:
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    if repository:
        host = repository.address.split("/")[2]
        config["repository"] |= {"url": repository.address, "branch": repository.branch}
        config["html"]["use_repository_button"] = True
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
        }
        if host == "github.com":  # Colab opens notebooks from there alone
            config["launch_buttons"]["colab_url"] = "https://colab.research.google.com"
        elif host not in PROVIDERS:
            config["sphinx"]["config"].setdefault("html_theme_options", {})["repository_provider"] = "gitlab"
    book = load_book(root)
    config["sphinx"]["config"] |= {"version": book.version, "release": book.version}
    config["sphinx"]["config"]["book_citation"] = asdict(book) | {"authors": list(book.authors)}
    config["sphinx"]["config"]["book_picture"] = picture
    if book.url:
        config["html"]["baseurl"] = book.url.rstrip("/") + "/"
    config["html"]["extra_footer"] = _made_from(book, *commit(root), repository)
    return yaml.safe_dump(config, sort_keys=False)


def _made_from(book: Book, head: str | None, clean: bool | None, repository: PublicRepository | None) -> str:
    """Return the line at the foot of each page: version and commit of the code that made it."""
    if head is None:
        return f"<p>Version {book.version}.</p>"
    short = head[:10]
    if repository and head == repository.version:
        short = f'<a href="{repository.address}/commit/{head}">{short}</a>'
    return f"<p>Version {book.version}, commit {short}{'' if clean else ', with changes since'}.</p>"


def _replace(page: Path, mark: str, content: str) -> None:
    text = page.read_text(encoding="utf-8")
    if mark not in text:
        raise ValueError(f"{page.name} has no line {mark}")
    page.write_text(text.replace(mark, content), encoding="utf-8")
