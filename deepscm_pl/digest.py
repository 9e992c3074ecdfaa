"""Digests of weights, by which files about a network can name it."""

from __future__ import annotations

import hashlib

from torch import nn

__all__ = ["weights_digest"]


def weights_digest(network: nn.Module) -> str:
    """Return the SHA-256 of the weights of a network, the same wherever they are stored.

    Names do not matter, so that a network has the digest of a module that contains only it.

    Example:
        >>> network = nn.Linear(2, 1)
        >>> weights_digest(network) == weights_digest(nn.Sequential(network))
        True
    """
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
