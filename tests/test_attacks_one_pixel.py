"""one_pixel against a plain per-image loop with the same draws and against exhaustive search."""

import numpy as np
import pytest
import torch
from subjects import draw, right
from torch import Tensor, nn

from xaicore import attacks, defenses, models
from xaicore.attacks import pixel_windows
from xaicore.attacks.few_pixels import three_others
from xaicore.attacks.goal import Goal
from xaicore.attacks.pixel_windows import PixelWindows
from xaicore.attacks.victim import Victim


def net(channels: int = 1, classes: int = 2, seed: int = 0, side: int = 8) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, classes, side), nn.Flatten()
        ).eval()


def plain_loop(
    victim: Victim,
    image: Tensor,
    goal: Goal,
    stream: np.random.Generator,
    pixels: int,
    size: int,
    generations: int,
) -> tuple[Tensor, int, float]:
    """DE/rand/1 without crossover on one image, candidate by candidate, from the published description."""
    channels, height, width = image.shape

    def paint(candidate: np.ndarray) -> Tensor:
        painted = image.clone()
        for row, column, *colour in candidate:
            painted[:, min(int(row * height), height - 1), min(int(column * width), width - 1)] = (
                torch.tensor(colour, dtype=torch.float32)
            )
        return painted

    def evaluate(candidate: np.ndarray) -> tuple[float, bool]:
        logits = victim.logits(paint(candidate)[None])
        return goal.score(logits).item(), bool(goal.reached(logits))

    parents = list(stream.random((size, pixels, 2 + channels)))
    judged = [evaluate(parent) for parent in parents]
    scores = [score for score, _ in judged]
    candidates = parents
    for generation in range(generations + 1):
        if generation:
            draws = stream.random((size, 3 + 2 * pixels))
            candidates = []
            for i in range(size):
                taken = [i]
                for place in range(3):
                    left = [j for j in range(size) if j not in taken]
                    taken.append(left[int(draws[i, place] * len(left))])
                child = parents[taken[1]] + 0.5 * (parents[taken[2]] - parents[taken[3]])
                anew = draws[i, 3:].reshape(pixels, 2)
                for pixel in range(pixels):
                    for axis in range(2):
                        if not 0 <= child[pixel, axis] < 1:
                            child[pixel, axis] = anew[pixel, axis]
                child[:, 2:] = child[:, 2:].clip(0, 1)
                candidates.append(child)
            judged = [evaluate(candidate) for candidate in candidates]
            parents = list(parents)
            for i, (score, _) in enumerate(judged):
                if score >= scores[i]:
                    parents[i], scores[i] = candidates[i], score
        winners = [(score, i) for i, (score, works) in enumerate(judged) if works]
        if winners:
            first = next(i for i, (_, works) in enumerate(judged) if works)
            best = max(winners, key=lambda winner: (winner[0], -winner[1]))[1]
            return paint(candidates[best]), size * (generation + 1), generation * size + first + 1
    return paint(parents[int(np.argmax(scores))]), size * (generations + 1), float("inf")


@pytest.mark.parametrize(
    ("channels", "classes", "pixels", "targeted"), [(1, 2, 1, False), (3, 4, 2, False), (3, 4, 3, True)]
)
def test_equals_a_plain_loop(channels: int, classes: int, pixels: int, targeted: bool) -> None:
    model, images = net(channels, classes), draw(10, channels)
    labels = right(model, images)
    target = (labels + 1) % classes if targeted else None
    index = torch.arange(10) * 3 + 100
    result = attacks.one_pixel(
        model,
        images,
        labels,
        pixels=pixels,
        population=7,
        generations=6,
        target=target,
        seed=9,
        index=index,
        batch_size=16,
    )
    assert result.success.any()
    assert not result.success.all()
    victim = Victim(model, 16)
    for i in range(10):
        stream = np.random.default_rng((9, int(index[i])))
        goal = Goal(labels, target)[i : i + 1]
        adversarial, queries, first = plain_loop(victim, images[i], goal, stream, pixels, 7, 6)
        assert torch.equal(result.adversarial[i], adversarial)
        assert result.queries[i] == queries
        assert result.info["queries_to_success"][i].item() == first
        assert result.success[i] == np.isfinite(first)


def exhaustive(model: nn.Module, image: Tensor, label: int, values: Tensor) -> bool:
    """Whether any one grey pixel set to any of ``values`` changes the prediction."""
    side = image.shape[-1]
    many = image.repeat(side * side * len(values), 1, 1, 1).view(side * side, len(values), side * side)
    for place in range(side * side):
        many[place, :, place] = values
    return bool((right(model, many.view(-1, 1, side, side)) != label).any())


def test_finds_what_exhaustive_search_finds_and_nothing_else() -> None:
    model, images = net(seed=3), draw(30, seed=4)
    labels = right(model, images)
    # The logits are piecewise linear in one pixel's value with few pieces: 33 values cover them.
    corners, dense = torch.tensor([0.0, 1.0]), torch.linspace(0, 1, 33)
    possible = torch.tensor(
        [exhaustive(model, im, int(y), corners) for im, y in zip(images, labels, strict=True)]
    )
    conceivable = torch.tensor(
        [exhaustive(model, im, int(y), dense) for im, y in zip(images, labels, strict=True)]
    )
    assert 3 < possible.sum() < 27
    result = attacks.one_pixel(model, images, labels, population=80, generations=40, seed=1)
    assert result.success[possible].all()
    assert not result.success[~conceivable].any()


def test_info_describes_the_image() -> None:
    model, images = net(3, 3), draw(12, 3)
    labels = right(model, images)
    result = attacks.one_pixel(model, images, labels, pixels=2, population=6, generations=5)
    painted = images.clone()
    for pixel in range(2):
        rows, columns = result.info["pixels"][:, pixel].unbind(1)
        painted[torch.arange(12), :, rows, columns] = result.info["colours"][:, pixel]
    assert torch.equal(painted, result.adversarial)
    used = result.info["generations"]
    assert torch.equal(result.queries, (used + 1) * 6)
    history = result.info["history"]
    assert history.shape == (12, 6)
    assert torch.equal((~history.isnan()).sum(1), used + 1)
    assert (history.diff(dim=1).nan_to_num(0) >= 0).all()
    first = result.info["queries_to_success"]
    assert torch.equal(first.isfinite(), result.success)
    assert (first[result.success] > (used * 6)[result.success]).all()
    assert (first[result.success] <= result.queries[result.success]).all()


def test_more_budget_only_adds_successes() -> None:
    model, images = net(), draw(30)
    labels = right(model, images)
    short = attacks.one_pixel(model, images, labels, population=6, generations=2, seed=1)
    long = attacks.one_pixel(model, images, labels, population=6, generations=12, seed=1)
    assert torch.equal(short.success, long.info["queries_to_success"] <= 18)
    assert long.success.sum() > short.success.sum()


def test_another_seed_or_index_draws_otherwise() -> None:
    model, images = net(), draw(1).expand(3, -1, -1, -1).contiguous()
    labels = right(model, images)
    result = attacks.one_pixel(model, images, labels, population=6, generations=1)
    assert len({tuple(place) for place in result.info["pixels"].flatten(1).tolist()}) > 1
    repeated = attacks.one_pixel(
        model, images, labels, population=6, generations=1, index=torch.full((3,), 5)
    )
    assert torch.equal(repeated.adversarial[0], repeated.adversarial[2])
    other = attacks.one_pixel(model, images, labels, population=6, generations=1, seed=1)
    assert not torch.equal(result.adversarial, other.adversarial)


def test_positions_and_colours_cover_everything() -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    images = torch.full((400, 1, 3, 5), 0.5)
    labels = torch.zeros(400, dtype=torch.int64)
    result = attacks.one_pixel(Blind(), images, labels, population=4, generations=3)
    places = {tuple(place) for place in result.info["pixels"][:, 0].tolist()}
    assert places == {(row, column) for row in range(3) for column in range(5)}
    colours = result.info["colours"]
    assert colours.min() < 0.02
    assert colours.max() > 0.98


def test_three_others_are_distinct_and_uniform() -> None:
    uniform = torch.rand(20000, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    picks = torch.stack([torch.arange(5).expand(20000, 5), *three_others(uniform)], dim=-1)
    ordered = picks.sort(dim=-1).values
    assert (ordered.diff(dim=-1) > 0).all()
    assert picks.min() >= 0
    assert picks.max() <= 4
    _, counts = torch.unique(picks[:, 2], dim=0, return_counts=True)
    assert len(counts) == 24
    assert (counts.float() / 20000 - 1 / 24).abs().max() < 0.006
    edge = three_others(torch.full((4, 3), 1 - 2**-53, dtype=torch.float64))
    assert torch.stack(edge).max() <= 3


def layers(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        chains: dict[str, list[nn.Module]] = {
            "wide kernels": [nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.MaxPool2d(3)],
            "two pools": [
                nn.Conv2d(1, 4, 3, padding="same", bias=False),
                nn.MaxPool2d(2),
                nn.Conv2d(4, 5, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ],
            "stride later": [
                nn.Conv2d(1, 4, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(4, 5, 3, stride=2),
                nn.ELU(),
            ],
        }
        if kind in chains:
            return nn.Sequential(*chains[kind], nn.Flatten(), nn.LazyLinear(3)).eval()
        name, size = kind.split()
        return models.load(
            name, classes=("a", "b", "c"), channels=1, width=0.125, input_size=int(size), seed=1
        )


@pytest.mark.parametrize(
    "kind", ["wide kernels", "two pools", "stride later", "small_cnn 24", "vgg16 32", "vgg16 64"]
)
def test_windows_give_the_logits_of_the_whole_network(kind: str) -> None:
    side = int(kind.split()[1]) if kind[-1].isdigit() else 24
    model, images = layers(kind), draw(3, side=side).double()
    model(images.float())  # lazy layers take their shape
    model = (model.fold_batchnorm() if isinstance(model, models.Classifier) else model).double()
    windows = PixelWindows.of(model, images.shape[1:], 7)
    assert windows is not None
    ends = torch.tensor([0, 1, side // 2, side - 2, side - 1])
    rows, columns = (each.flatten() for each in torch.meshgrid(ends, ends, indexing="ij"))
    owners = torch.arange(3).repeat_interleave(len(rows))
    rows, columns = rows.repeat(3), columns.repeat(3)
    colours = draw(len(rows), side=1)[:, :, 0, 0].double()
    painted = images[owners].clone()
    painted[torch.arange(len(rows)), :, rows, columns] = colours
    with torch.no_grad():
        wanted, unchanged = model(painted), model(images)[owners]
    found = windows.logits(images, owners, rows, columns, colours)
    assert (wanted - unchanged).abs().max() > 1e-6, "the pixels matter"
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-9)

    single = PixelWindows.of(model.float(), images.shape[1:], 32)
    assert single is not None
    given = [images.float(), owners, rows, columns, colours.float()]
    together = single.logits(*given)
    alone = [single.logits(given[0], *(each[k : k + 1] for each in given[1:])) for k in (0, 40)]
    assert torch.equal(torch.cat(alone), together[[0, 40]]), "what is beside a candidate changes nothing"


def test_windows_only_where_they_hold() -> None:
    shape = torch.Size((1, 24, 24))
    assert PixelWindows.of(models.load("resnet18", classes=("a", "b"), channels=1), shape, 8) is None
    assert PixelWindows.of(nn.Sequential(nn.Flatten(), nn.Linear(576, 2)), shape, 8) is None
    plain = layers("two pools")
    plain(draw(1, side=24))
    assert PixelWindows.of(plain, torch.Size((1, 4, 4)), 8) is None, "the window is most of the image"
    assert PixelWindows.of(defenses.HeatAndBlur(layers("small_cnn 24")), shape, 8) is None, (
        "not the network alone"
    )
    plain[0].register_forward_hook(lambda *_: None)
    assert PixelWindows.of(plain, shape, 8) is None, "a hook wants whole maps"
    reflecting = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten())
    assert PixelWindows.of(reflecting, shape, 8) is None


def test_windows_forget_maps_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, labels = layers("small_cnn 24"), draw(6, side=24), torch.zeros(6, dtype=torch.int64)
    whole = attacks.one_pixel(model, images, labels, population=6, generations=3)
    monkeypatch.setattr(pixel_windows, "KEPT_BYTES", 1)
    short = attacks.one_pixel(model, images, labels, population=6, generations=3)
    assert torch.equal(whole.adversarial, short.adversarial)
    monkeypatch.setattr(PixelWindows, "of", lambda *_: None)
    slow = attacks.one_pixel(model, images, labels, population=6, generations=3)
    assert torch.equal(whole.adversarial, slow.adversarial)
    torch.testing.assert_close(
        whole.info["history"], slow.info["history"], equal_nan=True, atol=1e-5, rtol=1e-5
    )
