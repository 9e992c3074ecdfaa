"""Networks of a linear Gaussian VAE, whose densities have closed forms."""

from __future__ import annotations

import torch


class LogitFeatures(torch.nn.Module):
    """Encoder that returns the preprocessed image as features."""

    def __init__(self, shape, condition_features):
        super().__init__()
        self.out_features = shape[0] * shape[1] * shape[2]

    def forward(self, scaled, condition):
        p = 0.05 + 0.95 * (scaled + 1) / 2
        return p.logit().flatten(1)


class LinearImage(torch.nn.Module):
    def __init__(self, latent_features, condition_features, shape):
        super().__init__()
        inputs = latent_features + condition_features
        self.linear = torch.nn.Linear(inputs, shape[0] * shape[1] * shape[2])
        self.shape = shape

    def forward(self, latent, condition):
        return self.linear(torch.cat([latent, condition], dim=-1)).view(-1, *self.shape)
