"""Attacks that no library here offers, written as plainly as their papers put them: one image after the other."""

import numpy as np
import torch
from scipy.optimize import fmin_l_bfgs_b
from torch import Tensor, nn


def box_lbfgs(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    initial_const: float = 1.0,
    search_steps: int = 10,
    iterations: int = 100,
) -> Tensor:
    """Szegedy et al. (2014), Sec. 4.1, untargeted: |r|^2 - c log(1 - p_label).

    c is multiplied by 10 until the minimum is of another class, then bisected; the shortest such r counts.
    """

    def attack(image: Tensor, label: int) -> Tensor:
        start = image.numpy().astype(np.float64).ravel()

        def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray, bool]:
            candidate = torch.from_numpy(flat.astype(np.float32)).view(1, *image.shape).requires_grad_()
            logits = model(candidate)[0].double()
            others = logits[torch.arange(len(logits)) != label].logsumexp(0)
            loss = nn.functional.softplus(logits[label] - others)
            slope = torch.autograd.grad(loss, candidate)[0]
            return loss.item(), slope.numpy().astype(np.float64).ravel(), bool(logits.argmax() != label)

        low, high, constant, best, shortest = 0.0, np.inf, initial_const, start, np.inf
        for _ in range(search_steps):

            def objective(flat: np.ndarray, constant: float = constant) -> tuple[float, np.ndarray]:
                loss, slope, _ = evaluate(flat)
                return ((flat - start) ** 2).sum() + constant * loss, 2 * (flat - start) + constant * slope

            found, _, _ = fmin_l_bfgs_b(objective, start, bounds=[(0, 1)] * len(start), maxiter=iterations)
            if evaluate(found)[2]:
                high = constant
                if (length := float(np.linalg.norm(found - start))) < shortest:
                    best, shortest = found, length
            else:
                low = constant
            constant = 10 * constant if np.isinf(high) else (low + high) / 2
        return torch.from_numpy(best.astype(np.float32)).view(image.shape)

    return torch.stack([attack(image, int(label)) for image, label in zip(images, labels, strict=True)])
