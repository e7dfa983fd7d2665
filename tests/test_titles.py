"""Titles: everything that a page can be told to compare has one, and no two on a page have the same."""

from collections.abc import Mapping

import pytest

from xaicore.attacks import ATTACKS
from xaicore.attribution import METHODS
from xaicore.attribution.titles import TITLES as METHOD_TITLES
from xaicore.detectors import EXPLANATIONS
from xaicore.run import explorer_page
from xaicore.run.params.arena import SHIFTED_EXPLANATIONS
from xaicore.run.params.chapter3 import OTHERS
from xaicore.run.params.checks import SIZED_ATTACKS
from xaicore.run.params.explorer import SHOWN_EXPLANATIONS
from xaicore.studies import arena

ATTACK_TITLES = {name: attack.title for name, attack in ATTACKS.items()}


def test_every_method_and_every_explanation_of_the_detector_has_a_title() -> None:
    assert set(METHOD_TITLES) == {*METHODS, *EXPLANATIONS}


def test_what_parameters_can_choose_has_a_title() -> None:
    assert {"dlfuzz", *OTHERS, *SIZED_ATTACKS} <= set(ATTACKS)
    assert set(SIZED_ATTACKS) <= set(arena.TITLES)
    assert set(SHIFTED_EXPLANATIONS) <= set(METHOD_TITLES)
    assert {*SIZED_ATTACKS, *SHOWN_EXPLANATIONS} <= set(explorer_page.TITLES)


@pytest.mark.parametrize("titles", [ATTACK_TITLES, METHOD_TITLES])
def test_no_two_have_the_same(titles: Mapping[str, str]) -> None:
    assert len(set(titles.values())) == len(titles)
