"""The page's table of what works on what, entry by entry; the page reads the same function."""

import json
from pathlib import Path

import pandas as pd
import pytest

from xaicore.attribution import METHODS
from xaicore.studies.architectures import ARCHITECTURES
from xaicore.studies.support import CALLS, KINDS, SUMS, WORKS, support

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]
LRP = ("LRP preset-a-flat", "CLRP", "SGLRP")
CONTRAST = ("CLRP", "SGLRP")
GUIDED = ("guided backpropagation", "Guided Grad-CAM")
VIT, CONVNEXT, EFFICIENTNET, MOBILENET, SWIN = ARCHITECTURES
REFUSED = {
    **{("torch.compile", title): "scripted or compiled" for title in ("DeepLIFT", "Grad-CAM", *GUIDED)},
    ("half precision (bfloat16)", "attacks"): "float32",
    **{
        (kind, title): "rule for ReLUs"
        for kind in ("GELU", "SiLU", VIT, CONVNEXT, EFFICIENTNET, SWIN)
        for title in GUIDED
    },
    **{("PReLU", title): "calls PReLU" for title in GUIDED},
    **{
        (kind, title): "'deep-taylor-bounded' of lrp has no rule for .*, an activation"
        for kind in ("GELU", "SiLU", "PReLU", EFFICIENTNET, MOBILENET)
        for title in CONTRAST
    },
    **{
        (kind, title): "no rule for .*, a normalisation"
        for kind in ("LayerNorm", "attention", VIT, CONVNEXT)
        for title in LRP
    },
    **{(kind, "DeepLIFT"): "'layer_norm'" for kind in ("LayerNorm", "attention", VIT, CONVNEXT, SWIN)},
    **{(kind, "DeepLIFT"): "'mul'" for kind in (EFFICIENTNET, MOBILENET)},
    **{(SWIN, title): "'shifted_window_attention'" for title in (*LRP, "LRP epsilon")},
    (SWIN, "Grad-CAM"): "attention .* after the last convolution",
}


@pytest.fixture(scope="module")
def tables() -> Tables:
    return support()


def test_every_method_stands_beside_every_kind(tables: Tables) -> None:
    works, sums, _ = tables
    assert list(works.network) == list(KINDS)
    assert list(works.columns) == ["network", *CALLS]
    assert len(CALLS) == len(METHODS) + 2
    assert list(sums.network) == list(ARCHITECTURES)
    assert list(sums.columns) == ["network", *SUMS]


def test_what_does_not_work_is_refused_for_its_reason(tables: Tables) -> None:
    works, sums, listed = tables
    reasons = dict(zip(listed.number, listed.reason, strict=True))
    found = {
        (row["network"], title): reasons[row[title]]
        for _, row in works.iterrows()
        for title in CALLS
        if row[title] != WORKS
    }
    assert found.keys() == REFUSED.keys()
    for place, reason in found.items():
        assert not reason.startswith("fails"), place
        assert "\n" not in reason
        assert pd.Series(reason).str.contains(REFUSED[place]).all(), (place, reason)
    numbers = {cell for cell in sums[list(SUMS)].to_numpy().ravel() if cell.isdigit()}
    assert set(reasons.values()) == {*found.values(), *(reasons[number] for number in numbers)}
    assert not any(reason.startswith("fails") for reason in reasons.values())


def test_what_adds_up_is_exact_where_no_softmax_takes_its_part(tables: Tables) -> None:
    sums = tables[1].set_index("network")
    for kind in (CONVNEXT, EFFICIENTNET, MOBILENET):
        assert sums["LRP z"][kind] == "exact"
    assert sums["LRP z"][VIT].startswith("within")
    assert sums["LRP flat"][EFFICIENTNET] == "exact"
    assert sums["LRP z"][SWIN].isdigit()
    for title in ("LRP flat", "LRP alpha1-beta0", "LRP deep-taylor"):
        assert sums[title][VIT].isdigit()


def test_the_page_shows_the_tables() -> None:
    notebook = json.loads(Path("notebooks/explanations.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for shown in ('show("explanations.support", works)', 'show("explanations.support_sums", sums)'):
        assert any(shown in source for source in sources)
