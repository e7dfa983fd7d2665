"""Mathematics of the EPUB as MathML, which readers of books show without scripts.

docutils converts it from LaTeX. On the web pages and in the PDF MathJax does.
"""

import html
import re

from docutils.utils.math import latex2mathml

_UNKNOWN = {
    r"\\dots\b": r"\\ldots",
    r"\\iff\b": r"\\Longleftrightarrow",
    r"\\(big|Big)\b": r"\\\1l",
    r"\\(?:begin|end)\{split\}": "",  # around an aligned, where it changes nothing
    r"\\(?:text|display)style\b": "",  # of which it takes one at the head of a group only
}
"""What the book uses and docutils doesn't know, with what it does."""
_NAMED = re.compile(r"&(?!amp;|lt;|gt;|quot;)\w+;")
"""Characters by name, which the XML of an EPUB doesn't know."""


def mathml(latex: str, *, block: bool) -> str:
    """Return a formula as a ``<math>`` element.

    Raises:
        docutils.utils.math.MathError: docutils does not know a command in it.
    """
    latex = "{}" + latex if latex.lstrip().startswith(("^", "_")) else latex
    for unknown, known in _UNKNOWN.items():
        latex = re.sub(unknown, known, latex)
    lines = latex2mathml.tex2mathml(latex, as_block=block)
    text = lines if isinstance(lines, str) else "".join(lines)
    return _NAMED.sub(lambda name: html.unescape(name[0]), text)
