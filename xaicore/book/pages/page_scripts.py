"""A Sphinx extension: pages load each script once, and none that the book has no use for.

Jupyter Book adds the scripts of its extensions twice, and Thebe, which runs cells on a server elsewhere, declares
constants that must not be declared again: every page would greet the reader's console with an error. The theme has each
page load 1.5 MB of icons as a script, which its style sheet takes from a font where that script is not there, the rules
of 1,900 icons of which it shows twenty, and the index of the search, which only the search page asks. Nor do the pages of
source code hold modules of Python's own, from which a documented alias or cached property comes.
"""

import re
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

UNUSED = "thebe"
FOLLOW_THE_SYSTEM = "document.documentElement.dataset.mode ||= 'auto';"
"""Before a reader has chosen light or dark. The theme's own setting for it leaves pages without scripts uncoloured."""
NO_EXCERPTS_IN_A_FOLDER = (
    "if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;"
)
"""The search cuts its excerpts out of the pages it finds, which a browser lets it load from a server only."""
SAFE_BUT_SILENT = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")
"""Extensions that do not say whether processes may share the reading. One numbers sections when all pages are read, the
other changes pages one by one and keeps nothing."""

ICONS = r"scripts/fontawesome\.js"
SEARCH = r"searchtools\.js|language_data\.js|searchindex\.js"
SEARCH_PAGE = "search.html"
PLAIN = re.compile(r'<span class="(?:n|nn|p|w)">([^<]*)</span>')
"""Names, punctuation and spaces of code, a third of its bytes, in the colour of all text."""
ICON = re.compile(r'(?:\.fa-[\w-]+:before,?)+{content:"[^"]*"}')
"""A rule of the style sheet for an icon, under all its names."""
UNREAD = ("scripts/fontawesome.js", "vendor/fontawesome/webfonts/*.ttf", "**/*.map", "locales/**/*.[mp]o")
"""Files under ``_static`` that no page loads: the icons' script, fonts for browsers before WOFF 2, maps for the theme's
developers and its translations."""


def needed_once(context: dict[str, Any], key: str) -> list[Any]:
    """Return the files of ``context[key]`` without those of Thebe and without repetitions, in their order."""
    kept: dict[tuple[str, Any], Any] = {}
    for file in context.get(key, []):
        identity = (str(getattr(file, "filename", file)), getattr(file, "attributes", {}).get("body"))
        if not any(UNUSED in str(part).lower() for part in identity):
            kept.setdefault(identity, file)
    return list(kept.values())


def without_scripts(page: str, names: str) -> str:
    """Return a page without the scripts whose file names a regular expression matches."""
    return re.sub(rf'\s*<script[^>]* src="[^"]*(?:{names})[^"]*"></script>', "", page)


def lighten(app: Any, error: Exception | None) -> None:
    """Take from the built book what its pages have no use for."""
    if error is not None:
        return
    built, shown = Path(app.outdir), set()
    for path in built.rglob("*.html"):
        unused = ICONS if path == built / SEARCH_PAGE else f"{ICONS}|{SEARCH}"
        page = without_scripts(path.read_text(encoding="utf-8"), unused)
        path.write_text(PLAIN.sub(r"\1", page), encoding="utf-8")
        shown.update(re.findall(r"\bfa-[\w-]+", page))
    for pattern in UNREAD:
        for path in (built / "_static").glob(pattern):
            path.unlink()
    for path in (built / "_static").rglob("*.js"):
        shown.update(re.findall(r"\bfa-[\w-]+", path.read_text(encoding="utf-8")))
    for path in (built / "_static").rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        path.write_text(ICON.sub(lambda rule: _if_shown(rule[0], shown), style), encoding="utf-8")


def _if_shown(rule: str, shown: set[str]) -> str:
    return rule if shown.intersection(re.findall(r"fa-[\w-]+", rule)) else ""


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""

    def tidy(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
        for key in ("script_files", "css_files"):
            context[key] = needed_once(context, key)

    def share(app: Any, config: Any) -> None:
        for name in SAFE_BUT_SILENT:
            if name in app.extensions:
                app.extensions[name].parallel_read_safe = True

    def stay_inside(app: Any, module: str, name: str) -> str | None:
        """Return the module that shows a name's source: where it was documented, if it comes from elsewhere."""
        try:
            home = attrgetter(name)(sys.modules[module]).__module__
        except (AttributeError, KeyError):
            return module
        return None if home.startswith("xaicore.") else module

    app.connect("viewcode-follow-imported", stay_inside)
    app.connect("config-inited", share)
    app.add_js_file(None, body=FOLLOW_THE_SYSTEM)
    app.add_js_file(None, body=NO_EXCERPTS_IN_A_FOLDER)
    app.connect("html-page-context", tidy, priority=900)
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
