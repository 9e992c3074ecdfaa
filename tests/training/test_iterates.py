"""Members of an ensemble from the iterates of one training at a constant learning rate."""

from __future__ import annotations

import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from test_deep_scm import make as make_model
from test_refitting import TEMPERED, Watch

from deepscm_pl import Ensemble, load
from deepscm_pl.data import CausalDataModule, SourceSplits
from deepscm_pl.mechanisms import AffineFlow
from deepscm_pl.runs.reading import read_checkpoint
from deepscm_pl.training import DeepSCM, keep_iterates

from tiny import TinyDataModule

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def train(folder, model, data, epochs):
    trainer = pl.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        max_epochs=epochs,
        gradient_clip_val=700.0,
        default_root_dir=folder,
        **QUIET,
    )
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of 12 steps, with a phase of refitting and a warm-up."""
    torch.manual_seed(0)
    objective = partial(TEMPERED, warmup_epochs=2)
    model = make_model(objective=objective, optimizer=partial(torch.optim.Adam, lr=0.004))
    return train(tmp_path_factory.mktemp("trained"), model, TinyDataModule(), 3)


def test_members_are_kept_at_equal_intervals_each_refitted(trained, tmp_path):
    watch = Watch()
    out = tmp_path / "members"
    paths = keep_iterates(trained, out, 3, steps=15, rate=0.5, callbacks=[watch], **QUIET)
    assert paths == sorted(out.iterdir()) == [out / f"member_{k}.safetensors" for k in (1, 2, 3)]
    assert watch.rates == pytest.approx([0.004 / 3, 0.002] + [0.002] * 14)
    # Three steps are left out, and each member has two steps of refitting after two others.
    for path, step in zip(paths, (7, 11, 15), strict=True):
        content = read_checkpoint(path)
        assert content["refit_steps"] == 2
        assert content["global_step"] == 12 + step
        refitted = [watch.states[step - k] for k in (2, 1, 0)]
        for name, value in refitted[-1].items():
            assert torch.equal(content["state_dict"][name], value), name
            is_posterior = "encoder" in name or "posterior_head" in name
            assert torch.equal(refitted[0][name], value) != is_posterior, name
            assert not torch.equal(watch.states[step - 3][name], refitted[0][name]), name
    ensemble = Ensemble([load(path).scm for path in paths])
    rows = load(paths[0]).data().variables("test")
    factual = {name: rows[name][:5].float() for name in ensemble.variables}
    answers = ensemble.counterfactual(factual, {"thickness": 2.0}, 6)["image"]
    assert ensemble.spread(answers).between.max() > 0


def test_by_default_half_of_the_steps_of_the_training_and_its_limit_of_gradients(trained, tmp_path):
    class Limit(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            self.found = trainer.gradient_clip_val

    watch, limit = Watch(), Limit()
    keep_iterates(trained, tmp_path / "members", 2, callbacks=[watch, limit], **QUIET)
    assert len(watch.states) == 6 + 1
    assert limit.found == 700


def test_the_seed_decides(trained, tmp_path):
    def weights(name, seed):
        path = keep_iterates(trained, tmp_path / name, 2, steps=4, seed=seed, **QUIET)[-1]
        return read_checkpoint(path)["state_dict"]

    first, again, other = weights("a", 1), weights("b", 1), weights("c", 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


class Gaussian(CausalDataModule):
    """640 training rows of N(0, 1)."""

    def __init__(self, batch_size=16, validation_size=10):
        super().__init__(batch_size, validation_size)

    def load(self):
        draws = torch.randn(650, 1, generator=torch.Generator().manual_seed(0))
        return SourceSplits(train={"x": draws}, test={"x": draws[:5]})


def test_iterates_vary_as_in_the_theory_of_a_constant_rate(tmp_path):
    """SGD of rate ε on batches of S: x ← x − ε(A x − noise of variance A/S), for Fisher matrix A.

    Its stationary variance ε/(S (2 − ε A)) is that of Mandt et al. (2017), equation 13, without the
    approximation of small rates. A is 1 for the mean and 2 for the logarithm of the deviation.
    """
    torch.manual_seed(0)
    rate = 0.2
    model = DeepSCM("x", {"x": AffineFlow}, optimizer=partial(torch.optim.SGD, lr=rate))
    path = train(tmp_path, model, Gaussian(), 2)
    steps = int(100 * 12 / 0.8)
    paths = keep_iterates(path, tmp_path / "members", 100, steps, **QUIET)
    found = []
    for each in paths:
        scm = load(each).scm
        context = scm["x"].context({})
        found.append(scm["x"].parameters_of(context).detach().flatten())
    values = torch.stack(found).double()
    # The gradient of the second is not linear.
    for column, fisher, tolerance in zip(values.T, (1, 2), (0.25, 0.35), strict=True):
        expected = math.sqrt(rate / (16 * (2 - rate * fisher)))
        assert float(column.mean()) == pytest.approx(0, abs=0.05)
        assert float(column.std()) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 1}, "count: expected a whole number of at least 2"),
        ({"steps": 2, "count": 3}, "steps: expected a whole number of at least 3"),
        ({"rate": 0.0}, "rate: expected"),
        ({"rate": 1.5}, "rate: expected"),
        ({"rate": math.nan}, "rate: expected"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_refused(trained, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        keep_iterates(trained, tmp_path / "members", **settings, **QUIET)
    assert not (tmp_path / "members").exists()


def test_a_full_folder_is_refused(trained, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not an empty folder"):
        keep_iterates(trained, tmp_path, 2, **QUIET)


def test_an_interruption_leaves_no_folder(trained, tmp_path):
    class Stop(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 5:
                raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        keep_iterates(trained, tmp_path / "members", 3, callbacks=[Stop()], **QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_trainer_that_stops_early_leaves_no_folder(trained, tmp_path):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 4

    with pytest.raises(ValueError, match="expected 6 further steps, but it stopped after 4"):
        keep_iterates(trained, tmp_path / "members", 3, callbacks=[Stop()], **QUIET)
    assert list(tmp_path.iterdir()) == []
