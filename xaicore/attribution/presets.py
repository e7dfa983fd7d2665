"""The presets of layer-wise relevance propagation: which rule for which layer.

A preset is data. Its names and choices are those of iNNvestigate 2.1.2 (Alber et al., JMLR 20, 2019), whose
``lrp.sequential_preset_a_flat`` is the "PresetAFlat" of the papers. Adding one is one entry here; the
rules are in :mod:`xaicore.attribution.rules`.
"""

from dataclasses import dataclass, replace

from xaicore.attribution.layers import BEYOND_RELU


@dataclass(frozen=True)
class Preset:
    """Which rule each layer of a network uses.

    Attributes:
        conv: rule of the convolutions.
        dense: rule of the linear layers.
        first: rule of the first layer with weights, whatever its kind; None: the rule of its kind.
        average_pool: ``"z"`` (shares in proportion to the activations) or ``"gradient"``.
        affine: rule of a function wx + b of each value by itself, such as a BatchNorm that no convolution or linear
            layer directly precedes: ``"z"``, or None to pass relevance on. Each output sees one input, which gets
            all of it by the w-square and flat rules, so presets that use these pass it on.
        beyond_relu: which kinds of layers it has a meaning for besides those of networks of ReLUs. Deep Taylor
            decomposition is derived for those alone; the others pass relevance through activations and gates as they
            are; those whose shares are the contributions to a sum, of both signs, have the rules of AttnLRP too.
        positive_output: start from the positive part of the logit, as deep Taylor decomposition asks for.
    """

    conv: str
    dense: str
    first: str | None = None
    average_pool: str = "z"
    affine: str | None = "z"
    beyond_relu: tuple[str, ...] = ("signed activation", "gate")
    positive_output: bool = False

    def uses(self, rule: str) -> bool:
        """Return whether some layer uses ``rule``."""
        return rule in (self.conv, self.dense, self.first)

    def rule(self, kind: str) -> str | None:
        """Return the rule of layers of a kind; None where relevance follows the gradient or passes through."""
        average_pool = None if self.average_pool == "gradient" else self.average_pool
        rules = {"conv": self.conv, "dense": self.dense, "average-pool": average_pool, "affine": self.affine}
        return {"normalisation": "z", "softmax": "z", **rules}.get(kind)


DEEP_TAYLOR = Preset(
    conv="z-plus", dense="z-plus", average_pool="gradient", affine=None, beyond_relu=(), positive_output=True
)
PRESETS: dict[str, Preset] = {
    "z": Preset(conv="z", dense="z", beyond_relu=tuple(BEYOND_RELU)),
    "epsilon": Preset(conv="epsilon", dense="epsilon", beyond_relu=tuple(BEYOND_RELU)),
    "w-square": Preset(conv="w-square", dense="w-square", affine=None),
    "flat": Preset(conv="flat", dense="flat", affine=None),
    "alpha1-beta0": Preset(conv="alpha1-beta0", dense="alpha1-beta0"),
    "alpha2-beta1": Preset(conv="alpha2-beta1", dense="alpha2-beta1"),
    "preset-a": Preset(conv="alpha1-beta0", dense="epsilon"),
    "preset-a-flat": Preset(conv="alpha1-beta0", dense="epsilon", first="flat"),
    "preset-b-flat": Preset(conv="alpha2-beta1", dense="epsilon", first="flat"),
    "deep-taylor": DEEP_TAYLOR,
    "deep-taylor-bounded": replace(DEEP_TAYLOR, first="bounded"),
}
"""Every preset by name."""
