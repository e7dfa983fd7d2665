"""What is compared with what, as data: attack, subject, equal settings, and the peers with their names for them.

The settings of a comparison are the same numbers on both sides wherever both sides have them: the variant
``equal``. Beside it, ``default`` is what our attack does by itself (stopping each image when it is done, a
search of its own), and ``shorter`` a budget of ours that is smaller than the peer's although the distances
found are not larger.
"""

from typing import Any

from benchmarks.comparison import Comparison, Peer

EPS = 0.15
EPS_PHOTOGRAPHS = 0.5 / 255
POPULATION = 60
GENERATIONS = 10


def _stopping(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"equal": {**settings, "early_stop": False}, "default": settings}


def _gradient(subject: str, images: int, eps: float, l2: float) -> list[Comparison]:
    """The gradient attacks within a budget, ten steps each."""
    steps, step, l2_step = 10, eps / 4, l2 / 4
    foolbox = {"eps": eps, "steps": steps, "abs_stepsize": step}
    torch = {"eps": eps, "alpha": step, "steps": steps}
    art = {"eps": eps, "eps_step": step, "max_iter": steps}
    peers = {
        "fgsm": (
            Peer("foolbox", "FGSM", {"eps": eps}, goal=1),
            Peer("torchattacks", "FGSM", {"eps": eps}),
            Peer("art", "FastGradientMethod", {"eps": eps}),
        ),
        "bim": (
            Peer("foolbox", "LinfBasicIterativeAttack", {**foolbox, "random_start": False}, goal=1),
            Peer("torchattacks", "BIM", torch),
            Peer("art", "BasicIterativeMethod", art),
        ),
        "mim": (
            Peer("foolbox", "MIFGSM", foolbox, goal=1, note="it does not normalise the gradients it sums"),
            Peer("torchattacks", "MIFGSM", torch),
            Peer("art", "MomentumIterativeMethod", art),
        ),
        "pgd_linf": (
            Peer("foolbox", "LinfPGD", foolbox, goal=1),
            Peer("torchattacks", "PGD", torch),
            Peer("art", "ProjectedGradientDescentPyTorch", {**art, "num_random_init": 1}),
        ),
        "pgd_l2": (
            Peer("foolbox", "L2PGD", {"eps": l2, "steps": steps, "abs_stepsize": l2_step}, goal=1),
            Peer("torchattacks", "PGDL2", {"eps": l2, "alpha": l2_step, "steps": steps}),
            Peer(
                "art",
                "ProjectedGradientDescentPyTorch",
                {"norm": 2, "eps": l2, "eps_step": l2_step, "max_iter": steps, "num_random_init": 1},
            ),
        ),
    }
    stepping = {"eps": eps, "steps": steps, "step_size": step}
    settings: dict[str, dict[str, Any]] = {
        "fgsm": {"eps": eps},
        "bim": stepping,
        "mim": stepping,
        "pgd_linf": {"norm": "linf", **stepping},
        "pgd_l2": {"norm": "l2", "eps": l2, "steps": steps, "step_size": l2_step},
    }
    return [
        Comparison(
            name,
            name.split("_")[0],
            subject,
            images,
            "l2" if name == "pgd_l2" else "linf",
            {"equal": ours} if name == "fgsm" else _stopping(ours),
            peers[name],
            draws=8 if name.startswith("pgd") and subject == "digits" else 1,
        )
        for name, ours in settings.items()
    ]


DIGITS = _gradient("digits", 64, EPS, 2.0)
PHOTOGRAPHS = [
    c for c in _gradient("photographs", 8, EPS_PHOTOGRAPHS, 0.5) if c.name in ("fgsm", "bim", "pgd_linf")
]

_SEARCH = {"steps": 50, "search_steps": 6, "learning_rate": 0.1, "initial_const": 0.1}
_SHORT = {"steps": 25, "search_steps": 4, "learning_rate": 0.1}
CW_L2 = Comparison(
    "cw_l2",
    "cw_l2",
    "digits",
    32,
    "l2",
    {"equal": _SEARCH, "default": {}, "shorter": {**_SHORT, "initial_const": None}},
    (
        Peer(
            "foolbox",
            "L2CarliniWagnerAttack",
            {"steps": 50, "binary_search_steps": 6, "stepsize": 0.1, "initial_const": 0.1},
            goal=2,
        ),
        Peer(
            "torchattacks",
            "CW",
            {"c": 1, "steps": 50, "lr": 0.1},
            goal=2,
            ours={"search_steps": 1, "initial_const": 1.0},
            note="one c for all images, no search; pixels that are 0 or 1 never move",
        ),
        Peer(
            "art",
            "CarliniL2Method",
            {"max_iter": 10, "binary_search_steps": 6, "learning_rate": 0.1, "initial_const": 0.1},
            goal=2,
            images=8,
            note="a line search in each of its steps",
        ),
    ),
    minimises=True,
    held_to=("shorter",),
)
CW_L2_LONG = Comparison(
    "cw_l2_long",
    "cw_l2",
    "digits",
    16,
    "l2",
    {"default": {}},
    (
        Peer(
            "foolbox",
            "L2CarliniWagnerAttack",
            {"steps": 200, "binary_search_steps": 9, "stepsize": 0.05, "initial_const": 0.01},
            note="six times the steps of ours",
        ),
    ),
    minimises=True,
)
CW_L2_PHOTOGRAPHS = Comparison(
    "cw_l2",
    "cw_l2",
    "photographs",
    4,
    "l2",
    {"equal": {"steps": 10, "search_steps": 3, "learning_rate": 0.01, "initial_const": 1.0}},
    (
        Peer(
            "foolbox",
            "L2CarliniWagnerAttack",
            {"steps": 10, "binary_search_steps": 3, "stepsize": 0.01, "initial_const": 1.0},
            goal=2,
        ),
    ),
    minimises=True,
)
LBFGS = Comparison(
    "lbfgs",
    "lbfgs",
    "digits",
    2,
    "l2",
    {"equal": {"search_steps": 8, "iterations": 40}},
    (
        Peer(
            "plain",
            "box_lbfgs",
            {"search_steps": 8, "iterations": 40},
            note="no library has it: scipy's minimiser in a plain loop",
        ),
    ),
    minimises=True,
)
CW_LINF = Comparison(
    "cw_linf",
    "cw_linf",
    "digits",
    4,
    "linf",
    {"default": {}, "shorter": {"steps": 5, "decrease_factor": 0.1, "patience": 2}},
    (
        Peer(
            "art",
            "CarliniLInfMethod",
            {"learning_rate": 0.1, "max_iter": 30, "initial_const": 1.0, "const_factor": 4.0},
            goal=10,
            note="one image after the other",
        ),
    ),
    minimises=True,
    held_to=("shorter",),
)
CW_L0 = Comparison(
    "cw_l0",
    "cw_l0",
    "digits",
    8,
    "l0",
    {"default": {}},
    (
        Peer(
            "art",
            "CarliniL0Method",
            {"max_iter": 10, "binary_search_steps": 6, "learning_rate": 0.1, "initial_const": 0.1},
            note="it fixes as many values as the image has channels and stops",
        ),
    ),
    minimises=True,
)
BOUNDARY = Comparison(
    "boundary",
    "boundary",
    "digits",
    16,
    "l2",
    {"equal": {"steps": 500}},
    (
        Peer("foolbox", "BoundaryAttack", {"steps": 500}),
        Peer(
            "art",
            "BoundaryAttack",
            {"targeted": False, "max_iter": 18, "delta": 0.1, "epsilon": 0.1},
            images=4,
            note="about 500 trials in its 18 rounds",
        ),
    ),
    minimises=True,
    starts=True,
    fills=True,
)
ONE_PIXEL = Comparison(
    "one_pixel",
    "one_pixel",
    "digits",
    32,
    "l0",
    {"equal": {"population": POPULATION, "generations": GENERATIONS}},
    (
        Peer("torchattacks", "OnePixel", {"popsize": POPULATION, "steps": GENERATIONS}, goal=5),
        Peer(
            "art",
            "PixelAttack",
            {"th": 1, "es": 1, "max_iter": GENERATIONS},
            images=4,
            ours={"population": 399},
            note="its population is fixed, 399 for grey images",
        ),
    ),
    frail=True,
    fills=True,
)
PATCH = Comparison(
    "patch",
    "patch",
    "digits",
    64,
    "l0",
    {
        "equal": {
            "universal": True,
            "size": 0.1,
            "steps": 30,
            "learning_rate": 0.05,
            "trials": 1,
        }
    },
    (
        Peer(
            "art",
            "AdversarialPatchPyTorch",
            {"scale": 0.357, "max_iter": 30, "learning_rate": 0.05, "targeted": False},
            note="one patch for all images on both sides, 30 placements on each image",
        ),
    ),
    counts="samples",
)


def _auto() -> list[Comparison]:
    """AutoAttack's parts within a budget, each from random draws, and DeepFool."""
    steps, queries = 20, 1000
    found = []
    for norm, theirs, eps in (("linf", "Linf", EPS), ("l2", "L2", 2.0)):
        ours: dict[str, Any] = {"norm": norm, "eps": eps}
        peer = {"norm": theirs, "eps": eps}
        parts = {
            "apgd": ({**ours, "steps": steps}, "APGD", {**peer, "steps": steps, "loss": "ce"}),
            "apgd_t": (
                {**ours, "steps": steps, "loss": "targeted-dlr"},
                "APGDT",
                {**peer, "steps": steps, "n_classes": 10},
            ),
            "fab_t": (
                {**ours, "steps": steps, "one_by_one": True},
                "FAB",
                {**peer, "steps": steps, "multi_targeted": True, "n_classes": 10},
            ),
            "square": ({**ours, "queries": queries}, "Square", {**peer, "n_queries": queries - 1}),
        }
        found += [
            Comparison(
                f"{name}_{norm}",
                name.split("_")[0],
                "digits",
                64,
                norm,
                {"equal": settings},
                (Peer("torchattacks", attack, parameters, goal=1),),
                draws=4,
                fills=name == "square",
            )
            for name, (settings, attack, parameters) in parts.items()
        ]
        found.append(
            Comparison(
                f"deepfool_{norm}",
                "deepfool",
                "digits",
                64,
                norm,
                {"equal": {"norm": norm, "steps": 50, "overshoot": 0.02}},
                (
                    Peer(
                        "foolbox",
                        f"{theirs}DeepFoolAttack",
                        {"steps": 50, "candidates": 10, "overshoot": 0.02, "loss": "logits"},
                        goal=1,
                    ),
                ),
                minimises=True,
            )
        )
    return found


COMPARISONS: list[Comparison] = [
    *DIGITS,
    *_auto(),
    CW_L2,
    CW_L2_LONG,
    CW_LINF,
    CW_L0,
    LBFGS,
    BOUNDARY,
    ONE_PIXEL,
    PATCH,
    *PHOTOGRAPHS,
    CW_L2_PHOTOGRAPHS,
]
