"""Parameters that are learned faster than the others of a network."""

from __future__ import annotations

__all__ = ["PACE"]

PACE = 10.0
"""By what a parameter is multiplied that is to be learned that much faster: optimisers such as Adam
change all parameters at one pace, whatever their gradients are."""
