"""APGD, FAB, Square, AutoAttack and DeepFool against the papers, foolbox, and known answers."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import foolbox
import pytest
import torch
from foolbox.attacks import L2DeepFoolAttack, LinfDeepFoolAttack
from hypothesis import given, settings
from hypothesis import strategies as st
from subjects import convolutional, digits, draw, net, right
from torch import Tensor, nn

from xaicore import attacks
from xaicore.attacks import AttackResult, suspicions
from xaicore.attacks.adaptive_boundary import onto
from xaicore.attacks.auto_attack import BLACK_BOX, VERSIONS
from xaicore.attacks.auto_pgd import AutoPgd, checkpoints, surface
from xaicore.attacks.base import run
from xaicore.attacks.goal import Goal
from xaicore.attacks.objectives import dlr, leads, rivals
from xaicore.attacks.random_squares import HALVINGS, heaps, share, sides
from xaicore.attacks.victim import Victim

quiet = pytest.mark.filterwarnings("ignore::xaicore.attacks.AttackWarning")
both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])
ORDER = {"linf": math.inf, "l2": 2}


def linear(classes: int, seed: int = 0) -> nn.Sequential:
    """A linear network of images of 6 x 6 pixels, sure of class 0 wherever they are near a half."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, classes))
    with torch.no_grad():
        model[1].bias.copy_(1 - model[1].weight.sum(1) / 2 - 0.5 * (torch.arange(classes) > 0))
    return model.eval()


def middling(count: int = 8, side: int = 6) -> Tensor:
    return 0.45 + 0.1 * draw(count, side=side)


def smooth() -> nn.Sequential:
    """A network that bends but has no kinks, so that rounding decides little; sure of class 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 5)).eval()
    with torch.no_grad():
        model[1].weight.mul_(4)
        model[3].bias[0] += 10
    return model


def norms(vectors: Tensor, order: float) -> Tensor:
    return torch.linalg.vector_norm(vectors.flatten(1), ord=order, dim=1)


def test_dlr_is_the_formula() -> None:
    logits = torch.tensor([[5.0, 1.0, 4.0, 3.0, 0.0], [2.0, 7.0, 3.0, 1.0, 6.0]])
    labels, targets = torch.tensor([0, 0]), torch.tensor([3, 4])
    # -(5 - 4) / (5 - 3), -(2 - 7) / (7 - 3); -(5 - 3) / (5 - (3 + 1) / 2), -(2 - 6) / (7 - (3 + 2) / 2)
    assert dlr(logits, labels).tolist() == pytest.approx([-1 / 2, 5 / 4])
    assert dlr(logits, labels, targets).tolist() == pytest.approx([-2 / 3, 4 / 4.5])
    assert dlr(3 * logits + 7, labels, targets).tolist() == pytest.approx([-2 / 3, 4 / 4.5])
    assert dlr(logits[:, :2], labels).tolist() == [-4, 5]
    assert dlr(logits[:, :3], labels, torch.tensor([1, 2])).tolist() == [-4, 1]
    assert rivals(logits, labels, 2).tolist() == [[2, 3], [1, 4]]
    assert rivals(logits, labels, 9).shape == (2, 4)
    assert leads(logits, Goal(labels, None), 2).tolist() == [[-1, -2], [5, 4]]
    assert leads(logits, Goal(labels, targets), 2).tolist() == [[-2], [-1]]


def test_a_jacobian_is_its_gradients() -> None:
    model, images = net(3, 4), draw(7, 3)
    victim = Victim(model, 4)
    logits, gradients = victim.jacobian(images, lambda logits, part: logits[:, :3], 3)
    for column in range(3):
        same, own = victim.differentiate(images, lambda logits, part, at=column: logits[:, at])
        assert torch.equal(logits, same)
        torch.testing.assert_close(gradients[:, column], own, atol=1e-8, rtol=1e-5)
    assert gradients.flatten(2).any(dim=2).all()


def test_checkpoints_are_those_of_the_paper() -> None:
    """p_1 = 0.22, p_2 = 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 (Sec. 3.1); of few steps as in the authors' code."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20) == [4, 7, *range(9, 21)]
    assert checkpoints(1) == [1]


class Watched(AutoPgd):
    """APGD that keeps every point and step size it was at."""

    def advance(self, victim: Any, batch: Any, state: Any) -> Any:
        after = super().advance(victim, batch, state)
        if len(state.done):
            SEEN.append((state.point, after.size, after.top))
        return after


SEEN: list[tuple[Tensor, Tensor, Tensor]] = []


def by_the_paper(
    model: nn.Module, x: Tensor, y: Tensor, first: Tensor, eps: float, steps: int, norm: str
) -> tuple[list[Tensor], list[float]]:
    """The iterates and step sizes of Alg. 1 for one image, in float64 with the gradient of the cross-entropy.

    They end where the log-odds no longer move by more than float32 rounds: there it decides what counts as a rise.
    """

    def evaluate(point: Tensor) -> tuple[float, Tensor]:
        here = point.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(here), y)
        return math.log(math.expm1(loss.item())), torch.autograd.grad(loss, here)[0]

    def project(point: Tensor) -> Tensor:
        if norm == "linf":
            return point.clamp(x - eps, x + eps).clamp(0, 1)
        return (x + (point - x) * min(1, eps / float((point - x).norm()))).clamp(0, 1)

    eta, marks, points, etas = 2 * eps, checkpoints(steps), [first], []
    previous, point, rises, halved, mark = first, first, 0, False, 0
    value, gradient = evaluate(point)
    best, top, slope, checked = point, value, gradient, value
    for k in range(steps):
        etas.append(eta)
        direction = gradient.sign() if norm == "linf" else gradient / gradient.norm()
        z = project(point + eta * direction)
        alpha = 0.75 if k else 1.0
        after = project(point + alpha * (z - point) + (1 - alpha) * (point - previous))
        previous, point = point, after
        points.append(point)
        last, (value, gradient) = value, evaluate(point)
        if abs(value - last) < 1e-5:
            break
        rises += value > last
        if value > top:
            best, top, slope = point, value, gradient
        if k + 1 in marks:
            halved_now = rises <= 0.75 * (k + 1 - mark) or (not halved and top <= checked)
            if halved_now:
                eta, point, gradient = eta / 2, best, slope
            halved, checked, rises, mark = halved_now, top, 0, k + 1
    return points, etas


@both_norms
def test_apgd_is_the_algorithm_of_the_paper(norm: str) -> None:
    """Iterates and step sizes until rounding decides what rises; in one image of ten it may decide a sign before."""
    model, images = smooth(), draw(10)
    labels, eps, steps = right(model, images), {"linf": 0.1, "l2": 1.0}[norm], 20
    SEEN.clear()
    options = {
        "loss": "ce",
        "norm": norm,
        "eps": eps,
        "steps": steps,
        "restarts": 1,
        "candidates": 9,
        "seed": 5,
    }
    result = run(Watched(**options), model, images, labels, target=None, batch_size=10)
    assert not result.success.any()
    assert (result.queries == steps + 1).all()
    index = torch.arange(10)
    start = images + eps * surface(norm, 5, index, torch.zeros_like(index), images.shape[1:])
    twin, differ, sizes, lengths = copy.deepcopy(model).double(), 0, set(), []
    for i in range(10):
        first = SEEN[0][0][i : i + 1]
        torch.testing.assert_close(first, start[i : i + 1].clamp(0, 1), atol=1e-6, rtol=0)
        points, etas = by_the_paper(
            twin, images[i : i + 1].double(), labels[i : i + 1], first.double(), eps, steps, norm
        )
        ours = torch.stack([point[i] for point, _, _ in SEEN[: len(points)]]).double()
        away = (ours - torch.cat(points)).abs().max() > 1e-4
        differ += bool(away) or [float(size[i]) for _, size, _ in SEEN[: len(etas)]] != pytest.approx(etas)
        sizes |= {round(eta / eps, 6) for eta in etas}
        lengths.append(len(etas))
    assert differ <= 1, (differ, sizes, lengths)
    assert min(lengths) >= 5, lengths
    assert len(sizes) >= 3, sizes  # some step sizes were halved, more than once
    tops = torch.stack([top for _, _, top in SEEN])
    assert (tops.diff(dim=0) >= 0).all()
    margin = Goal(labels, None).score(model(result.adversarial.detach())).detach()
    torch.testing.assert_close(margin, tops[-1], atol=1e-5, rtol=0)


@both_norms
@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted-dlr"])
def test_apgd_reaches_the_maximum_of_a_linear_network(norm: str, loss: str) -> None:
    model, images = linear(2), middling()
    labels = right(model, images)
    difference = model[1].weight[1 - labels[0]] - model[1].weight[labels[0]]
    eps = {"linf": 0.02, "l2": 0.1}[norm]
    result = attacks.apgd(model, images, labels, norm=norm, loss=loss, eps=eps, steps=20)
    gain = eps * norms(difference[None], {"linf": 1, "l2": 2}[norm])
    with torch.no_grad():
        best = Goal(labels, None).margin(model(images)) + gain
    assert not result.success.any()
    torch.testing.assert_close(result.info["margin"], best, atol=1e-5, rtol=0)
    assert (norms(result.adversarial - images, ORDER[norm]) <= eps * (1 + 1e-6)).all()


def test_apgd_tries_each_class_and_starts_again() -> None:
    model, images = smooth(), draw(6)
    labels = right(model, images)
    options = {"eps": 0.002, "steps": 4, "loss": "targeted-dlr", "restarts": 2}
    result = attacks.apgd(model, images, labels, **options)
    assert not result.success.any()
    assert (result.queries == 1 + 4 * 2 * 5).all()
    assert (result.info["restart"] == 7).all()
    fewer = attacks.apgd(model, images, labels, candidates=3, **options)
    assert (fewer.queries == 1 + 3 * 2 * 5).all()
    chosen = attacks.apgd(model, images, labels, target=(labels + 1) % 5, **options)
    assert (chosen.queries == 2 * 5).all()


def test_candidates_side_by_side_find_what_they_find_in_turn() -> None:
    """The earliest class that works, whose random stream is its own; only the images left are asked again."""
    model, images = smooth(), draw(40)
    model[3].bias.data[0] -= 10
    options = {"eps": 0.02, "steps": 6, "loss": "targeted-dlr"}
    labels = model(images).argmax(dim=1)
    each = [attacks.apgd(model, images, labels, candidates=m, **options) for m in (1, 2, 3, 4)]
    assert int(each[0].success.sum()) < int(each[-1].success.sum()) < len(images)
    for fewer, more in itertools.pairwise(each):
        assert torch.equal(more.adversarial[fewer.success], fewer.adversarial[fewer.success])
    assert torch.equal(each[-1].queries[each[0].success], each[0].queries[each[0].success])
    late = each[-1].success & ~each[0].success
    assert (each[-1].info["restart"][late] == 1).all()
    found = attacks.fab(model, images, labels, eps=0.02, steps=6, one_by_one=True)
    apart = [
        attacks.fab(model, images, labels, steps=6, one_by_one=True, candidates=m).linf for m in (1, 2, 3, 4)
    ]
    assert all((more <= fewer).all() for fewer, more in itertools.pairwise(apart))
    assert (found.linf[found.success] <= 0.02).all()
    assert (apart[-1][~found.success] > 0.02).all()


def bisected(x: Tensor, w: Tensor, gap: float, norm: str) -> Tensor:
    """The smallest change onto the plane within the box, in float64 by bisection of its one parameter."""
    w, gap = w * (1 if gap >= 0 else -1), abs(gap)
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        step = middle * (w.sign() if norm == "linf" else w)
        change = (x + step).clamp(0, 1) - x
        low, high = (middle, high) if float((w * change).sum()) < gap else (low, middle)
    return change


@both_norms
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), size=st.floats(-3, 3))
def test_the_way_onto_a_plane_is_the_shortest_in_the_box(norm: str, seed: int, size: float) -> None:
    points = draw(4, side=4, seed=seed)
    points[0] = points[0].round()
    normals = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    normals[1, 0, 0] = 0
    gaps = size * torch.tensor([1.0, 0.3, 1.0, 3.0])
    changes = onto(points, normals, gaps, norm)
    for x, w, gap, change in zip(points.double(), normals.double(), gaps.tolist(), changes, strict=True):
        wanted = bisected(x, w, gap, norm)
        torch.testing.assert_close(change.double(), wanted, atol=2e-5, rtol=0)


@both_norms
def test_fab_and_deepfool_find_the_nearest_border_of_a_linear_network(norm: str) -> None:
    model, images = linear(4), middling()
    labels = right(model, images)
    weights = model[1].weight.detach()
    differences = (weights[None] - weights[labels][:, None]).flatten(0, 1)
    with torch.no_grad():
        logits = model(images)
    lead = logits.gather(1, labels[:, None]) - logits
    exact = lead / norms(differences, {"linf": 1, "l2": 2}[norm]).view(lead.shape)
    exact = exact.scatter(1, labels[:, None], torch.inf).amin(dim=1)
    deepfool = attacks.deepfool(model, images, labels, norm=norm)
    assert deepfool.success.all()
    torch.testing.assert_close(getattr(deepfool, norm), 1.02 * (exact + 1e-4), rtol=1e-3, atol=0)
    assert (deepfool.info["steps"] == 1).all()
    assert (deepfool.queries == 2 * 3).all()
    for one_by_one in (False, True):
        options = {"steps": 4, "overshoot": 1e-3, "one_by_one": one_by_one}
        fab = attacks.fab(model, images, labels, norm=norm, **options)
        assert fab.success.all()
        torch.testing.assert_close(getattr(fab, norm), exact, rtol=2e-3, atol=0)
        assert (fab.queries == (1 + 3 * 4 * 2 if one_by_one else 4 * (3 + 1))).all()


@both_norms
def test_fab_stops_where_it_is_near_enough_and_leaves_the_others_clean(norm: str) -> None:
    model, images = net(), draw(12)
    labels = right(model, images)
    free = attacks.fab(model, images, labels, norm=norm, steps=10, restarts=2)
    assert free.success.all()
    distance = getattr(free, norm)
    eps = float(distance.quantile(0.5))
    held = attacks.fab(model, images, labels, norm=norm, steps=10, restarts=2, eps=eps)
    assert (held.success == (distance <= eps)).float().mean() > 0.8
    assert (getattr(held, norm) <= eps).all()
    assert torch.equal(held.adversarial[~held.success], images[~held.success])
    assert (held.queries[held.success] < free.queries[held.success]).any()
    assert (held.queries <= free.queries).all()


@pytest.mark.parametrize(("norm", "peer"), [("l2", L2DeepFoolAttack), ("linf", LinfDeepFoolAttack)])
def test_deepfool_goes_as_far_as_foolboxs(norm: str, peer: Callable[..., Any]) -> None:
    """Median within 2 %, and no image farther by a tenth; the two differ in what 1e-4 is added to."""
    model, images, labels = digits(8)
    ours = attacks.deepfool(model, images, labels, norm=norm)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = peer(steps=50, candidates=10, overshoot=0.02, loss="logits")
    _, theirs, success = attack(wrapped, images, foolbox.criteria.Misclassification(labels), epsilons=None)
    assert ours.success.sum() >= success.sum()
    ratio = getattr(ours, norm)[success] / norms(theirs - images, ORDER[norm])[success]
    assert abs(float(ratio.median()) - 1) < 0.02
    assert float(ratio.max()) < 1.1


def test_the_schedule_of_squares_is_the_papers() -> None:
    """Halved at 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries, at others in proportion."""
    wanted = [0.8 / 2 ** sum(query > after for after in HALVINGS) for query in range(10_000)]
    assert [share(query, 10_000, 0.8) for query in range(10_000)] == wanted
    assert [share(query, 1000, 0.8) for query in range(1000)] == wanted[::10]
    assert (share(10, 10_000, 0.8), share(11, 10_000, 0.8), share(8001, 10_000, 0.8)) == (0.8, 0.4, 0.8 / 512)
    # sqrt(0.8 x 28 x 28) = 25.04
    assert sides(28, 28, 1000, 0.8, "linf")[0] == 25
    assert sides(28, 28, 1000, 0.8, "linf")[-1] == 1
    assert sides(28, 28, 1000, 0.4, "l2")[0] == 19  # 17.7, 18, odd
    assert sides(28, 28, 1000, 0.8, "l2")[-1] == 3
    assert torch.equal(sides(4, 9, 10, 1.0, "linf"), sides(9, 4, 10, 1.0, "linf"))
    assert sides(4, 9, 10, 1.0, "linf")[0] == 4
    assert sides(2, 2, 1, 1.0, "l2").tolist() == [1]


def test_heaps_are_two_opposed_halves_of_norm_1() -> None:
    """Of side 3 the upper heap is one line, 1/4, 5/4, 1/4; the lower two lines, each 1/4 more around its middle."""
    upper = torch.tensor([[0.25, 1.25, 0.25]])
    lower = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
    wanted = torch.cat([upper / upper.norm(), -lower / lower.norm()]) / math.sqrt(2)
    torch.testing.assert_close(heaps(3), wanted)
    for side in (1, 2, 5, 8):
        assert float(heaps(side).norm()) == pytest.approx(1)


@both_norms
@pytest.mark.parametrize("channels", [1, 3])
def test_square_stays_in_the_ball_and_comes_nearer(norm: str, channels: int) -> None:
    model, images = net(channels), 0.3 + 0.4 * draw(8, channels)
    labels = right(model, images)
    eps = {"linf": 0.01, "l2": 0.05}[norm]
    first = attacks.square(model, images, labels, norm=norm, eps=eps, queries=1)
    last = attacks.square(model, images, labels, norm=norm, eps=eps, queries=60)
    assert (first.queries == 1).all()
    assert (last.info["margin"] > first.info["margin"])[~first.success].all()
    assert ((last.queries == 60) | last.success).all()
    for result in (first, last):
        change = result.adversarial - images
        assert (norms(change, ORDER[norm]) <= eps * (1 + 1e-6)).all()
        assert (norms(change, ORDER[norm]) > 0.99 * eps).all()
        if norm == "linf":  # nothing between the edges
            torch.testing.assert_close(change.abs(), torch.full_like(change, eps), atol=1e-6, rtol=0)


@both_norms
def test_proposals_ahead_change_nothing(norm: str) -> None:
    """Passes with room for eight proposals of each image end as passes with room for one."""
    model, images = convolutional(net(3)), draw(4, 3)
    labels = right(model, images)
    options = {"norm": norm, "eps": {"linf": 0.01, "l2": 0.1}[norm], "queries": 80}
    one, eight = (attacks.square(model, images, labels, batch_size=size, **options) for size in (4, 32))
    assert torch.equal(one.queries, eight.queries)
    torch.testing.assert_close(one.adversarial, eight.adversarial, atol=1e-5, rtol=0)


def test_l2_attacks_do_not_depend_on_batch_mates() -> None:
    model, images = convolutional(net(3, 4, gain=4.0)), draw(6, 3)
    labels = right(model, images)
    order, norm, eps = torch.tensor([4, 1, 5, 0, 3, 2]), "l2", 0.5
    calls: list[tuple[Callable[..., AttackResult], dict[str, Any]]] = [
        (attacks.apgd, {"loss": "targeted-dlr", "steps": 4, "eps": eps}),
        (attacks.fab, {"one_by_one": True, "restarts": 2, "steps": 3, "eps": eps}),
        (attacks.square, {"queries": 30, "eps": eps}),
        (attacks.autoattack, {"version": "plus", "steps": 2, "queries": 10, "eps": eps}),
    ]
    differ = 0
    for attack, options in calls:
        whole = attack(model, images, labels, norm=norm, batch_size=4, **options)
        other = attack(model, images[order], labels[order], norm=norm, index=order, batch_size=4, **options)
        for name, tensor in whole.arrays().items():
            assert torch.equal(tensor[order], other.arrays()[name]), (attack.__name__, name)
        differ += len(whole.queries.unique()) > 1
    assert differ >= 2


@both_norms
def test_autoattack_fools_whatever_a_part_fools(norm: str) -> None:
    model, images = net(3, 5), draw(16, 3)
    labels = right(model, images)
    options = {"norm": norm, "eps": {"linf": 0.004, "l2": 0.03}[norm], "seed": 2}
    whole = attacks.autoattack(model, images, labels, steps=6, queries=30, **options)
    parts = [
        attacks.apgd(model, images, labels, steps=6, **options),
        attacks.apgd(model, images, labels, steps=6, loss="targeted-dlr", **options),
        attacks.fab(model, images, labels, steps=6, one_by_one=True, **options),
        attacks.square(model, images, labels, queries=30, **options),
    ]
    won = torch.stack([part.success for part in parts])
    assert torch.equal(whole.success, won.any(dim=0))
    assert 0 < int(whole.success.sum()) < 16
    assert torch.equal(whole.info["part"], torch.where(won.any(dim=0), won.int().argmax(dim=0), -1))
    lost = ~whole.success
    assert torch.equal(whole.queries[lost], 2 + sum(part.queries + 1 for part in parts)[lost])
    assert (norms(whole.adversarial - images, ORDER[norm]) <= options["eps"] * (1 + 1e-6)).all()
    assert suspicions({"autoattack": whole}) == [] or not (whole.info["part"] != BLACK_BOX).all()


class Quantised(nn.Module):
    """Class 1 where the mean of an image rounded to 6 levels is over a half: no gradient anywhere."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = ((x * 5).round() / 5).mean(dim=(1, 2, 3))
        return torch.stack([torch.full_like(brightness, 0.5), brightness], dim=1)


@quiet
@pytest.mark.parametrize("version", VERSIONS)
def test_masked_gradients_are_found_out(version: str) -> None:
    images, labels = torch.full((5, 1, 8, 8), 0.45), torch.zeros(5, dtype=torch.int64)
    assert not attacks.apgd(Quantised(), images, labels, eps=0.06, steps=5).success.any()
    square = attacks.square(Quantised(), images, labels, eps=0.06, queries=200)
    assert square.success.all()
    result = attacks.autoattack(Quantised(), images, labels, version=version, eps=0.06, steps=5, queries=200)
    assert result.success.all()
    assert (result.info["part"] == BLACK_BOX).all()
    found = {each.kind: each for each in suspicions({"autoattack": result})}
    assert found.keys() == {"zero-gradient", "black-box-wins"}
    assert all((each.attack, each.count, each.n) == ("autoattack", 5, 5) for each in found.values())
    both = suspicions(
        {"apgd": attacks.apgd(Quantised(), images, labels, eps=0.06, steps=5), "square": square}
    )
    assert {(each.kind, each.attack) for each in both} >= {
        ("black-box-wins", "apgd"),
        ("zero-gradient", "apgd"),
    }


class Restless(nn.Module):
    """Adds noise to its logits, also in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits + 1e-3 * torch.randn_like(logits)


def test_a_random_network_is_found_out() -> None:
    images = draw(6)
    labels = right(net(), images)
    options = {"eps": 0.001, "steps": 1, "queries": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = attacks.autoattack(Restless(), images, labels, **options)
    count = int((~result.info["initially_wrong"]).sum())
    [random] = [each for each in suspicions({"autoattack": result}) if each.kind == "random-model"]
    assert (random.attack, random.count, random.n) == ("autoattack", count, count)
    calm = attacks.autoattack(net(), images, labels, **options)
    assert not [each for each in suspicions({"autoattack": calm}) if each.kind == "random-model"]


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        *itertools.product(("apgd", "square", "autoattack"), ({"eps": 0}, {"eps": 1.5}, {"norm": "l1"})),
        *itertools.product(("apgd", "fab", "autoattack"), ({"steps": 0}, {"candidates": 0})),
        ("apgd", {"loss": "mse"}),
        ("apgd", {"restarts": 0}),
        ("fab", {"eps": -1}),
        ("fab", {"one_by_one": 1}),
        ("fab", {"overshoot": -0.1}),
        ("fab", {"backward": 0}),
        ("fab", {"bias": 2}),
        ("square", {"queries": 0}),
        ("square", {"covered": 0}),
        ("autoattack", {"version": "rand"}),
        ("autoattack", {"queries": 1.5}),
        ("deepfool", {"norm": "l0"}),
        ("deepfool", {"overshoot": 0}),
        ("deepfool", {"steps": 0}),
    ],
)
def test_bad_parameter_is_one_clear_error(name: str, parameter: dict[str, object]) -> None:
    images, labels = draw(2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"{next(iter(parameter))} must be"):
        attacks.ATTACKS[name](net(), images, labels, **parameter)
