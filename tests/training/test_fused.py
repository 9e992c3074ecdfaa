from __future__ import annotations

import copy

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, RMSprop

from deepscm_pl.training.schedule import fuse


def steps(optimizer, weights, count=5):
    for _ in range(count):
        for each in weights:
            each.grad = each.detach() ** 2 - 1
        optimizer.step()
    return [each.detach() for each in weights]


def weights(device="cpu"):
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 5), (3,)]
    return [torch.nn.Parameter(torch.randn(s, generator=generator, device=device)) for s in shapes]


@pytest.mark.parametrize("kind", [Adam, AdamW, SGD, RMSprop])
def test_a_fused_optimiser_does_the_same(kind):
    first, second = weights(), weights()
    found = steps(fuse(kind(first, lr=0.01)), first)
    expected = steps(kind(second, lr=0.01), second)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"fused": False}, False),
        ({"foreach": True}, None),
        ({"differentiable": True}, None),
        ({"capturable": True}, None),
    ],
)
def test_explicit_settings_are_kept(settings, expected):
    groups = fuse(Adam(weights(), **settings)).param_groups
    assert [group["fused"] for group in groups] == [expected]


def test_devices_without_a_kernel_are_unchanged():
    assert fuse(Adam(weights("meta"))).param_groups[0]["fused"] is None


def test_a_state_that_is_not_fused_resumes_so():
    old, new = weights(), weights()
    before = Adam(old, lr=0.01)
    steps(before, old)
    after = fuse(Adam(new, lr=0.01))
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    with torch.no_grad():
        for one, other in zip(new, old, strict=True):
            one.copy_(other)
    for one, other in zip(steps(after, new), steps(before, old), strict=True):
        assert torch.equal(one, other)
