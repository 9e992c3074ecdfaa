"""Modules without values, which are built to know their shapes."""

import torch

from deepscm_pl.model_memory import without_values


def test_only_tensors_without_values_stay_uninitialised():
    """A constructor may draw numbers of its own, on a device that has values."""
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    with without_values():
        drawn = torch.empty(3, device="cpu").normal_()
        assert torch.empty(3).normal_().is_meta
    assert torch.equal(drawn, expected)
