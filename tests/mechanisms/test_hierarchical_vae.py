"""The hierarchical VAE: its posterior, its mediator, its shapes and its settings."""

from __future__ import annotations

from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch.distributions import Normal

from deepscm_pl.likelihoods import DiscretisedLogisticMixture, FixedVarianceGaussian
from deepscm_pl.mechanisms import AffineFlow, Context, HierarchicalVAE, hierarchical_vae
from deepscm_pl.nn import Ladder, LadderShapes
from deepscm_pl.training import DeepSCM, export_model
from deepscm_pl.variables import Domain

from tiny import TinyDataModule

SMALL = partial(Ladder, channels=(4, 5, 6), latents=(1, 2, 3), embedding=4)
PARENTS = {"age": torch.tensor([[0.3], [-1.0], [0.7]]), "sex": torch.tensor([[0.0], [1.0], [1.0]])}
CHANGED = {"age": torch.tensor([[1.3], [0.5], [-0.7]]), "sex": torch.tensor([[1.0], [1.0], [0.0]])}


def made(prior="conditional", ladder=SMALL, shape=(1, 9, 10), **more):
    torch.manual_seed(0)
    context = Context({"age": Domain(), "sex": Domain(categories=2)})
    vae = HierarchicalVAE(context, shape, ladder=ladder, prior=prior, **more)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return vae


@pytest.fixture
def vae(double):
    return made()


@pytest.fixture
def image(vae):
    return vae.dequantise(torch.randint(0, 256, (3, *vae.shape)).double())


def doubled(parents):
    return {name: each.double() for name, each in parents.items()}


@pytest.mark.parametrize("prior", ["exogenous", "conditional"])
def test_the_divergence_is_the_mean_of_the_log_ratios(double, prior):
    vae = made(prior)
    image = vae.dequantise(torch.randint(0, 256, (3, *vae.shape)).double())
    with torch.no_grad():
        draws = vae.posterior(image, doubled(PARENTS)).draw((1_000,))
    error = draws.log_ratio.std(dim=0) / 1_000**0.5
    difference = draws.divergences.sum(-1) + draws.log_ratio.mean(dim=0)
    assert (difference.abs() < 4 * error).all()


def test_the_distribution_has_the_density_of_its_draws(vae, image):
    posterior = vae.posterior(image, doubled(PARENTS))
    draws = posterior.draw((4,))
    expected = Normal(0.0, 1.0).log_prob(draws.latent).sum(-1) - draws.log_ratio
    torch.testing.assert_close(posterior.distribution().log_prob(draws.latent), expected)


def test_fine_scales_depend_on_the_draws_of_coarse_ones(vae, image):
    posterior = vae.posterior(image, doubled(PARENTS))
    latent = posterior.draw(()).latent
    other = latent.clone()
    other[..., 0] += 1.0
    rows = [posterior._in_chunks(1, each, is_given=True) for each in (latent, other)]
    coarse = vae.ladder.counts[0]
    assert torch.equal(rows[0].location[:, :coarse], rows[1].location[:, :coarse])
    assert not torch.allclose(rows[0].location[:, coarse:], rows[1].location[:, coarse:])


def test_chunks_change_nothing(vae, image, monkeypatch):
    found = []
    for numbers in (2**30, 1):
        monkeypatch.setattr(hierarchical_vae, "_NUMBERS_AT_A_TIME", numbers)
        torch.manual_seed(1)
        with torch.no_grad():
            found.append(vae.abduct(image, doubled(PARENTS), (2,)))
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], atol=1e-9, rtol=1e-9)


def test_the_output_of_a_draw_is_that_of_the_decoder(vae, image):
    parents = doubled(PARENTS)
    draws = vae.posterior(image, parents).draw((2,))
    torch.testing.assert_close(draws.content, vae.decode(draws.latent, parents))


def test_the_posterior_has_all_parameters_that_samples_do_not_need(vae):
    vae.zero_grad()
    vae.decode(torch.randn(3, vae.latent), doubled(PARENTS)).sum().backward()
    unused = {name for name, each in vae.ladder.named_parameters() if each.grad is None}
    of_posterior = {id(each) for each in vae.posterior_parameters()}
    named = {name for name, each in vae.ladder.named_parameters() if id(each) in of_posterior}
    assert unused == named


def test_the_exogenous_latent_does_not_depend_on_parents(double):
    vae = made("exogenous")
    noise = torch.randn(3, vae.latent)
    assert torch.equal(vae._translated(noise, doubled(PARENTS), is_latent=False), noise)
    assert torch.equal(vae._translated(noise, doubled(CHANGED), is_latent=False), noise)


def test_the_noise_of_the_mediator_is_abducted_exactly(vae):
    noise, parents, changed = vae.sample_noise((3,)), doubled(PARENTS), doubled(CHANGED)
    mediator = vae.mediator(noise, parents)
    assert (mediator - vae.mediator(noise, changed)).abs().max() > 0.01
    torch.testing.assert_close(vae.with_mediator(noise, mediator, parents)["z"], noise["z"])
    held = vae.with_mediator(noise, mediator, changed)
    torch.testing.assert_close(vae.mediator(held, changed), mediator)


def test_direct_and_indirect_effects_are_nested_counterfactuals(vae):
    noise, parents, changed = vae.sample_noise((3,)), doubled(PARENTS), doubled(CHANGED)
    found = vae.mediated(noise, parents, changed)
    factual = vae(noise, parents)
    assert torch.equal(found.total, vae(noise, changed))
    for path in (found.direct, found.indirect):
        assert not torch.allclose(path, factual)
        assert not torch.allclose(path, found.total)
    unchanged = vae.mediated(noise, parents, parents)
    for each in unchanged:
        torch.testing.assert_close(each, factual)


def test_without_dependence_of_the_prior_every_effect_is_direct(vae):
    with torch.no_grad():
        for rung in vae.ladder.rungs:
            for parameter in rung.prior.parameters():
                parameter.zero_()
    noise, parents = vae.sample_noise((3,)), doubled(PARENTS)
    found = vae.mediated(noise, parents, doubled(CHANGED))
    torch.testing.assert_close(found.direct, found.total)
    torch.testing.assert_close(found.indirect, vae(noise, parents))


@pytest.mark.parametrize("prior", ["exogenous", "conditional"])
def test_ten_cycles_return_the_recorded_image(prior):
    vae = made(prior, likelihood=DiscretisedLogisticMixture)
    image = torch.randint(0, 256, (3, *vae.shape)).float()
    noise = vae.coupled(vae.abduct_recorded(image, PARENTS), PARENTS)
    for _ in range(10):
        changed = vae.quantise(vae(noise, CHANGED))
        assert changed.min() >= 0
        assert changed.max() <= 255
        assert torch.equal(vae.quantise(vae(noise, PARENTS)), image)


@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 64, 64), (1, 192, 192), (1, 5, 6, 4), (1, 1, 1), (2, 3, 2)]
)
def test_images_and_volumes_of_all_sizes(shape):
    ladder = Ladder
    if min(shape[1:]) < 8:
        ladder = partial(Ladder, channels=(4, 6), latents=(1, 2))
    elif max(shape) > 64:
        ladder = partial(Ladder, channels=(2, 2, 4, 4, 8), latents=(0, 0, 2, 2, 4))
    vae = HierarchicalVAE(Context(), shape, ladder=ladder)
    image = vae.dequantise(torch.full((2, *shape), 130.0))
    evidence = vae.evidence(image, {})
    assert evidence.bound.shape == (2,)
    assert torch.equal(vae.quantise(vae(vae.abduct(image, {}), {})), torch.full((2, *shape), 130.0))


def test_the_output_keeps_its_precision_under_autocast():
    low = made()
    image = low.dequantise(torch.randint(0, 256, (3, *low.shape)).float())
    with torch.autocast("cpu", torch.bfloat16):
        evidence = low.evidence(image, PARENTS)
        decoded = low.decode(torch.randn(3, low.latent), PARENTS)
    assert evidence.bound.dtype == decoded.dtype == torch.float32
    assert not torch.equal(decoded, decoded.bfloat16().float())


WRONG = {
    "prior: expected exogenous or conditional, but got 'mediator'": {"prior": "mediator"},
    "ladder: expected a Ladder": {"ladder": lambda shapes, has_prior: torch.nn.Identity()},
    "latents: expected 3": {"ladder": partial(Ladder, latents=(1, 2))},
    "latents: expected .* of at least 0": {"ladder": partial(Ladder, latents=(1, -2, 3))},
    "ladder: latents: expected a whole number from 1 to 16384, but got 0": {
        "ladder": partial(Ladder, latents=(0, 0, 0))
    },
    "channels: expected at least 2": {"ladder": partial(Ladder, channels=(8,), latents=(8,))},
    "channels: expected at most": {
        "ladder": partial(Ladder, channels=(2,) * 20, latents=(1,) * 20)
    },
    "blocks: expected": {"ladder": partial(Ladder, blocks=-1)},
    "embedding: expected": {"ladder": partial(Ladder, embedding=0)},
    "coupling: renewed requires": {
        "coupling": "renewed",
        "likelihood": lambda *a: __import__("deepscm_pl").SharedCovarianceGaussian(*a),
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings_are_named(message):
    with pytest.raises(ValueError, match=message):
        made(**WRONG[message])


@pytest.mark.parametrize("method", ["mediator", "mediated", "with_mediator"])
def test_an_exogenous_prior_has_no_mediator(method):
    vae = made("exogenous")
    noise = vae.sample_noise((3,))
    others = {"mediator": (PARENTS,), "mediated": (PARENTS, CHANGED)}
    rest = others.get(method, (noise["z"], PARENTS))
    with pytest.raises(ValueError, match=r"prior: expected conditional, .* but it is exogenous"):
        getattr(vae, method)(noise, *rest)


def test_the_noise_has_one_size_for_each_scale():
    shapes = LadderShapes((1, 9, 10), (1, 9, 10), observed=0, condition=0)
    ladder = SMALL(shapes, False)
    assert ladder.counts == (3, 2 * 3 * 3, 1 * 6 * 6)
    parts = ladder.split(torch.arange(float(ladder.latent))[None])
    assert [tuple(part.shape) for part in parts] == [(1, 3, 1, 1), (1, 2, 3, 3), (1, 1, 6, 6)]
    assert torch.equal(torch.cat([part.flatten() for part in parts]), torch.arange(57.0))


def test_likelihoods_receive_the_plane_of_a_volume():
    vae = HierarchicalVAE(
        Context(),
        (1, 5, 6, 4),
        ladder=partial(Ladder, channels=(4, 6), latents=(1, 2)),
        likelihood=FixedVarianceGaussian,
    )
    assert vae.decode(torch.randn(2, vae.latent), {}).shape == (2, 1, 30, 4)


def test_counterfactuals_have_gradients_for_tuning():
    vae = made(likelihood=DiscretisedLogisticMixture, coupling="renewed")
    image = torch.randint(0, 256, (3, *vae.shape)).float()
    noise = vae.coupled(vae.abduct_recorded(image, PARENTS), PARENTS)
    vae(noise, CHANGED).sum().backward()
    for name, parameter in vae.ladder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_trained_model_is_saved_and_exported(tmp_path):
    image = partial(HierarchicalVAE, shape=(1, 8, 8), ladder=SMALL, prior="conditional")
    model = DeepSCM("thickness -> image", {"thickness": AffineFlow, "image": image})
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, max_steps=2, **quiet)
    trainer.fit(model, datamodule=TinyDataModule())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    exported = export_model(tmp_path / "model.ckpt", tmp_path / "model.safetensors")
    for path in (tmp_path / "model.ckpt", exported):
        again = DeepSCM.load_from_checkpoint(path)
        assert again.scm["image"].prior == "conditional"
        assert again.scm["image"].scales == (3, 2 * 2 * 2, 4 * 4)
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)
