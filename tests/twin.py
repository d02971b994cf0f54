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
