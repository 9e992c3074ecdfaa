"""Every figure is drawn at its time, from the right observations, and leaves the training alone."""

from __future__ import annotations

import gc
import io
import logging
import weakref
from collections import Counter
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import ArgumentParser
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepscm_pl.callbacks import (
    AttributeDensities,
    ConditionalSampleGrid,
    CounterfactualGrid,
    FigureCallback,
    InterventionGrid,
    LatentTraversal,
    NoiseHistograms,
    ReconstructionGrid,
    SampleGrid,
)
from deepscm_pl.cli.configurations import Configuration
from deepscm_pl.configuration import restore, with_classes
from deepscm_pl.training import DeepSCM

from laws import assert_same_levels
from tiny import CONFIGURATION, TinyDataModule

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SETTINGS = {
    "CounterfactualGrid": {"interventions": ["thickness=2"], "num_images": 3},
    "InterventionGrid": {"interventions": ["thickness=2"], "num_images": 3},
    "ReconstructionGrid": {"num_images": 3},
    "SampleGrid": {"num_images": 5},
    "ConditionalSampleGrid": {"values": {"thickness": [1.5, 3.0]}, "quantiles": [0.2, 0.8]},
    "AttributeDensities": {"interventions": ["thickness=2", "thickness+=1"]},
    "NoiseHistograms": {"num_observations": 18},
    "LatentTraversal": {"values": [-1.0, 1.0], "num_images": 1},
}
FIGURES = {
    "CounterfactualGrid": ["counterfactual/image"],
    "InterventionGrid": ["intervention/image"],
    "ReconstructionGrid": ["reconstruction/image"],
    "SampleGrid": ["sample/image"],
    "ConditionalSampleGrid": ["conditional_sample/image"],
    "AttributeDensities": ["density/marginal", "density/joint"],
    "NoiseHistograms": ["noise/inferred"],
    "LatentTraversal": ["traversal/image"],
}
ALL = [
    CounterfactualGrid,
    InterventionGrid,
    ReconstructionGrid,
    SampleGrid,
    ConditionalSampleGrid,
    AttributeDensities,
    NoiseHistograms,
    LatentTraversal,
]


def make(graph=None):
    torch.manual_seed(0)
    settings = {k: v for k, v in CONFIGURATION["model"].items() if k in ("graph", "mechanisms")}
    if graph is not None:
        names = [name for name in settings["mechanisms"] if name in graph]
        settings = {
            "graph": graph,
            "mechanisms": {name: settings["mechanisms"][name] for name in names},
        }
    return DeepSCM(**restore(with_classes(settings)))


def callbacks(every_n_epochs=1):
    return [make(every_n_epochs=every_n_epochs, **SETTINGS[make.__name__]) for make in ALL]


def run(folder, drawing, model=None, epochs=2, test=False):
    model = model or make()
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(folder),
        callbacks=drawing,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(7)
    trainer.fit(model, datamodule=TinyDataModule())
    if test:
        trainer.test(model, datamodule=TinyDataModule(), verbose=False)
    return model


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A training with all callbacks and a test after it."""
    folder = tmp_path_factory.mktemp("watched")
    drawing = callbacks()
    return folder, run(folder, list(drawing), test=True), drawing


@pytest.fixture(scope="module")
def scm():
    """A model fitted to the tiny world, and its first test rows."""
    model = make().scm.eval()
    data = TinyDataModule()
    model.fit(data.variables("train"))
    rows = {name: value.float() for name, value in data.variables("test").items()}
    return model, rows


def test_event_file_holds_every_picture_at_its_step(watched):
    folder, _, _ = watched
    events = EventAccumulator(str(folder / "lightning_logs" / "version_0"), {"images": 0})
    events.Reload()
    for tag in (tag for tags in FIGURES.values() for tag in tags):
        # 60 rows in batches of 16 are 4 steps an epoch.
        assert [e.step for e in events.Images(f"{tag}/validation")] == [4, 8], tag
        assert [e.step for e in events.Images(f"{tag}/test")] == [8], tag
        for event in [*events.Images(f"{tag}/validation"), *events.Images(f"{tag}/test")]:
            picture = Image.open(io.BytesIO(event.encoded_image_string))
            assert picture.size == (event.width, event.height)
            assert min(picture.size) > 100
            colours = Counter(picture.convert("RGB").getdata())
            assert len(colours) > 20, tag
            assert colours[255, 255, 255] < 0.98 * picture.width * picture.height, tag


def test_files_lie_beside_the_checkpoints(watched):
    folder, _, drawing = watched
    for callback in drawing:
        figures = len(FIGURES[type(callback).__name__])
        assert len(callback.written) == 3 * figures
        for path in callback.written:
            assert path.parent == folder / "lightning_logs" / "version_0" / "checkpoints"
            assert path.is_file()


def test_weights_are_those_of_a_training_without(watched, tmp_path):
    _, model, _ = watched
    without = run(tmp_path, [])
    for name, value in model.state_dict().items():
        assert torch.equal(value, without.state_dict()[name]), name


def test_pictures_repeat(watched, tmp_path):
    """The random numbers of a callback depend on its seed only, not on the others."""
    _, _, drawing = watched
    alone = NoiseHistograms(every_n_epochs=2, **SETTINGS["NoiseHistograms"])
    run(tmp_path, [alone])
    first = next(path for each in drawing if each.name == "noise" for path in each.written[1:])
    assert first.name == alone.written[0].name == "noise-inferred-epoch=1.png"
    assert first.read_bytes() == alone.written[0].read_bytes()


@pytest.mark.parametrize("name", SETTINGS)
def test_each_alone_from_yaml(name, tmp_path):
    (drawing,) = from_yaml(yaml.safe_dump([as_yaml(name)]))
    run(tmp_path, [drawing], epochs=1, test=True)
    stems = [figure.replace("/", "-") for figure in FIGURES[name]]
    expected = {f"{stem}-{when}.png" for stem in stems for when in ("epoch=0", "test")}
    assert {picture.name for picture in tmp_path.rglob("*.png")} == expected


def as_yaml(name):
    return {"class_path": f"deepscm_pl.callbacks.{name}", "init_args": SETTINGS[name]}


def from_yaml(text):
    """As the command line reads the callbacks of the trainer."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callbacks", type=list[pl.Callback])
    callbacks = {"callbacks": yaml.safe_load(text)}
    return parser.instantiate_classes(parser.parse_object(callbacks)).callbacks


CONFIGURATIONS = {
    str(path): Configuration.read([str(path)]).settings for path in EXPERIMENTS.glob("*/*.yaml")
}
CAUSAL = [
    path
    for path, settings in sorted(CONFIGURATIONS.items())
    if "graph" in settings["model"] and Path(path).parent.name not in ("public", "tabular")
]


@pytest.mark.parametrize("path", CAUSAL)
def test_callbacks_of_experiments_fit_their_model(path):
    settings = CONFIGURATIONS[path]
    names = ("graph", "mechanisms")
    model = {name: settings["model"][name] for name in names}
    scm = DeepSCM(**restore(with_classes(model))).scm
    callbacks = from_yaml(yaml.safe_dump(settings["trainer"]["callbacks"]))
    figures = [callback for callback in callbacks if isinstance(callback, FigureCallback)]
    assert figures
    for callback in figures:
        assert callback.check(scm) is None
        assert not callback.units, "the data give units"


class Counting(FigureCallback):
    """Remembers what it was given."""

    name = "counting"

    def __init__(self, num_observations, every_n_epochs=1):
        super().__init__(every_n_epochs, num_observations, seed=0)
        self.seen = []
        self.figures = []

    def check(self, scm):
        return None

    def draw(self, scm, observations, split):
        assert not scm.training
        assert not torch.is_grad_enabled()
        self.seen.append((split, observations))
        figure = Figure()
        figure.add_subplot().plot([0, 1])
        self.figures.append(weakref.ref(figure))
        yield "lines", figure


@pytest.mark.parametrize(("asked", "kept"), [(5, 5), (16, 16), (18, 18), (50, 20)])
def test_exactly_as_many_observations_as_asked(asked, kept, tmp_path):
    """Gathered over batches of 16, in the order of the split, whose rows are 20."""
    counting = Counting(asked)
    run(tmp_path, [counting], epochs=2, test=True)
    assert [split for split, _ in counting.seen] == ["validation", "validation", "test"]
    for split, observations in counting.seen:
        expected = TinyDataModule().variables(split)
        assert set(observations) == {"thickness", "intensity", "image", "index"}
        for name, value in observations.items():
            assert torch.equal(value, expected[name][:kept].to(value.dtype)), name


def test_epochs_are_chosen_and_the_last_is_drawn(tmp_path):
    counting = Counting(1, every_n_epochs=2)
    run(tmp_path, [counting], epochs=3)
    assert [path.name for path in counting.written] == [
        "counting-lines-epoch=1.png",
        "counting-lines-epoch=2.png",
    ]
    gc.collect()
    assert all(figure() is None for figure in counting.figures), "figures stay in memory"


class Diverging(Counting):
    """Asks a model whose answer does not converge."""

    def draw(self, scm, observations, split):
        yield from super().draw(scm, observations, split)
        raise ValueError("solver: expected every image to converge")


def test_a_training_outlives_a_question_that_the_model_cannot_answer(tmp_path):
    """With a warning, once; a test ends."""
    diverging = Diverging(1)
    with pytest.warns(UserWarning, match="continues without pictures that .*solver: ") as caught:
        model = run(tmp_path, [diverging], epochs=2)
    assert len([each for each in caught if "continues without" in str(each.message)]) == 1
    assert [path.name for path in diverging.written] == [
        "counting-lines-epoch=0.png",
        "counting-lines-epoch=1.png",
    ]
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        callbacks=[diverging],
        enable_progress_bar=False,
    )
    with pytest.raises(ValueError, match="solver: expected every image"):
        trainer.test(model, datamodule=TinyDataModule(), verbose=False)


def test_cells_of_a_conditional_grid_are_interventions(scm):
    model, _ = scm
    grid = {"thickness": torch.tensor([1.5, 3.0, 4.0]), "intensity": torch.tensor([90.0, 200.0])}
    from deepscm_pl.callbacks.images import images_over_grid

    torch.manual_seed(5)
    noise = {name: model[name].sample_noise((4,)) for name in model.graph.nodes}
    cells = images_over_grid(model, "image", grid, noise)
    assert cells.shape == (2, 3, 4, 1, 8, 8)
    for j, intensity in enumerate(grid["intensity"].tolist()):
        for k, thickness in enumerate(grid["thickness"].tolist()):
            # By hand: the same draws in the same order, since do() takes none.
            torch.manual_seed(5)
            for name in ("thickness", "intensity"):
                model[name].sample_noise((4,))
            do = {"thickness": thickness, "intensity": intensity}
            by_hand = model.intervene(do, 4)["image"]
            assert_same_levels(cells[j, k], by_hand)
    assert not torch.equal(cells[0, 0], cells[1, 0])
    one = images_over_grid(model, "image", {"thickness": grid["thickness"]}, noise)
    assert_same_levels(one[0, 1], model.act({"thickness": 3.0}).predict(noise)["image"])


def test_conditional_grid_takes_values_or_quantiles(scm):
    model, rows = scm
    callback = ConditionalSampleGrid(values={"intensity": [100.0]}, quantiles=[0.0, 0.5, 1.0])
    found = callback.grid(model, "image", rows)
    thickness = rows["thickness"].flatten()
    expected = torch.stack([thickness.min(), thickness.quantile(0.5), thickness.max()])
    torch.testing.assert_close(found["thickness"], expected)
    assert found["intensity"].tolist() == [100.0]
    with pytest.warns(DeprecationWarning, match="units: deprecated") as caught:
        only = ConditionalSampleGrid(parents=["intensity"], units={"intensity": "grey levels"})
    assert caught[0].filename == __file__
    assert list(only.grid(model, "image", rows)) == ["intensity"]
    (_, figure), *_ = only.draw(model, rows, "test")
    assert figure.axes[0].get_xlabel() == "intensity (grey levels)"
    (_, figure), *_ = callback.draw(model, rows, "test")
    assert figure.axes[0].get_ylabel() == "intensity"
    assert len(figure.axes[0].get_xticklabels()) == 3


def test_traversal_at_the_own_value_is_the_observation(scm):
    from deepscm_pl.callbacks.latent_traversal import traverse

    model, rows = scm
    factual = {name: rows[name][:1] for name in model.graph.nodes}
    noise = {key: value[0] for key, value in model.abduct(factual)["image"].items()}
    parents = {name: factual[name] for name in ("thickness", "intensity")}
    for dimension in range(2):
        own = noise["z"][0, dimension].item()
        images = traverse(model["image"], noise, parents, [dimension], [own, own + 2])
        assert images.shape == (1, 2, 1, 1, 8, 8)
        assert torch.equal(images[0, 0], factual["image"])
        moved = {**noise, "z": noise["z"].clone()}
        moved["z"][:, dimension] = own + 2
        assert_same_levels(images[0, 1], model["image"].quantise(model["image"](moved, parents)))
        assert not torch.equal(images[0, 1], factual["image"])


def test_marks_of_a_traversal_lie_between_its_columns():
    callback = LatentTraversal(values=[-2, 0, 1])
    marks = callback._marks(torch.tensor([-2.0, -1.0, 0.25, 1.0, 5.0, -9.0]))
    assert marks == pytest.approx([0, 0.5, 1.25, 2, 2, 0])
    assert LatentTraversal(values=[1, 0, -2])._marks(torch.tensor([0.5])) == pytest.approx([0.5])


def test_exact_joint_density_integrates_and_agrees_with_samples(scm):
    from deepscm_pl.callbacks.densities import joint_density

    model, _ = scm
    torch.manual_seed(1)
    samples = model.sample(2000)
    x = torch.linspace(0.05, 40.0, 700)
    y = torch.linspace(64.01, 254.99, 400)
    density = joint_density(model, ("thickness", "intensity"), (x, y), samples)
    assert density.shape == (400, 700)
    mass = density.sum().item() * (x[1] - x[0]).item() * (y[1] - y[0]).item()
    assert mass == pytest.approx(1, abs=0.03)
    mean = (density.sum(0) * x).sum() / density.sum()
    assert mean.item() == pytest.approx(samples["thickness"].mean().item(), rel=0.05)


def test_densities_show_data_model_and_counterfactuals(scm):
    model, rows = scm
    callback = AttributeDensities(["thickness=2", "thickness+=1"])
    factual = {name: rows[name] for name in ("thickness", "intensity")}
    panels = callback.marginal_panels(model, rows, model.sample(50))
    assert [panel.label for panel in panels] == ["thickness", "intensity"]
    assert list(panels[0].curves) == ["model", "do(thickness = 2)", "do(thickness + 1)"]
    answer = model.counterfactual(rows, {"thickness": lambda value: value + 1})
    curve = panels[1].curves["do(thickness + 1)"]
    torch.testing.assert_close(curve, answer["intensity"].flatten())
    assert torch.equal(panels[0].observed, factual["thickness"].flatten())
    assert callback.needed(model) == ("thickness", "intensity")


def test_densities_of_attributes_compute_no_image(scm, monkeypatch):
    model, rows = scm
    monkeypatch.setattr(type(model["image"]), "forward", lambda *_: pytest.fail("an image"))
    attributes = {name: rows[name] for name in ("thickness", "intensity")}
    drawn = dict(AttributeDensities(["thickness=2"]).draw(model, attributes, "test"))
    assert list(drawn) == ["marginal", "joint"]
    assert [axes.get_xlabel() for axes in drawn["marginal"].axes] == ["thickness", "intensity"]
    assert drawn["joint"].axes[0].get_ylabel() == "intensity"


def test_inferred_noise_is_that_of_the_model(scm):
    from deepscm_pl.callbacks import densities

    model, _ = scm
    torch.manual_seed(2)
    sampled = {name: model[name].sample_noise((300,)) for name in model.graph.nodes}
    found = densities.infer_noise(model, model.predict(sampled))
    for name in ("thickness", "intensity"):
        torch.testing.assert_close(found[name]["u"], sampled[name]["u"], atol=1e-3, rtol=1e-3)
    assert found["image"]["z"].shape == (300, 2)


@pytest.mark.parametrize(
    ("graph", "drawing", "said"),
    [
        ("thickness -> intensity", LatentTraversal(), "no image of the model has a latent z"),
        ("thickness -> intensity", SampleGrid(), "no image of 1 or 3 channels"),
        ("thickness; image", ConditionalSampleGrid(), "no image of the model has a scalar parent"),
        ("image", AttributeDensities(), "no continuous scalar"),
    ],
)
def test_what_cannot_be_drawn_is_said_once(graph, drawing, said, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        model = make(graph)
        run(tmp_path, [drawing], model, epochs=1, test=True)
    assert caplog.text.count(said) == 1
    assert drawing.written == []


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: CounterfactualGrid(["colour=2"]), "unknown variable 'colour'"),
        (lambda: InterventionGrid(["thickness=-2"]), "expected values in"),
        (lambda: ConditionalSampleGrid(["colour"]), "'colour' is not a scalar parent"),
        (lambda: ConditionalSampleGrid(["image"]), "'image' is not a scalar parent"),
        (lambda: ConditionalSampleGrid(values={"colour": [1.0]}), "values: 'colour'"),
        (lambda: ConditionalSampleGrid(values={"intensity": [10.0]}), "intensity"),
        (lambda: ConditionalSampleGrid(units={"colour": "m"}), "units: unknown variable 'colour'"),
        (lambda: AttributeDensities(["thickness=-2"]), "expected values in"),
        (lambda: AttributeDensities(variables=["image"]), "'image' is no continuous scalar"),
        (lambda: AttributeDensities(variables=["colour"]), "'colour' is unknown"),
        (lambda: AttributeDensities(pairs=[["thickness", "image"]]), "pairs: .*'image'"),
        (lambda: AttributeDensities(units={"colour": "m"}), "units: .*'colour'"),
    ],
)
def test_what_does_not_fit_the_model_stops_before_training(callback, message, tmp_path):
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        run(tmp_path, [callback()], model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: SampleGrid(num_images=0), "num_images"),
        (lambda: ReconstructionGrid(every_n_epochs=0), "every_n_epochs"),
        (lambda: NoiseHistograms(num_observations=0), "num_observations"),
        (lambda: LatentTraversal(values=[]), "number of values"),
        (lambda: LatentTraversal(num_dimensions=0), "num_dimensions"),
        (lambda: LatentTraversal(seed=-1), "seed"),
        (lambda: AttributeDensities(["thickness"]), "cannot read"),
        (lambda: AttributeDensities(pairs=[["thickness"]]), "two different variables"),
        (lambda: ConditionalSampleGrid(quantiles=[2.0]), "quantiles"),
        (lambda: ConditionalSampleGrid(["a", "b", "c"]), "one or two"),
        (lambda: ConditionalSampleGrid(values={"thickness": []}), "at least one value"),
    ],
)
def test_bad_settings_are_refused(callback, message):
    with pytest.raises(ValueError, match=message):
        callback()
