"""Feature networks that a user has as programs, in the forms of torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepscm_pl.metrics import FeatureProgram, PairProgram, PerceptualDistance, load_program

SHAPE = (1, 8, 8)


class Features(nn.Module):
    """Sums of bytes of each channel."""

    def forward(self, images):
        assert images.dtype == torch.uint8
        return images.float().sum(dim=(2, 3))


class Distance(nn.Module):
    def forward(self, images, others):
        return (images - others).abs().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def traced(tmp_path):
    """Write a network as TorchScript."""

    def write(network, *images):
        path = tmp_path / "network.pt"
        torch.jit.save(torch.jit.trace(network, images), path)
        return path

    return write


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_feature_network_in_torchscript(traced):
    path = traced(Features(), torch.zeros(3, 3, 8, 8, dtype=torch.uint8))
    features = FeatureProgram(load_program(path), SHAPE)
    assert features.features == 3
    assert features(torch.full((5, *SHAPE), 254.7)).unique().item() == 64 * 255


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_a_perceptual_distance_in_torchscript(traced):
    path = traced(Distance(), torch.zeros(3, 3, 8, 8), torch.zeros(3, 3, 8, 8))
    metric = PerceptualDistance(PairProgram(load_program(path), SHAPE))
    metric.update(torch.zeros(4, *SHAPE), torch.full((4, *SHAPE), 51.0))
    assert metric.compute()["perceptual_distance"].mean == pytest.approx(0.4)


def test_an_exported_feature_network(tmp_path):
    path, example = tmp_path / "network.pt2", torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    program = torch.export.export(Features(), (example,), dynamic_shapes=(batch,))
    torch.export.save(program, path)
    features = FeatureProgram(load_program(path), SHAPE)
    assert features(torch.ones(7, *SHAPE)).unique().item() == 64


def test_programs_of_other_forms_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"features: .*none.pt does not exist"):
        load_program(tmp_path / "none.pt")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no program")
    with pytest.raises(ValueError, match=r"perceptual: expected a program in TorchScript or"):
        load_program(broken, "perceptual")
    with pytest.raises(
        ValueError, match=r"returns \(images, features\), but .* shape \(3, 3, 8, 8"
    ):
        FeatureProgram(lambda images: images, SHAPE)
    with pytest.raises(ValueError, match=r"any number of images .* fails for \(3, 3, 8, 8\)"):
        FeatureProgram(lambda images: images[:, 5], SHAPE)
    with pytest.raises(ValueError, match="that returns a tensor; wrap it"):
        FeatureProgram(lambda images: [images], SHAPE)
    with pytest.raises(ValueError, match=r"one distance for each pair .* it returns 192 numbers"):
        PairProgram(lambda one, two: (one - two)[:, :1], SHAPE)
