"""What a reader can take away from the built book: the files behind each page, the claims as data, and how to cite it.

The files lie where no edition of the book moves them: ``data/<edition>/<notebook>/`` has the committed evidence of an
edition and ``data/this-run/<notebook>/`` the run that the pages are made of, each with ``record.json``,
``outcomes.csv.gz`` (of each image, where the runs have them) and ``tables/``, the evidence also with ``evidence.json``
and, where it is committed, ``notebook.ipynb`` without its figures, which the page has. Tables of more than
:data:`LARGE` bytes are compressed. At the root are ``claims.json`` (:mod:`xaicore.book.pages.claims_data`) and
``ro-crate-metadata.json``, which says of each file what it is, how large and of which type, so that machines and archives
can take them: an RO-Crate 1.1, https://w3id.org/ro/crate/1.1.
"""

from __future__ import annotations

import gzip
import html
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from xaicore.book.claims.assessment import Judgement
from xaicore.book.claims.schema import EDITIONS, Paper
from xaicore.book.compact import machine_paths, without_figures, without_paths
from xaicore.book.pages.citation import Book, bibtex, load_book, sentence
from xaicore.book.pages.claims_data import CLAIMS, DATA, claims_data, linked_data
from xaicore.book.running.run_folder import NOTEBOOK, STATUS
from xaicore.run.evidence import EVIDENCE, KEPT_OUTCOMES, OUTCOMES, load_evidence
from xaicore.run.recorded import FILE

THIS_RUN = "this-run"
LARGE = 50_000
TITLE = "Take it home"

CRATE = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/crate/1.1"
LICENSE = "https://creativecommons.org/licenses/by/4.0/"
MEDIA_TYPES = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".ipynb": "application/x-ipynb+json",
}

WORDS = {
    FILE: "record",
    EVIDENCE: "evidence",
    KEPT_OUTCOMES: "outcomes of each image",
    NOTEBOOK: "executed notebook without its figures",
}
"""File → what its link says."""


@dataclass(frozen=True)
class Offer:
    """Files of one edition behind a page: what the edition is called there, and word → address from the book's root."""

    title: str
    files: Mapping[str, str]
    tables: Mapping[str, str]


def take_away(
    root: Path,
    target: Path,
    extra: Path,
    *,
    edition: str,
    runs: Mapping[str, Path],
    papers: Sequence[Paper],
    judgements: Sequence[Judgement],
) -> None:
    """Lay the files out and offer them, with a citation, at the end of each chapter and ledger of a staged tree.

    Args:
        root: the project's folder.
        target: the staged tree.
        extra: the folder in it that goes to the root of the built book.
        edition: the edition whose runs the chapters are made of.
        runs: notebook name → the executed notebook.
        papers: the papers.
        judgements: one per claim.
    """
    book, data = load_book(root), extra / DATA
    paths = machine_paths(root)
    committed = {
        name: [
            _offer_committed(folder, data / other / name, other, paths)
            for other in EDITIONS
            if (folder := root / "results" / other / name).joinpath(FILE).is_file()
        ]
        for name in runs
    }
    for name, executed in runs.items():
        offers = [*committed[name], _offer_run(executed.parent, data / THIS_RUN / name, edition, paths)]
        page = target / "notebooks" / f"{name}.ipynb"
        notebook = nbformat.read(page, as_version=4)
        text = _block(offers, book, page_title(notebook.cells[0].source), name, up="../")
        notebook.cells.append(nbformat.v4.new_markdown_cell(text, id="take-it-home"))
        nbformat.write(notebook, page)
    for paper in papers:
        page = target / "book" / "claims" / f"{paper.id}.md"
        text = page.read_text(encoding="utf-8")
        block = _block(
            committed.get(paper.notebook, []), book, page_title(text), f"{paper.id}-ledger", up="../../"
        )
        data_of = f"```{{raw}} html\n{linked_data(paper, judgements)}\n```"
        page.write_text(f"{text.rstrip()}\n\n{block}\n\n{data_of}\n", encoding="utf-8")

    claims = json.dumps(claims_data(papers, judgements), indent=1, ensure_ascii=False, allow_nan=False)
    (extra / CLAIMS).write_text(claims + "\n", encoding="utf-8")
    described = [extra / CLAIMS, *(path for path in data.rglob("*") if path.is_file())]
    (extra / CRATE).write_text(crate(extra, described, book, day=_day(root, runs)), encoding="utf-8")


def _offer_committed(folder: Path, target: Path, edition: str, paths: Mapping[str, str]) -> Offer:
    """Copy what is committed of a notebook in an edition."""
    evidence = load_evidence(folder)
    _write_json(target / EVIDENCE, evidence, paths)
    _write_json(target / FILE, json.loads((folder / FILE).read_text(encoding="utf-8")), paths)
    if (folder / KEPT_OUTCOMES).is_file():
        shutil.copy(folder / KEPT_OUTCOMES, target)
    if (folder / NOTEBOOK).is_file():
        nbformat.write(without_figures(nbformat.read(folder / NOTEBOOK, as_version=4)), target / NOTEBOOK)
    runs = len(evidence["seeds"])
    title = f"Evidence: {edition} edition ({runs} run{'s' * (runs != 1)})"
    return _offer(title, folder, target)


def _offer_run(folder: Path, target: Path, edition: str, paths: Mapping[str, str]) -> Offer:
    """Copy what a run has left; its notebook is the page's own download."""
    _write_json(target / FILE, json.loads((folder / FILE).read_text(encoding="utf-8")), paths)
    if (folder / OUTCOMES).is_file():
        (target / KEPT_OUTCOMES).write_bytes(gzip.compress((folder / OUTCOMES).read_bytes(), mtime=0))
    offer = _offer(f"This run: {edition} edition", folder, target)
    notebook = {WORDS[NOTEBOOK]: f"_sources/notebooks/{target.name}.ipynb"}
    return Offer(offer.title, {**offer.files, **notebook}, offer.tables)


def _offer(title: str, folder: Path, target: Path) -> Offer:
    """Copy the tables, and list all that there is now."""
    base = target.relative_to(target.parent.parent.parent).as_posix()
    tables = {}
    for table in sorted((folder / "tables").glob("*.csv")):
        content, file = table.read_bytes(), f"tables/{table.name}"
        if len(content) > LARGE:
            content, file = gzip.compress(content, mtime=0), f"{file}.gz"
        (target / file).parent.mkdir(exist_ok=True)
        (target / file).write_bytes(content)
        tables[table.stem] = f"{base}/{file}"
    files = {word: f"{base}/{name}" for name, word in WORDS.items() if (target / name).is_file()}
    return Offer(title, files, tables)


def _write_json(path: Path, content: Any, paths: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = without_paths(content, paths)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8")


def _block(offers: Sequence[Offer], book: Book, title: str, key: str, *, up: str) -> str:
    """Return the section at a page's end, in MyST. ``up`` leads from the page to the book's root."""

    def link(word: str, address: str) -> str:
        return f'<a href="{up}{html.escape(address)}">{html.escape(word)}</a>'

    def listed(files: Mapping[str, str]) -> str:
        return " · ".join(link(*file) for file in files.items())

    terms = {}
    for offer in offers:
        terms[offer.title] = listed(offer.files)
        if offer.tables:
            count = f"{len(offer.tables)} table{'s' * (len(offer.tables) != 1)}"
            terms[offer.title] += f"<details><summary>{count}</summary>{listed(offer.tables)}</details>"
    terms["All claims of the book as data"] = (
        f"{link(CLAIMS, CLAIMS)} · {link('RO-Crate of all files', CRATE)}"
    )
    terms["Cite this page"] = html.escape(
        f"{sentence(book, title)} Please cite the papers as well.", quote=False
    )
    entries = [f"<dt>{html.escape(term)}</dt><dd>{text}</dd>" for term, text in terms.items()]
    lines = [f"## {TITLE}", "", "````{raw} html", '<dl class="take-home">', *entries, "</dl>", "````", ""]
    lines += ["````{dropdown} BibTeX", "```bibtex", bibtex(book, title, key), "```", "````"]
    return "\n".join(lines)


def page_title(text: str) -> str:
    """Return the title of a page in Markdown."""
    return next(line for line in text.splitlines() if line.startswith("# ")).removeprefix("# ").strip()


def _day(root: Path, runs: Mapping[str, Path]) -> str:
    """Return the day of the newest run that has a status."""
    statuses = [*(root / "results").glob(f"*/*/{STATUS}"), *(path.parent / STATUS for path in runs.values())]
    return max(json.loads(path.read_text(encoding="utf-8"))["when"] for path in statuses)[:10]


def crate(folder: Path, files: Iterable[Path], book: Book, *, day: str) -> str:
    """Return the metadata of a crate.

    Args:
        folder: the crate's root.
        files: the files in it that it describes.
        book: whose results they are.
        day: when the newest of them was made, ``2026-11-22``.

    Raises:
        ValueError: a file is of a kind without a media type in :data:`MEDIA_TYPES`.
    """
    described = [_described(folder, path) for path in sorted(files)]
    authors: list[dict[str, Any]] = [
        {"@id": f"#author-{k}", "@type": "Organization" if "name" in author else "Person", "name": name}
        for k, (author, name) in enumerate(zip(book.authors, book.names, strict=True), start=1)
    ]
    license = {"@id": LICENSE, "@type": "CreativeWork", "name": "CC BY 4.0"}
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Results of {book.title}",
        "description": "For each edition and notebook: the values with their intervals, tables, outcomes of single "
        "images and the executed notebook.",
        "datePublished": day,
        "license": {"@id": LICENSE},
        "author": [{"@id": author["@id"]} for author in authors],
        "hasPart": [{"@id": item["@id"]} for item in described],
    }
    root |= {"version": book.version} if book.version else {}
    about = {"conformsTo": {"@id": PROFILE}, "about": {"@id": "./"}}
    descriptor = {"@id": CRATE, "@type": "CreativeWork", **about}
    graph = [descriptor, root, license, *authors, *described]
    return (
        json.dumps({"@context": f"{PROFILE}/context", "@graph": graph}, indent=1, ensure_ascii=False) + "\n"
    )


def _described(folder: Path, path: Path) -> dict[str, Any]:
    kind = MEDIA_TYPES.get(path.suffix)
    if kind is None:
        raise ValueError(f"{path.name}: no media type is known for {path.suffix or 'it'}")
    name = path.relative_to(folder).as_posix()
    return {
        "@id": name,
        "@type": "File",
        "name": name.removeprefix("data/"),
        "contentSize": str(path.stat().st_size),
        "encodingFormat": kind,
    }
