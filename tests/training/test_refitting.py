"""The last phase of a training, in which the posterior is refitted and all else is frozen."""

from __future__ import annotations

import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from test_deep_scm import make as make_model
from test_resuming import Curves

from deepscm_pl.callbacks import EvaluationReport
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.mechanisms import ConditionalVAE
from deepscm_pl.runs.output import EpochLines
from deepscm_pl.training import (
    CounterfactualObjective,
    DeepSCM,
    EvidenceLowerBoundObjective,
    OneCycle,
)
from deepscm_pl.training.objectives import TrainingProgress

from linear_image import LinearImage, LogitFeatures
from tiny import TinyDataModule


def fit(model, data, **settings):
    curves = Curves()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=curves,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **{"enable_progress_bar": False, **settings},
    )
    trainer.fit(model, datamodule=data)
    return curves.points


class Watch(pl.Callback):
    """The parameters and learning rates before each step."""

    def __init__(self):
        self.states, self.rates = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.states.append({n: p.detach().clone() for n, p in pl_module.named_parameters()})
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_end(self, trainer, pl_module):
        self.on_train_batch_start(trainer, pl_module, None, None)


TEMPERED = partial(EvidenceLowerBoundObjective, divergence_weight=0.5, refit=0.5)


@pytest.mark.parametrize(
    "objective",
    [
        TEMPERED,
        partial(CounterfactualObjective, variables=[["thickness"]], objective=TEMPERED),
    ],
)
def test_only_the_posterior_changes_in_the_phase(tmp_path, capsys, objective):
    torch.manual_seed(0)
    model, watch = make_model(objective=objective, scheduler=OneCycle), Watch()
    points = fit(
        model,
        TinyDataModule(),
        max_epochs=3,
        callbacks=[watch, EpochLines()],
        enable_progress_bar=True,
        gradient_clip_val=1.0,
        default_root_dir=tmp_path,
    )
    posterior = {
        name
        for name in watch.states[0]
        if name.startswith(("scm.mechanisms.image.encoder", "scm.mechanisms.image.posterior_head"))
    }
    for step, (before, after) in enumerate(zip(watch.states, watch.states[1:], strict=False)):
        if step == 0:
            continue  # last layers start at zero, and those before them have no gradient
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == (posterior if step >= 6 else set(before)), step
    assert [value for _, name, value in points if name == "train/phase"] == [1.0] * 6 + [2.0] * 6
    weights = [value for _, name, value in points if name == "train/kl_weight"]
    assert weights == [0.5] * 6 + [1.0] * 6
    assert watch.rates[:6] == pytest.approx([2 * rate for rate in watch.rates[6:12]])
    lines = capsys.readouterr().out.splitlines()
    marked = [line for line in lines if "posterior refitted" in line]
    assert marked
    shares = [int(line.split()[1]) for line in lines if line.startswith("trained ")]
    assert "posterior refitted" not in next(line for line in lines if line.startswith("trained "))
    assert min(shares) < 50


def test_share_of_the_phase():
    def share(**settings):
        return EvidenceLowerBoundObjective(1, **settings).refit

    assert (share(), share(divergence_weight=0.5), share(free_bits=0.1)) == (0.0, 0.15, 0.15)
    assert share(divergence_weight=0.5, refit=0.0) == 0.0
    objective = EvidenceLowerBoundObjective(1, divergence_weight=0.5, refit=0.2)
    progress = [TrainingProgress(step, 0, 10) for step in (7, 8, 9)]
    assert [objective.is_refitting(each) for each in progress] == [False, True, True]
    assert [objective.divergence_weight_at(each) for each in progress] == [0.5, 1.0, 1.0]
    assert not objective.is_refitting(TrainingProgress(9, 0))
    for refit in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="refit: expected"):
            EvidenceLowerBoundObjective(1, refit=refit)


def test_the_number_of_steps_has_to_be_known(tmp_path):
    model = make_model(objective=TEMPERED, scheduler=None)
    with pytest.raises(ValueError, match="objective: refit needs the number"):
        fit(model, TinyDataModule(), max_epochs=-1, default_root_dir=tmp_path)


def test_a_cycle_of_another_length_is_refused(tmp_path):
    for steps, refit in ((12, 0.5), (7, 0.0)):
        objective = partial(TEMPERED, refit=refit)
        model = make_model(objective=objective, scheduler=partial(OneCycle, total_steps=steps))
        watch = Watch()
        fit(model, TinyDataModule(), max_epochs=3, callbacks=[watch], default_root_dir=tmp_path)
        if refit:  # 12 steps are those of the training, so that each phase has a cycle
            assert watch.rates[:6] == pytest.approx([2 * rate for rate in watch.rates[6:12]])
    model = make_model(objective=TEMPERED, scheduler=partial(OneCycle, total_steps=7))
    with pytest.raises(ValueError, match="total_steps: expected 12, the steps of the training, b"):
        fit(model, TinyDataModule(), max_epochs=3, default_root_dir=tmp_path)


class StopAfterEpoch(pl.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == self.epoch


@pytest.mark.parametrize(
    ("epoch", "objective", "warns"),
    [(0, TEMPERED, True), (1, TEMPERED, False), (9, TEMPERED, False), (0, None, False)],
)
def test_a_training_that_stops_before_the_phase_warns(tmp_path, recwarn, epoch, objective, warns):
    model = make_model(objective=objective)
    callbacks = [StopAfterEpoch(epoch)]
    fit(model, TinyDataModule(), max_epochs=3, callbacks=callbacks, default_root_dir=tmp_path)
    found = [
        str(each.message) for each in recwarn if "would have been refitted" in str(each.message)
    ]
    assert len(found) == warns
    if warns:
        assert "ended at step 4, but the posterior would have been refitted from step 6" in found[0]


class Drawn(CausalDataModule):
    """Images drawn from a model."""

    def __init__(self, scm):
        super().__init__(batch_size=500, validation_size=500)
        self.scm = scm

    def load(self):
        with torch.no_grad():
            train, test = (self.scm.sample(size) for size in (10_500, 10))
        return SourceSplits(train=train, test=test)


def coverage(folder, beta, refit):
    """How often the range of 19 particles holds the latent, in a world that is the model."""
    torch.manual_seed(1)
    model = DeepSCM(
        "image",
        {
            "image": partial(
                ConditionalVAE,
                shape=(1, 4, 4),
                latent=2,
                encoder=LogitFeatures,
                decoder=LinearImage,
            )
        },
        optimizer=partial(torch.optim.Adam, lr=0.02),
        scheduler=OneCycle,
        objective=partial(EvidenceLowerBoundObjective, divergence_weight=beta, refit=refit),
    )
    vae = model.scm["image"]
    weight = 0.3 * torch.linalg.qr(torch.randn(16, 2))[0]  # so that the posterior is factorised
    head = torch.nn.Linear(16, 4)
    with torch.no_grad():
        vae.decoder.linear.weight.copy_(weight)
        vae.decoder.linear.bias.zero_()
        head.weight.zero_()
        head.weight[:2] = weight.T / 0.3**2
        head.bias.fill_(-1.0)
    vae.decoder.requires_grad_(False)
    vae.posterior_head = head
    fit(model, Drawn(model.scm), max_epochs=30, default_root_dir=folder)
    model.eval()
    with torch.no_grad():
        noise = model.scm._sample_noise((4000,))
        latents = model.scm.abduct(model.scm.predict(noise), 19)["image"]["z"]
    truth = noise["image"]["z"]
    inside = (latents.amin(0) < truth) & (truth < latents.amax(0))
    return float(inside.float().mean())


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.25])
def test_intervals_hold_the_latent_whatever_the_weight_of_the_divergence(tmp_path, beta):
    """18 of 20 exchangeable numbers are between the ends of the 19 others."""
    assert coverage(tmp_path, beta, refit=0.3) == pytest.approx(0.90, abs=0.02)


def test_without_the_phase_intervals_are_too_short(tmp_path):
    assert coverage(tmp_path, 0.25, refit=0.0) < 0.7


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (EvidenceLowerBoundObjective, ""),
        (TEMPERED, "refitted in the last 2 steps by the evidence lower bound"),
        (partial(TEMPERED, refit=0.0), "weighted divergence and not refitted"),
    ],
)
def test_the_report_states_how_the_posterior_was_fitted(tmp_path, objective, expected):
    """Also from a checkpoint."""
    path = tmp_path / "model.ckpt"
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
        default_root_dir=tmp_path,
        callbacks=[EvaluationReport(num_particles=2, density_size=20)],
    )
    trainer.fit(make_model(objective=objective), datamodule=TinyDataModule())
    trainer.save_checkpoint(path)
    fresh = make_model(objective=objective)
    trainer.test(fresh, datamodule=TinyDataModule(), ckpt_path=path, weights_only=True)
    (written,) = tmp_path.rglob("evaluation.md")
    text = written.read_text()
    assert ("Posterior: " in text) == bool(expected)
    assert expected in text
