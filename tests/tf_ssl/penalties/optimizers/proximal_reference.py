"""NumPy truth of the group Lasso, in float64."""

import numpy as np


def prox(y, d, t):
    """Proximal step of one group in the metric d, by bisection."""
    if np.linalg.norm(d * y) <= t:
        return np.zeros_like(y)
    if t == 0:
        return y.copy()
    low, high = 0.0, np.linalg.norm(y)
    for _ in range(60):
        r = (low + high) / 2
        if np.linalg.norm(d * y / (d * r + t)) > 1:
            low = r
        else:
            high = r
    return y * d * high / (d * high + t)


def dykstra(y, d, t, groups, cycles=2000):
    """Proximal step over groups that overlap, one group after another.

    groups: lists of indices into y; t: one number a group.
    """
    x = y.copy()
    corrections = [np.zeros(len(g)) for g in groups]
    for _ in range(cycles):
        before = x.copy()
        for g, correction, step in zip(groups, corrections, t, strict=True):
            moved = x[g] + correction
            x[g] = prox(moved, d[g], step)
            correction[:] = moved - x[g]
        if np.abs(x - before).max() < 1e-11:
            break
    return x


def minimize(hessian, linear, groups, strengths):
    """argmin 1/2 w'Hw - b'w + sum_g strength_g ||w_g||, by FISTA to 1e-13."""
    step = 1 / np.linalg.eigvalsh(hessian)[-1]
    w = np.zeros(len(linear))
    ahead, momentum = w, 1.0
    for _ in range(200000):
        y = ahead - step * (hessian @ ahead - linear)
        after = np.zeros_like(w)
        for g, strength in zip(groups, strengths, strict=True):
            after[g] = prox(y[g], np.ones(len(g)), step * strength)
        if (y - after) @ (after - w) > 0 and momentum > 1:
            momentum = 1.0  # Restart.
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / faster * (after - w)
        change, w, momentum = np.abs(after - w).max(), after, faster
        if change < 1e-15:
            break
    return w
