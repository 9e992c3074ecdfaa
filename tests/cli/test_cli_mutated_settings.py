"""Every setting of a configuration, changed in every way: one line that names it, before a step."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
import yaml
from mutations import MUTATIONS, changed, leaves, misspelt

from deepscm_pl.cli import main
from deepscm_pl.cli.settings import named_errors, out_of_memory
from deepscm_pl.cli.training import TrainingCommand
from deepscm_pl.training import DeepSCM

from tiny import CONFIGURATION, TinyDataModule

ALL_AT_ONCE = len(MUTATIONS)


def configuration():
    """A run of two steps, with a setting of every kind."""
    found = copy.deepcopy(CONFIGURATION)
    model, trainer = found["model"], found["trainer"]
    model.update(num_particles=1, num_evaluation_particles=1)
    model["mechanisms"]["thickness"]["init_args"].update(hidden=[8], bins=4, bound=4.0)
    model["scheduler"]["init_args"] = {"warmup": 0.1, "start": 0.1}
    found["data"]["init_args"].update(validation_size=20, num_workers=0)
    trainer["callbacks"] = trainer["callbacks"][:1]
    trainer.update(max_epochs=1, limit_train_batches=2, accumulate_grad_batches=1, devices=1)
    trainer.update(check_val_every_n_epoch=1, precision="32-true", num_sanity_val_steps=0)
    found["checkpoint"] = {"monitor": "validation/bound", "mode": "max", "save_top_k": 1}
    found["association"] = {"num_importance_samples": 2, "importance_rows": 4, "seed": 0}
    found["evaluation"] = {"rows": 8, "num_particles": 3, "detail_rows": 4, "density_size": 20}
    found["evaluation"].update(batch_size=8, seed=0, workers=1)
    return found


def cases(share):
    """Every leaf, each with some of the mutations, so that each mutation has its turn."""
    valid = configuration()
    kinds = list(MUTATIONS.items())
    for number, (path, value) in enumerate(leaves(valid)):
        for turn in range(share):
            kind, new = kinds[(number + turn * len(kinds) // share) % len(kinds)]
            if new != value:
                yield f"{dotted(path)}={kind}", path, changed(valid, path, new)
        if share == ALL_AT_ONCE or number % 3 == 0:
            yield f"{dotted(path)}=misspelt", path, misspelt_somewhere(valid, path)


def misspelt_somewhere(valid, path):
    while isinstance(path[-1], int):
        path = path[:-1]
    return misspelt(valid, path)


def dotted(path):
    return ".".join(map(str, path))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run ``fit`` on settings; the status, the first line of the error, and the steps taken."""
    monkeypatch.chdir(tmp_path)
    steps = []
    step = DeepSCM.training_step

    def counted(self, *arguments):
        steps.append(1)
        return step(self, *arguments)

    monkeypatch.setattr(DeepSCM, "training_step", counted)

    def call(settings, *words):
        steps.clear()
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
        status = 2
        with contextlib.suppress(SystemExit):
            status = main(["fit", "--config", "c.yaml", *words])
        lines = [line for line in capsys.readouterr().err.splitlines() if "deepscm" in line]
        return status, next((line for line in lines if line.startswith("deepscm")), ""), len(steps)

    return call


def problem(path, status, line):
    """What is wrong with how a mutation ended; None where nothing is."""
    if status == 0:
        return None
    if status not in (1, 2) or not line:
        return f"status {status}, without a line"
    if "NoneType" in line or "Namespace" in line:
        return "names types of the program"
    keys = [key for key in path if isinstance(key, str) and key not in ("init_args", "class_path")]
    return None if any(key in line for key in keys[-2:]) else "names no key"


def test_mutations_are_refused_by_name(run, monkeypatch):
    monkeypatch.setattr(TrainingCommand, "fit", lambda *arguments, **settings: None)
    bad, refused = {}, 0
    for name, path, settings in cases(share=1):
        try:
            status, line, _ = run(settings)
        except Exception as error:
            bad[name] = repr(error)
            continue
        refused += status != 0
        if wrong := problem(path, status, line):
            bad[name] = f"{wrong}: {line}"
    assert bad == {}
    assert refused > 50


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("evaluation.workers", 0, "evaluation.workers"),
        ("evaluation.seed", -1, "evaluation.seed"),
        ("association.seed", -1, "association.seed"),
        ("evaluation.density_size", 10**12, "density_size: 1000000000000 takes at least"),
        ("evaluation.num_particles", 10**12, "num_particles: 1000000000000 takes at least"),
        ("model.num_particles", 10**12, "num_particles: 1000000000000 takes at least"),
        ("model.num_evaluation_particles", 10**12, "num_evaluation_particles: 1000000000000"),
        ("checkpoint.monitor", "validation/bond", "did you mean 'validation/bound'"),
        ("trainer.accumulate_grad_batches", 0, "trainer.accumulate_grad_batches"),
        ("trainer.accumulate_grad_batches", None, "trainer.accumulate_grad_batches"),
        ("trainer.max_steps", None, "trainer.max_steps"),
        ("trainer.devices", 10**12, "trainer.devices"),
        ("trainer.num_nodes", 10**12, "trainer.num_nodes"),
        ("trainer.val_check_interval", 0, "trainer.val_check_interval"),
        ("trainer.overfit_batches", None, "overfit_batches: null"),
        ("association.reference_name", None, "association.reference_name: expected a text"),
        ("checkpoint", None, "checkpoint: expected settings by name, but got null"),
        ("checkpoint.save_top_k", None, "save_top_k: null"),
        ("trainer.check_val_every_n_epoch", 0, "trainer.check_val_every_n_epoch"),
        ("trainer.limit_train_batches", 0, "trainer.limit_train_batches"),
        ("trainer.max_epochs", 0, "trainer.max_epochs"),
        ("trainer.max_steps", 0, "trainer.max_steps"),
        ("trainer.devices", "x", "trainer.devices: expected another value, but got 'x'"),
        ("trainer.devices", [0, 1], "trainer.devices: expected another value, but got [0, 1]"),
        ("trainer.accelerator", "tpu", "trainer.accelerator: expected another value, but got"),
        ("trainer.accelerator", "mps", "trainer.accelerator: expected another value"),
        ("trainer.accelerator", "npu", "trainer.accelerator: expected another value"),
        ("trainer.precision", "transformer-engine", "trainer.precision: expected another value"),
        ("trainer.strategy", "deepspeed", "trainer.strategy: expected another value"),
        ("trainer.strategy", "fsdp", "trainer.strategy: expected another value"),
        ("trainer.strategy", "ddp_notebook", "processes begin anew, but got ddp_notebook"),
        ("trainer.strategy", "nonsense", "trainer.strategy: expected another value"),
        ("trainer.profiler", "nonsense", "trainer.profiler: expected another value"),
        ("trainer.max_time", "nonsense", "trainer.max_time: expected another value"),
        ("trainer.limit_val_batches", -1, "trainer.limit_val_batches: expected another value"),
        ("trainer.gradient_clip_algorithm", "foo", "trainer.gradient_clip_algorithm: expected"),
        ("trainer.enable_checkpointing", False, "trainer.enable_checkpointing: expected another"),
        ("trainer.min_epochs", -4, "trainer.min_epochs: expected a whole number of at least 0"),
        ("trainer.num_sanity_val_steps", -5, "trainer.num_sanity_val_steps: expected"),
        ("trainer.log_every_n_steps", -1, "trainer.log_every_n_steps: expected"),
        ("data.init_args.num_workers", 10**12, "num_workers"),
        ("model.scheduler", "torch.optim.lr_scheduler.StepLR", "scheduler"),
        ("model.optimizer", {"class_path": "torch.optim.SparseAdam"}, "optimizer: SparseAdam"),
        (
            "model.scheduler",
            {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 0}},
            "scheduler: StepLR(step_size=0)",
        ),
        ("model.optimizer.init_args.lr", None, "optimizer: Adam(lr=null)"),
        ("model.mechanisms.image.init_args.likelihood", "torch.nn.Linear", "likelihood"),
    ],
)
def test_what_was_found_late_is_found_before_a_step(run, key, value, named):
    status, line, steps = run(changed(configuration(), key.split("."), value))
    assert (status in (1, 2), steps) == (True, 0), line
    assert named in line


def test_a_last_batch_that_is_dropped_is_not_the_only_one():
    data = TinyDataModule(batch_size=64)
    data.drop_last = True
    data.setup()
    with pytest.raises(ValueError, match="batch_size: expected at most 60"):
        data.train_dataloader()


def test_memory_that_is_short_is_one_line(run, monkeypatch):
    def greedy(self, *arguments):
        torch.empty(10**15)

    monkeypatch.setattr(DeepSCM, "training_step", greedy)
    status, line, _ = run(configuration())
    assert status == 1
    assert "not enough memory" in line
    assert "--data.batch_size" in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
    ],
)
def test_errors_of_every_allocator_are_known(error):
    assert "lower batch sizes" in str(out_of_memory(error))
    with pytest.raises(type(error)), named_errors("model"):
        raise error


def test_a_fault_of_the_program_is_no_fault_of_the_memory():
    assert out_of_memory(RuntimeError("expected a tensor")) is None
    assert out_of_memory(TypeError("not enough memory")) is None


def test_a_class_that_names_nothing_is_named():
    class Part:
        def __init__(self, size):
            self.half = size / 2

    with (
        pytest.raises(ValueError, match="model: Part cannot be made: unsupported"),
        named_errors("model"),
    ):
        Part(None)


def test_errors_in_training_keep_their_kind(run, monkeypatch):
    def broken(self, *arguments):
        raise TypeError("a fault of the program")

    monkeypatch.setattr(DeepSCM, "training_step", broken)
    with pytest.raises(TypeError, match="a fault of the program"):
        run(configuration())
