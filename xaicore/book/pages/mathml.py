"""Mathematics of the EPUB as MathML, which readers of books show without scripts; a Sphinx extension.

docutils converts it from LaTeX. In the HTML book MathJax does.
"""

import html
import re
from typing import Any

from docutils.utils.math import latex2mathml

_DOTS = re.compile(r"\\dots\b")  # the one command of the book that docutils doesn't know
_STYLE = re.compile(r"\\(?:text|display)style\b")  # of which it takes one at the head of a group only
_NAMED = re.compile(r"&(?!amp;|lt;|gt;|quot;)\w+;")
"""Characters by name, which the XML of an EPUB doesn't know."""


def mathml(latex: str, *, block: bool) -> str:
    """Return a formula as a ``<math>`` element.

    Raises:
        docutils.utils.math.MathError: docutils does not know a command in it.
    """
    latex = "{}" + latex if latex.lstrip().startswith(("^", "_")) else latex
    lines = latex2mathml.tex2mathml(_DOTS.sub(r"\\ldots", _STYLE.sub("", latex)), as_block=block)
    text = lines if isinstance(lines, str) else "".join(lines)
    return _NAMED.sub(lambda name: html.unescape(name[0]), text)


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    from docutils import nodes

    def inline(writer: Any, node: nodes.math) -> None:
        writer.body.append(mathml(node.astext(), block=False))
        raise nodes.SkipNode

    def block(writer: Any, node: nodes.math_block) -> None:
        writer.body.append(f'<div class="math">{mathml(node.astext(), block=True)}</div>')
        raise nodes.SkipNode

    def choose(app: Any) -> None:
        if app.builder.name == "epub":
            app.config.html_math_renderer = "mathml"

    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("builder-inited", choose, priority=1)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
