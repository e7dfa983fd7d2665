"""The picture that a link to the book is shown with (``og:image``): its title, and each paper's claims by verdict."""

import io
import textwrap
from collections import Counter
from collections.abc import Sequence

from xaicore.book.claims.assessment import Judgement
from xaicore.book.claims.evidence import Verdict
from xaicore.book.claims.schema import Paper
from xaicore.book.pages.citation import Book

FILE = "preview.png"
PIXELS = (1200, 630)
"""What the services that show previews ask for."""
COLOURS = {
    Verdict.REPRODUCED: "#009E73",
    Verdict.PARTLY: "#E69F00",
    Verdict.NOT_REPRODUCED: "#D55E00",
    Verdict.INCONCLUSIVE: "#999999",
    Verdict.NOT_TESTABLE: "#e6e6e6",
}


def alternative(papers: Sequence[Paper], judgements: Sequence[Judgement]) -> str:
    """Return in words what the picture shows."""
    counts = Counter(judgement.verdict for judgement in judgements)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
    return f"Bars of the claims of {len(papers)} papers by verdict; of all {len(judgements)} claims: {said}"


def preview(book: Book, papers: Sequence[Paper], judgements: Sequence[Judgement]) -> bytes:
    """Draw the picture and return it as PNG.

    Args:
        book: what ``CITATION.cff`` says.
        papers: a bar for each, in this order.
        judgements: one per claim.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dpi = 100
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(PIXELS[0] / dpi, PIXELS[1] / dpi), dpi=dpi, facecolor="white")
        FigureCanvasAgg(figure)
        title, _, rest = book.title.partition(": ")
        figure.text(0.06, 0.83, title, size=44, weight="bold")
        subtitle = textwrap.fill(rest, 62, break_on_hyphens=False)
        figure.text(0.06, 0.75, subtitle, size=20, va="top", color="#444444")
        axes = figure.add_axes((0.11, 0.16, 0.84, 0.44))
        for row, paper in enumerate(papers):
            counts = Counter(each.verdict for each in judgements if each.claim.paper == paper.id)
            left = 0
            for verdict in Verdict:
                if not counts[verdict]:
                    continue
                axes.barh(row, counts[verdict], left=left, color=COLOURS[verdict], edgecolor="white")
                axes.text(
                    left + counts[verdict] / 2, row, str(counts[verdict]), size=16, ha="center", va="center"
                )
                left += counts[verdict]
        axes.set_yticks(range(len(papers)), [paper.id.upper() for paper in papers], size=16)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.set_frame_on(False)
        patches = [mpl.patches.Patch(color=COLOURS[verdict], label=verdict) for verdict in Verdict]
        figure.legend(handles=patches, loc="lower center", ncols=len(patches), fontsize=15, frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
