"""The range of a recorded number without a unit, where its name says that it is a share: AUROC, NDCG, IoU, MOD."""

import re

_SHARE = re.compile(r"(?:\b|_)(?:auroc|failure|iou|mod|ndcg|score|separation|spread)(?:\b|_)|\.p$")
_NONE = re.compile(r"(?:\b|_)(?:gap|gain|change|difference|ratio|lead|agreement|classes)(?:\b|_)")
"""Names of differences, ratios and counts of such numbers."""


def range_unit(id: str, unit: str | None) -> str | None:
    """Return the unit (:data:`xaicore.core.units.UNITS`) whose range the value of an id is in.

    Args:
        id: such as ``p5.auroc.explainer.bim``.
        unit: that it was recorded with; it goes before the name.
    """
    return "share" if unit is None and _SHARE.search(id) and not _NONE.search(id) else unit
