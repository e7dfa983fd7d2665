"""Attacks and predictions on any ``torch.nn.Module``: what the network does inside must not matter.

What cannot be attacked is refused in one line that says what to do.
"""

import warnings

import pytest
import torch
import zoo
from subjects import convolutional, net
from test_attacks import SMALL, same
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from xaicore import attacks, attribution, models
from xaicore.attacks import ATTACKS, AttackWarning
from xaicore.attacks.goal import Goal
from xaicore.attacks.victim import Victim
from xaicore.core.errors import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning"
)

UNWATCHED = {
    "functional": "must have its activations as modules",
    "compiled": "must not be compiled",
    "compiled view": "must not be compiled",
}
"""Networks in which DLFuzz finds no neurons, and what it says."""


def labelled(model: nn.Module, count: int = 4) -> tuple[Tensor, Tensor]:
    """Return images and the classes that the model gives them."""
    images = zoo.images(count)
    with torch.no_grad():
        return images, model(images.clone()).argmax(dim=1)


def plain_gradient(model: nn.Module, images: Tensor, goal: Goal) -> Tensor:
    """Return the gradient of the goal's score, with PyTorch alone."""
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(goal.score(model(leaf.clone())).sum(), leaf)[0]


WAYS = ("pgd", "cw_l2", "boundary", "one_pixel", "patch", "dlfuzz")
"""Attacks that ask a network in different ways."""
FAILING = ("view", "own gradient")
"""Networks that fail in the first layout, which all attacks must bear."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for kind in zoo.NETWORKS for name in ATTACKS if kind in FAILING or name in WAYS],
)
def test_attacks_on_every_network(name: str, kind: str) -> None:
    model = zoo.NETWORKS[kind]()
    images, labels = labelled(model)
    before = images.clone()
    if name == "dlfuzz" and kind in UNWATCHED:
        with pytest.raises(UserError, match=UNWATCHED[kind]):
            ATTACKS[name](model, images, labels, **SMALL[name])
        return
    result = ATTACKS[name](model, images, labels, **SMALL[name])
    with torch.no_grad():
        predicted = model(result.adversarial.clone()).argmax(dim=1)
    assert torch.equal(images, before)
    assert not result.info["initially_wrong"].any()
    assert torch.equal(result.success, predicted != labels)
    assert ((result.queries > 0) == (attacks.ATTACKS[name].access != "none")).all()


@pytest.mark.parametrize("kind", zoo.NETWORKS)
def test_logits_and_gradients_are_those_of_pytorch(kind: str) -> None:
    model = zoo.NETWORKS[kind]()
    images, labels = labelled(model, 5)
    goal, victim = Goal(labels, None), Victim(model, 4)
    with torch.no_grad():
        torch.testing.assert_close(victim.logits(images), model(images.clone()), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        victim.gradient(images, goal), plain_gradient(model, images, goal), atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("kind", zoo.NETWORKS)
def test_a_batch_of_one_and_of_ten_have_the_same_gradients(kind: str) -> None:
    model = zoo.NETWORKS[kind]()
    images, labels = labelled(model, 10)
    victim = Victim(model, 16)
    ten = victim.gradient(images, Goal(labels, None))
    one = [victim.gradient(images[[i]], Goal(labels[[i]], None)) for i in (0, 4, 9)]
    assert ten.flatten(1).any(dim=1).all()
    torch.testing.assert_close(torch.cat(one), ten[[0, 4, 9]], atol=1e-6, rtol=1e-4)
    # Explanations fill no batch up: single precision would round which of two values in a pool is the larger.
    model, images = model.double(), images.double()
    ten = attribution.gradient(model, images, labels)
    one = [attribution.gradient(model, images[[i]], labels[[i]]) for i in (0, 4, 9)]
    assert ten.flatten(1).any(dim=1).all()
    torch.testing.assert_close(torch.cat(one), ten[[0, 4, 9]])


class Flattened(zoo.View):
    """The same network as :class:`zoo.View`, on maps of any layout."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.conv2(self.pool(self.relu1(self.conv1(x)))))
        return self.fc2(self.relu3(self.fc1(x.flatten(1))))


# The Carlini-Wagner L0 attack takes pixels out one by one, in an order that the last bits decide.
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "cw_l0"])
def test_view_and_flatten_are_attacked_alike(name: str) -> None:
    model, bearing = zoo.NETWORKS["view"](), Flattened().eval()
    bearing.load_state_dict(model.state_dict())
    images, labels = labelled(model)
    first, second = (ATTACKS[name](m, images, labels, seed=1, **SMALL[name]) for m in (model, bearing))
    assert torch.equal(first.success, second.success)
    assert torch.equal(first.queries, second.queries)
    torch.testing.assert_close(first.l2, second.l2, rtol=1e-2, atol=1e-5)


class Counted(nn.Module):
    """Counts the passes begun and those ended, and the gradients taken."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.begun, self.ended, self.layouts = network, 0, 0, []

    def forward(self, x: Tensor) -> Tensor:
        self.begun += 1
        self.layouts.append(self.network.conv2.weight.is_contiguous())
        logits = self.network(x)
        self.ended += 1
        return logits


def test_only_the_first_pass_is_done_again_and_only_where_it_fails() -> None:
    for kind, lost in (("view", 1), ("shared activation", 0)):
        model = Counted(zoo.NETWORKS[kind]())
        images, labels = labelled(model.network)
        attacks.fgsm(model, images, labels, batch_size=2)
        # Two batches: the clean pass with the gradient, the check.
        assert model.ended == 4
        assert model.begun == 4 + lost
        assert model.layouts == [False] * (lost or 4) + [True] * (4 * lost)


def test_a_faster_layout_stays_where_it_is_borne_and_the_bits_with_it() -> None:
    model = zoo.NETWORKS["shared activation"]()
    images, labels = labelled(model)
    goal, victim, layout = Goal(labels, None), Victim(model, 4), torch.channels_last
    weights = {
        name: p.detach().contiguous(memory_format=layout) if p.ndim == 4 else p.detach()
        for name, p in model.named_parameters()
    }
    batch = images.contiguous(memory_format=layout).requires_grad_()
    logits = functional_call(model, weights, (batch,))
    assert torch.equal(victim.logits(images), logits)
    assert torch.equal(victim.gradient(images, goal), torch.autograd.grad(goal.score(logits).sum(), batch)[0])


def test_an_image_does_not_depend_on_its_batch_mates_in_contiguous_memory() -> None:
    *layers, last, flatten = convolutional(net())
    model = nn.Sequential(*layers, zoo.Rows(), nn.Unflatten(1, (8, 2, 2)), last, flatten).eval()
    images, labels = labelled(model, 7)
    whole = attacks.pgd(model, images, labels, eps=0.05, steps=4)
    parts = [
        attacks.pgd(model, images[p], labels[p], index=p, eps=0.05, steps=4)
        for p in torch.arange(7).split([2, 5])
    ]
    same(whole, attacks.AttackResult.cat(parts))


def test_a_gradient_that_fails_in_the_first_layout_counts_neurons_once() -> None:
    model = zoo.NETWORKS["own gradient"]()
    images, labels = labelled(model)
    counted = attacks.dlfuzz(model, images, labels, iterations=1, step_size=1e-6).info
    # The image, and one step so small that nothing changes: no seed follows.
    assert (counted["kept"] == 0).all()
    assert counted["covered"].max() == 2


def test_a_fault_of_the_network_is_shown_at_once() -> None:
    class Faulty(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            raise RuntimeError("no such layer")

    model = Faulty()
    with pytest.raises(RuntimeError, match="no such layer"):
        attacks.fgsm(model, zoo.images(), torch.zeros(4, dtype=torch.int64))
    assert model.calls == 1


REFUSED = {
    "tuple": r"not a tuple: .* output\[0\]",
    "dict": r"not a dict: .* output\['logits'\]",
    "one column": r"\(N, 1\): .* xaicore.models.TwoLogits\(model\)",
    "one number": r"\(N,\): .* xaicore.models.TwoLogits\(model\)",
    "class numbers": "not torch.int64",
    "DataParallel": r"must not be DataParallel: pass the network in it, model\.module",
    "scripted": "model must not be scripted or traced: pass the module that torch.jit was given",
    "traced": "model must not be scripted or traced",
    "scripted part": "its part '1' must not be scripted or traced",
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", ATTACKS)
def test_what_cannot_be_attacked_is_refused_in_one_line(name: str, kind: str) -> None:
    model = (zoo.OUTPUTS | zoo.HELD)[kind]()
    with pytest.raises(UserError, match=REFUSED[kind]) as caught:
        ATTACKS[name](model, zoo.images(), torch.zeros(4, dtype=torch.int64), **SMALL[name])
    assert "\n" not in str(caught.value)


def test_the_table_of_refusals_is_whole() -> None:
    assert set(REFUSED) == {*zoo.OUTPUTS, *zoo.HELD} - {"probabilities"}


@pytest.mark.parametrize("name", ATTACKS)
def test_probabilities_are_warned_of(name: str) -> None:
    images, labels = labelled(zoo.OUTPUTS["probabilities"]())
    with pytest.warns(AttackWarning, match="seems to return probabilities") as caught:
        result = ATTACKS[name](zoo.OUTPUTS["probabilities"](), images, labels, **SMALL[name])
    assert [w.filename for w in caught if "probabilities" in str(w.message)] == [__file__]
    found = attacks.suspicions({name: result}, model=zoo.OUTPUTS["probabilities"](), images=images)
    assert [(s.attack, s.count, s.n) for s in found if s.kind == "probabilities"] == [(None, 4, 4)]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*probabilities")
        logits = zoo.NETWORKS["shared activation"]()
        result = ATTACKS[name](logits, images, labels, **SMALL[name])
    found = attacks.suspicions({name: result}, model=logits, images=images)
    assert not [s for s in found if s.kind == "probabilities"]


@pytest.mark.parametrize("kind", ["one column", "one number"])
def test_two_logits_are_the_sigmoid_of_one(kind: str) -> None:
    one, images = zoo.OUTPUTS[kind](), zoo.images(16)
    two = models.TwoLogits(one)
    with torch.no_grad():
        z = one(images).flatten()
    logits = models.predict(two, images)
    assert torch.equal(logits[:, 1] - logits[:, 0], z)
    assert torch.equal(Goal(torch.zeros(16, dtype=torch.int64), None).margin(logits), z)
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], z.sigmoid())
    assert torch.equal(logits.argmax(dim=1), (z > 0).long())
    assert [name for name, p in two.named_parameters() if not p.requires_grad] == ["halves.weight"]
    assert not two.training
    labels = (z > 0).long()
    attacked = attacks.fgsm(two, images, labels, eps=0.01)
    signs = 1 - 2 * labels
    assert (attacked.info["margin"] > signs * z).all()
    with torch.no_grad():
        torch.testing.assert_close(attacked.info["margin"], signs * one(attacked.adversarial).flatten())
    # The cross-entropy of the two is the binary cross-entropy of the one.
    torch.testing.assert_close(
        functional.cross_entropy(logits, labels),
        functional.binary_cross_entropy_with_logits(z, labels.float()),
    )


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_two_logits_have_the_type_of_one(kind: torch.dtype) -> None:
    one = zoo.OUTPUTS["one column"]().to(kind)
    assert models.TwoLogits(one)(zoo.images().to(kind)).dtype == kind


def test_two_logits_need_one() -> None:
    images = zoo.images()
    with pytest.raises(UserError, match="a model with one logit, not 3"):
        models.TwoLogits(zoo.activated(nn.ReLU))(images)
    with pytest.raises(UserError, match=r"not a tuple: .* output\[0\]"):
        models.TwoLogits(zoo.OUTPUTS["tuple"]())(images)


@pytest.mark.parametrize("kind", zoo.NETWORKS)
def test_predictions_of_every_network(kind: str) -> None:
    model, images = zoo.NETWORKS[kind](), zoo.images()
    before = images.clone()
    with torch.no_grad():
        torch.testing.assert_close(models.predict(model, images), model(images.clone()))
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", [kind for kind in zoo.OUTPUTS if kind != "probabilities"])
def test_predictions_need_logits(kind: str) -> None:
    with pytest.raises(UserError, match=REFUSED[kind]):
        models.predict(zoo.OUTPUTS[kind](), zoo.images())
