"""What pages call the attacks of :data:`xaicore.attacks.ATTACKS` that they compare.

They stand apart from the attacks themselves: another title must not change the address of what was computed.
"""

TITLES = {
    "fgsm": "FGSM",
    "bim": "BIM",
    "mim": "MIM",
    "pgd": "PGD",
    "cw_l2": "CW L2",
    "cw_linf": "CW L∞",
    "cw_l0": "CW L0",
    "boundary": "boundary",
    "dlfuzz": "DLFuzz",
}
