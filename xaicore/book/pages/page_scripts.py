"""A Sphinx extension: pages load each script once, and none that the book has no use for.

Jupyter Book adds the scripts of its extensions twice, and Thebe, which runs cells on a server elsewhere, declares
constants that must not be declared again: every page would greet the reader's console with an error.
"""

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


def needed_once(context: dict[str, Any], key: str) -> list[Any]:
    """Return the files of ``context[key]`` without those of Thebe and without repetitions, in their order."""
    kept: dict[tuple[str, Any], Any] = {}
    for file in context.get(key, []):
        identity = (str(getattr(file, "filename", file)), getattr(file, "attributes", {}).get("body"))
        if not any(UNUSED in str(part).lower() for part in identity):
            kept.setdefault(identity, file)
    return list(kept.values())


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""

    def tidy(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
        for key in ("script_files", "css_files"):
            context[key] = needed_once(context, key)

    def share(app: Any, config: Any) -> None:
        for name in SAFE_BUT_SILENT:
            if name in app.extensions:
                app.extensions[name].parallel_read_safe = True

    app.connect("config-inited", share)
    app.add_js_file(None, body=FOLLOW_THE_SYSTEM)
    app.add_js_file(None, body=NO_EXCERPTS_IN_A_FOLDER)
    app.connect("html-page-context", tidy, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
