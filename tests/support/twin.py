"""Float64 NumPy twins of what bnnlib does in torch, written from the paper and the authors' code.

They share no code with bnnlib: an error would have to be made twice.
"""

import numpy as np

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 1.5, -1.5, 0.3, -0.3, 1e-30, -1e-30, np.nextafter(1, 2)])


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def hard_sigmoid(x):
    return np.clip((x + 1) / 2, 0, 1)


def straight_through(grad, x):
    return grad * (np.abs(x) <= 1)


def ap2(x):
    with np.errstate(divide="ignore"):
        return np.sign(x) * 2.0 ** np.round(np.log2(np.abs(x)))


class BatchNorm:
    """Training-mode batch norm over axis 0, with Lasagne's running mean and inverse std."""

    def __init__(self, features):
        self.gamma, self.beta = np.ones(features), np.zeros(features)
        self.mean, self.inv_std = np.zeros(features), np.ones(features)

    def forward(self, x):
        mean, inv_std = x.mean(0), 1 / np.sqrt(x.var(0) + 1e-4)
        self.mean = 0.9 * self.mean + 0.1 * mean
        self.inv_std = 0.9 * self.inv_std + 0.1 * inv_std
        self.normalized, self.batch_inv_std = (x - mean) * inv_std, inv_std
        return self.gamma * self.normalized + self.beta

    def backward(self, grad):
        self.grad_gamma, self.grad_beta = (grad * self.normalized).sum(0), grad.sum(0)
        g = grad * self.gamma
        centred = g - g.mean(0) - self.normalized * (g * self.normalized).mean(0)
        return centred * self.batch_inv_std


class ShiftBatchNorm:
    """Shift-based batch norm over axis 0; averages the inverse std, or as printed the variance."""

    def __init__(self, features, printed, start):
        self.gamma, self.beta = np.ones(features), np.zeros(features)
        self.printed, self.mean, self.spread = printed, np.zeros(features), np.full(features, start)

    def forward(self, x):
        mean = x.mean(0)
        centred = x - mean
        variance = (centred * ap2(centred)).mean(0)
        inv_std = 1 / np.sqrt(variance + 1e-5)
        self.mean = (1 - 0.125) * self.mean + 0.125 * mean
        averaged = variance if self.printed else inv_std
        self.spread = (1 - 0.125) * self.spread + 0.125 * averaged
        self.centred, self.s = ap2(centred), ap2(inv_std)
        self.normalized = ap2(centred * self.s)
        return ap2(self.gamma) * (centred * self.s) + self.beta

    def backward(self, grad):
        """SpatialBatchNormalizationShiftPow2.lua, updateGradInput, in its order."""
        self.grad_gamma, self.grad_beta = (self.normalized * grad).sum(0), grad.sum(0)
        along = -(self.centred * grad).mean(0) * self.centred * self.s * self.s
        return (along + grad - grad.mean(0)) * self.s * ap2(self.gamma)

    def evaluate(self, x):
        inv_std = 1 / np.sqrt(self.spread + 1e-5) if self.printed else self.spread
        return (x - self.mean) * ap2(inv_std) * ap2(self.gamma) + self.beta


def squared_hinge(scores, labels):
    """Loss and its gradient with respect to the scores."""
    targets = -np.ones_like(scores)
    targets[np.arange(len(labels)), labels] = 1
    margin = np.maximum(0, 1 - targets * scores)
    return (margin**2).mean(), -2 * targets * margin / scores.size


def adam(value, grad, state, t, rate, beta1=0.9, beta2=0.999, eps=1e-8):
    """Lasagne's Adam; state is a list [m, v] that is replaced in place."""
    state[0] = beta1 * state[0] + (1 - beta1) * grad
    state[1] = beta2 * state[1] + (1 - beta2) * grad**2
    corrected = rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    return value - corrected * state[0] / (np.sqrt(state[1]) + eps)


def adamax_printed(value, grad, state, t, rate, scale):
    """NIPS, Algorithm 2, with AdaMax's 1 - beta1^t; where v is 0, nothing moves."""
    beta1, beta2 = 7 / 8, 1023 / 1024
    state[0] = beta1 * state[0] + grad / 8
    state[1] = np.maximum(beta2 * state[1], np.abs(grad))
    inverse = np.array([ap2(1 / v) if v > 0 else 0.0 for v in state[1]])
    return value - scale * ap2(rate / (1 - beta1**t)) * state[0] * inverse


def adamax_coded(value, grad, state, t, rate, scale):
    """adaMax_binary_clip_shift.lua: the rounded second moment is the state."""
    state[0] = 0.9 * state[0] + 0.1 * grad
    state[1] = ap2(np.maximum(0.999 * state[1], np.abs(grad))) + 2.0**-27
    return value - scale * ap2(rate / (1 - 0.9**t)) * state[0] / state[1]


def adamax_decaying(value, grad, state, t, rate, scale):
    state[0] = 0.9 * state[0] + 0.1 * grad
    state[1] = np.maximum(0.999 * state[1], np.abs(grad))
    return value - scale * ap2(rate / (1 - 0.9**t)) * state[0] / (ap2(state[1]) + 2.0**-27)


class Mlp:
    """Algorithm 1 of the paper, dense: forward, backward, Adam, multiplier, clipping."""

    def __init__(self, weights, biases):
        self.weights, self.biases = [w.copy() for w in weights], [b.copy() for b in biases]
        self.norms = [BatchNorm(len(b)) for b in biases]
        self.states, self.t = {}, 0

    def forward(self, x):
        self.inputs, self.normals = [], []
        for k, (weight, bias, norm) in enumerate(
            zip(self.weights, self.biases, self.norms, strict=True)
        ):
            self.inputs.append(x)
            normal = norm.forward(x @ sign(weight).T + bias)
            self.normals.append(normal)
            x = sign(normal) if k < len(self.weights) - 1 else normal
        return x

    def step(self, x, labels, rate):
        loss, grad = squared_hinge(self.forward(x), labels)
        self.t += 1
        for k in reversed(range(len(self.weights))):
            if k < len(self.weights) - 1:
                grad = straight_through(grad, self.normals[k])
            norm, fan_out, fan_in = self.norms[k], *self.weights[k].shape
            grad = norm.backward(grad)
            grad_weight, grad_bias = grad.T @ self.inputs[k], grad.sum(0)
            grad = grad @ sign(self.weights[k])
            multiplier = 1 / np.sqrt(1.5 / (fan_in + fan_out))
            updated = self.updated(("w", k), self.weights[k], grad_weight, rate)
            moved = self.weights[k] + multiplier * (updated - self.weights[k])
            self.weights[k] = np.clip(moved, -1, 1)
            self.biases[k] = self.updated(("b", k), self.biases[k], grad_bias, rate)
            norm.gamma = self.updated(("gamma", k), norm.gamma, norm.grad_gamma, rate)
            norm.beta = self.updated(("beta", k), norm.beta, norm.grad_beta, rate)
        return loss

    def updated(self, name, value, grad, rate):
        state = self.states.setdefault(name, [np.zeros_like(value), np.zeros_like(value)])
        return adam(value, grad, state, self.t, rate)


def neighbours(x, values):
    """The two of `values` equally spaced numbers from -1 to 1 that x lies between, or on."""
    grid = np.linspace(-1, 1, values)
    below = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, values - 2)
    return grid[below], grid[below + 1]


def nearest(x, values):
    """The nearer one of the two, the upper one where both are as near."""
    lower, upper = neighbours(x, values)
    return np.where(upper - x <= x - lower, upper, lower)
