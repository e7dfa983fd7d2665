"""An RO-Crate of result files: what each is, how large and of which type, so that machines and archives can take them.

RO-Crate 1.1, https://w3id.org/ro/crate/1.1: ``ro-crate-metadata.json`` in the folder that it describes.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xaicore.book.pages.citation import Book

FILE = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/crate/1.1"
LICENSE = "https://creativecommons.org/licenses/by/4.0/"
MEDIA_TYPES = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".ipynb": "application/x-ipynb+json",
}


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
    described = [_file(folder, path) for path in sorted(files)]
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
    descriptor = {"@id": FILE, "@type": "CreativeWork", **about}
    graph = [descriptor, root, license, *authors, *described]
    return (
        json.dumps({"@context": f"{PROFILE}/context", "@graph": graph}, indent=1, ensure_ascii=False) + "\n"
    )


def _file(folder: Path, path: Path) -> dict[str, Any]:
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
