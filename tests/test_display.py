"""Tables as the pages show them."""

import math

import numpy as np
import pandas as pd

from xaicore.figures import display


def test_numbers_have_the_digits_that_mean_something() -> None:
    frame = pd.DataFrame(
        {
            "whole": [467.0, math.nan, 50176.0],
            "mixed": [1.5, 0.0, 0.00012345],
            "large": [np.float64(1234.5), math.inf, 132837952420.68],
            "least": [0.5, 0.25, -math.inf],
            "count": [3, 12, 150528],
        }
    )
    html = display.table(frame).data
    assert '<td class="number">467</td>' in html
    assert '<td class="number">–</td>' in html
    assert '<td class="number">50\u2009176</td>' in html
    for text in ("1.50", "0.00", "0.00012", "1234.50", "∞", "−∞", "1.33e+11", "150\u2009528"):
        assert f">{text}</td>" in html
    assert "words" not in html


def test_words_stand_left_and_intervals_right() -> None:
    frame = pd.DataFrame(
        {"attack": ["fgsm", "–"], "success (%)": ["33 [8, 58]", "100 [76, 100]"], "met": [True, False]}
    )
    html = display.table(frame).data
    assert (
        '<th class="words">attack</th><th class="number">success (%)</th><th class="words">met</th>' in html
    )
    assert '<td class="words">yes</td>' in html
    assert '<td class="number">33 <span class="interval">[8, 58]</span></td>' in html
    signed = display.table(pd.DataFrame({"a": ["-1.2 [-3.0, 0.5]"], "b": [-0.5], "c": ["a-b"]})).data
    mixed = display.table(pd.DataFrame({"a": ["the source", "8.3 [-1.7, 18.3]"]})).data
    assert '<td class="words">8.3 <span class="interval">[−1.7, 18.3]</span></td>' in mixed
    assert '<td class="number">−1.2 <span class="interval">[−3.0, 0.5]</span></td>' in signed
    assert '<td class="number">−0.500</td><td class="words">a-b</td>' in signed
    pair = display.table(pd.DataFrame({"ms": ["434 : 4.54e+03"], "name": ["shannon_entropy: a"]})).data
    assert '<td class="number">434 <span class="interval">: 4.54e+03</span></td>' in pair
    assert '<td class="words">shannon_<wbr>entropy: a</td>' in pair
    assert 'class="dataframe"' in html
    wide = pd.DataFrame([[0.5] * display.WIDE])
    assert 'class="dataframe wide"' in display.table(wide).data
    crowded = pd.DataFrame([["0.5 [0.1, 0.9]"] * (display.CROWDED // 2)])
    assert 'class="dataframe wide"' in display.table(crowded).data
    assert 'class="dataframe"' in display.table(crowded.iloc[:, 1:]).data
    widest = pd.DataFrame([[0.5] * display.WIDEST])
    assert 'class="dataframe wide widest"' in display.table(widest).data


def test_text_is_escaped_and_empty_tables_are_tables() -> None:
    assert "&lt;b&gt;" in display.table(pd.DataFrame({"a<b": ["<b>"]})).data
    empty = display.table(pd.DataFrame({"a": [], "b": []})).data
    assert empty.count("<th") == 2 + 1  # and <thead>
    assert "<td" not in empty


def test_provenance_names_data_and_weights() -> None:
    source = {
        "device": "cpu",
        "threads": 1,
        "seconds": 2.5,
        "peak_memory_bytes": 3 * 2**20,
        "packages": {"torch": "2.0"},
        "data": [{"name": "mnist-5k", "split": "test", "fingerprint": "a" * 64}],
        "models": [{"label": "digits", "fingerprint": "b" * 64}],
    }
    html = display.provenance(source).data
    assert f">{'a' * 16}</td>" in html
    assert "weights, digits" in html
    assert ">3</td>" in html


def test_a_long_table_is_folded() -> None:
    short, long_ = (pd.DataFrame({"layer": range(count)}) for count in (display.LONG, display.LONG + 1))
    assert display.folded(short).data == display.table(short).data
    found = display.folded(long_).data
    assert found.startswith(f"<details><summary>{display.LONG + 1} rows</summary>")
    assert display.table(long_).data in found
