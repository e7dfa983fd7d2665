"""The page's table of what works on what, entry by entry; the page reads the same function."""

import json
from pathlib import Path

import pandas as pd
import pytest

from xaicore.attribution import METHODS
from xaicore.studies.support import CALLS, KINDS, support

LRP = ("LRP preset-a-flat", "CLRP", "SGLRP")
GUIDED = ("guided backpropagation", "Guided Grad-CAM")
REFUSED = {
    **{("torch.compile", title): "scripted or compiled" for title in ("DeepLIFT", "Grad-CAM", *GUIDED)},
    ("half precision (bfloat16)", "attacks"): "float32",
    **{(kind, title): "rule for ReLUs" for kind in ("GELU", "SiLU") for title in GUIDED},
    **{("PReLU", title): "calls PReLU" for title in GUIDED},
    **{("PReLU", title): "deep Taylor decomposition .* \\(PReLU\\)" for title in LRP[1:]},
    **{("GELU", title): r"\(GELU\)" for title in LRP},
    **{("SiLU", title): r"\(SiLU\)" for title in LRP},
    **{("LayerNorm", title): r"\(LayerNorm\)" for title in LRP},
    **{("attention", title): "no rule" for title in LRP},
    **{(kind, "DeepLIFT"): "'layer_norm'" for kind in ("LayerNorm", "attention")},
}


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    return support()


def test_every_method_stands_beside_every_kind(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    works, _ = tables
    assert list(works.network) == list(KINDS)
    assert list(works.columns) == ["network", *CALLS]
    assert len(CALLS) == len(METHODS) + 1


def test_what_does_not_work_is_refused_for_its_reason(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    works, listed = tables
    reasons = dict(zip(listed.number, listed.reason, strict=True))
    found = {
        (row["network"], title): reasons[row[title]]
        for _, row in works.iterrows()
        for title in CALLS
        if row[title] != "yes"
    }
    assert found.keys() == REFUSED.keys()
    for place, reason in found.items():
        assert not reason.startswith("fails"), place
        assert "\n" not in reason
        assert pd.Series(reason).str.contains(REFUSED[place]).all(), (place, reason)
    assert set(reasons.values()) == set(found.values())


def test_the_page_shows_the_table() -> None:
    notebook = json.loads(Path("notebooks/explanations.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert any('show("explanations.support", works)' in source for source in sources)
