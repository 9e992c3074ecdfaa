"""Trained models on disk: a file is read once, and its content gives the model and the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from tqdm import tqdm

from deepscm_pl.answers import Answer, AnsweredQuestion
from deepscm_pl.checkpoints.stored_observations import (
    StoredObservations,
    observations_beside,
    require_rows,
)
from deepscm_pl.checks import whole_number
from deepscm_pl.configuration import restore, restore_arguments
from deepscm_pl.data import CausalData, TableFormat
from deepscm_pl.effects import Effects, EffectSettings, Outcome, average_effect
from deepscm_pl.ensemble import Ensemble, stacking_weights
from deepscm_pl.escaping import one_line
from deepscm_pl.evaluation.intervals import Calibration
from deepscm_pl.interventions import parse_do
from deepscm_pl.mechanisms import Context, Mechanism
from deepscm_pl.model_memory import without_values
from deepscm_pl.observed import read_observed
from deepscm_pl.runs.reading import load_weights, read_checkpoint, require_settings
from deepscm_pl.runs.safetensors_file import without_training_state
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.shipped.names import find_model
from deepscm_pl.variables import Do, Variable

if TYPE_CHECKING:
    from deepscm_pl.data import CausalDataModule

__all__ = ["Checkpoint", "TrainedModel", "load", "load_data"]

_UNFIT = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError)
"""Errors, besides ValueError, that constructors raise for arguments that do not fit together."""

_ROWS_AT_A_TIME = 64
"""Rows whose bounds are computed at a time."""

_SPARE_PARAMETERS = 1_000
"""Number of parameters that a model may have in addition to the weights in its file."""

_MODEL_CLASS = "deepscm_pl.training.deep_scm.DeepSCM"

_Module = TypeVar("_Module", bound=nn.Module)


def load(
    path: str | Path | Sequence[str | Path],
    map_location: Any = "cpu",
    trust: Sequence[str] = (),
    weights: Sequence[float] | None = None,
) -> TrainedModel:
    """Load a trained structural causal model, or several that answer together.

    They are in evaluation mode. No code in a file is executed. Averaged weights are loaded if the
    file contains them.

    Args:
        path: A checkpoint (``.ckpt``), an exported model (``.safetensors``), or the name of a model
            that is shipped with the package, such as ``"digits"``; a sequence of them for an
            ensemble. A file in the current folder comes before a model of the same name.
        map_location: Device of the tensors, as in :func:`torch.load`.
        trust: Packages whose classes the file may name, in addition to ``deepscm_pl``,
            ``torch.nn``, ``torch.optim`` and those that you have imported.
        weights: Weights of several models; None for equal ones.

    Raises:
        FileNotFoundError: If there is no such file, and no model of this name.
        ValueError: If the file is truncated, malicious or of another program, does not fit the
            model that it describes, or contains a model that was never fitted to data; if models
            differ in their graph, variables or training data; or if the weights do not fit.

    Example:
        >>> model = load("digits")
        >>> rows = model.observations([0, 1])
        >>> answer = model.counterfactual(rows, "thickness=4", seed=0)
        >>> answer["image"].shape
        torch.Size([1, 2, 1, 28, 28])
    """
    paths = [find_model(each) for each in ([path] if isinstance(path, str | Path) else path)]
    models = [Checkpoint.read(each, map_location, trust).trained_model() for each in paths]
    for k, model in enumerate(models[1:], 1):
        for other in models[:k]:
            _check_members(other, model)
    ensemble = Ensemble([model.scm for model in models], weights)
    return TrainedModel(ensemble, tuple(model.checkpoint for model in models))


@dataclass(frozen=True)
class TrainedModel:
    """A trained structural causal model, or several that answer together, and their data.

    Attributes:
        ensemble: The models, in evaluation mode; usually one.
        checkpoints: The file of each model, without weights.
    """

    ensemble: Ensemble
    checkpoints: tuple[Checkpoint, ...]

    @classmethod
    def of(cls, *models: StructuralCausalModel) -> TrainedModel:
        """Wrap one or several models in memory, so that they answer as loaded ones do.

        Raises:
            ValueError: If there is none, or their graphs or variables differ.
        """
        ensemble = Ensemble([model.eval() for model in models])
        return cls(ensemble, tuple(Checkpoint(Path("a model in memory"), {}) for _ in models))

    @property
    def scm(self) -> StructuralCausalModel:
        """The model, or the first of several."""
        return self.ensemble.members[0]

    @property
    def checkpoint(self) -> Checkpoint:
        """The file of the model, or of the first of several."""
        return self.checkpoints[0]

    @property
    def variables(self) -> dict[str, Variable]:
        """The variables with their domains, units and class names, in the order of the graph."""
        return self.scm.variables

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of intervals that ``deepscm test`` stored in the file, if any.

        Several models together have none: their calibration is a file ``calibration.json``.
        """
        return self.checkpoint.calibration() if len(self.checkpoints) == 1 else None

    def data(self, root: str | Path | None = None, **changes: Any) -> CausalDataModule:
        """Make the data module that the model was trained with; see :meth:`Checkpoint.data`."""
        return self.checkpoint.data(root, **changes)

    def test_data(
        self, root: str | Path | None = None, rows: Sequence[int] | None = None
    ) -> CausalData:
        """Return data with the test split, ready to be asked about.

        These are the data of the run. If ``root`` is None, they are the
        :class:`~deepscm_pl.checkpoints.StoredObservations` that travel with the model, the first
        rows of the same split, where the data of the run cannot be found, or where these have
        nothing more about the rows that are asked for.

        Args:
            root: Folder of the data of the run, if it has moved.
            rows: Row numbers that are asked for, from 0; None for all.

        Raises:
            FileNotFoundError: If the data are not there, and no observations travel with the model.
            ValueError: If the file has no valid description of the data.
        """
        stored = None if root is not None else self._stored
        # A data module imports Lightning, which takes longer than most answers.
        is_enough = stored is not None and stored.is_complete and stored.has(rows)
        if stored is not None and (is_enough or self.checkpoint.lacks_data):
            return stored
        try:
            data = self.data(root)
        except ValueError:
            if stored is None:
                raise
            return stored
        try:
            data.prepare_data()
            data.setup("test")
        except FileNotFoundError:
            if stored is None:
                raise
            return stored
        return data

    @cached_property
    def _stored(self) -> StoredObservations | None:
        """The observations that travel with the model, if any."""
        return observations_beside(self.checkpoint.path, self.scm)

    def observations(
        self, rows: Sequence[int] | None = None, root: str | Path | None = None
    ) -> dict[str, Tensor]:
        """Return rows of the test split, to be asked about.

        Args:
            rows: Row numbers, from 0; None for those that travel with the model.
            root: Folder of the data of the run, if it has moved.

        Returns:
            For each variable ``(N, *event)``.

        Raises:
            FileNotFoundError: If the rows do not travel with the model, and the data are not there.
            ValueError: If a row does not exist, or no observations travel with the model.
        """
        stored = None if root is not None else self._stored
        if rows is None:
            if stored is None:
                raise ValueError(
                    f"rows: no observations travel with {self.checkpoint.path}; name rows of the "
                    "test split, such as [0, 1, 2]."
                )
            rows = range(stored.count)
        is_stored = stored is not None and stored.has(rows)
        data = stored if stored is not None and is_stored else self.test_data(root, rows)
        require_rows(data, rows)
        found = data.variables("test")
        chosen = torch.as_tensor(list(rows), dtype=torch.long)
        return {name: found[name][chosen].to(self.scm.dtype) for name in self.variables}

    def stacked(self, root: str | Path | None = None) -> TrainedModel:
        """Weight several models by the bounds of the rows of the validation split.

        The weights are those of :func:`~deepscm_pl.ensemble.stacking_weights`.

        Args:
            root: Folder of the data, if it has moved.

        Raises:
            ValueError: If a file has no valid description of the data.
        """
        data = self.data(root)
        data.prepare_data()
        data.setup("fit")
        rows = data.variables("validation")
        chosen = {name: rows[name].split(_ROWS_AT_A_TIME) for name in self.variables}
        batches = [
            dict(zip(chosen, each, strict=True)) for each in zip(*chosen.values(), strict=True)
        ]
        members = self.ensemble.members
        with _without_gradients(0), tqdm(total=len(members) * len(batches), disable=None) as bar:
            bounds = []
            for scm in members:
                for batch in batches:
                    values = {name: value.to(scm.dtype) for name, value in batch.items()}
                    bounds.append(scm.elbo(values).known_bound)
                    bar.update()
        log_probs = torch.cat(bounds).view(len(members), -1)
        return replace(self, ensemble=Ensemble(members, stacking_weights(log_probs)))

    def sample(self, n: int, seed: int | None = None) -> Answer:
        """Draw ``n`` observations, ``(n, *event)`` for each variable.

        Args:
            n: Number of observations.
            seed: Seed of the noise; None for the current state of torch's generator.
        """
        whole_number("n", n, least=1)
        with _without_gradients(seed):
            return Answer(
                self.ensemble.sample(n), AnsweredQuestion("sample", (), True, self.ensemble)
            )

    def intervene(
        self, do: Do | str | Sequence[Do | str], n: int, seed: int | None = None
    ) -> Answer:
        """Draw ``n`` observations under do(...), ``(n, *event)`` for each variable.

        Args:
            do: The intervention, as a mapping or as text such as ``"thickness=3"``, or a sequence
                of K that share their noise, for ``(K, n, *event)``.
            n: Number of observations.
            seed: As for :meth:`sample`.

        Raises:
            ValueError: If the intervention is not valid.
        """
        dos, is_single = self._dos(do)
        whole_number("n", n, least=1)
        with _without_gradients(seed):
            answer = self.ensemble.intervene(dos[0] if is_single else dos, n)
        return Answer(answer, AnsweredQuestion("intervene", dos, is_single, self.ensemble))

    def counterfactual(
        self,
        factual: Any,
        do: Do | str | Sequence[Do | str],
        num_particles: int | None = None,
        seed: int | None = None,
        resample: int | None = None,
    ) -> Answer:
        """Infer the observations that would have been made under an intervention.

        Args:
            factual: The observations: a data frame, or a mapping of tensors ``(*batch, *event)``,
                arrays, lists or single values for every variable; see
                :func:`~deepscm_pl.observed.read_observed`. Other columns are kept in
                :meth:`Answer.to_frame <deepscm_pl.answers.Answer.to_frame>`. Missing numbers and
                classes (NaN, None) are inferred, for each particle anew; see
                :attr:`Answer.inferred <deepscm_pl.answers.Answer.inferred>`.
            do: An intervention, as for :meth:`intervene`, or a sequence of K.
            num_particles: P draws of the noise given the observations. By default one answer
                without draws, with the noise at its most likely value
                (:meth:`StructuralCausalModel.abduct`), or 2 draws of each of several models.
            seed: As for :meth:`sample`.
            resample: Candidates of the latents; see :meth:`StructuralCausalModel.abduct`.

        Returns:
            For each variable ``(P, *batch, *event)``, ``(P, K, *batch, *event)`` for a sequence.

        Raises:
            FileNotFoundError: If an image does not exist.
            ValueError: If an intervention or an observation is not valid.
        """
        dos, is_single = self._dos(do)
        particles = self.particles(num_particles)
        observed = read_observed(
            factual, self.variables, self.scm.dtype, self._read_image, allows_missing=True
        )
        with _without_gradients(seed):
            answer = self.ensemble.counterfactual(
                observed.values, dos[0] if is_single else dos, particles, resample
            )
        calibration = self.calibration
        return Answer(
            answer,
            AnsweredQuestion(
                "counterfactual", dos, is_single, self.ensemble, calibration, observed
            ),
        )

    def _read_image(self, path: Path, variable: Variable) -> Tensor:
        from deepscm_pl.data.images import read_prepared

        shape = variable.domain.shape
        found = read_prepared(path, shape, self.checkpoint.data_from_files())
        if len(found) > 1:
            raise ValueError(
                f"images: {path}: expected one image, but the data cut {len(found)} from a file; "
                "give one of them as a tensor, such as from data().prepare_file(path)."
            )
        image = found[0][0]
        if tuple(image.shape) != shape:
            raise ValueError(
                f"images: {path}: expected shape {shape}, but got {tuple(image.shape)}; give an "
                "image of the size of the data."
            )
        return image

    def effect(
        self,
        outcome: str | Outcome,
        do: Do | str,
        versus: Do | str | None = None,
        by: str | None = None,
        observed: Any = None,
        **settings: Any,
    ) -> Effects:
        """Estimate the average effect of an intervention.

        See :func:`~deepscm_pl.effects.average_effect`. The other questions of
        :mod:`deepscm_pl.effects` take this object as their model.

        Args:
            outcome: The variable, or a condition such as ``"volume > 1000"``.
            do: The intervention, as for :meth:`intervene`.
            versus: The intervention that it is compared with; None for none.
            by: A variable by which rows are grouped.
            observed: Observations to average over, as for :meth:`counterfactual`, of these
                variables and their causes; None to draw rows.
            settings: Fields of :class:`~deepscm_pl.effects.EffectSettings`, such as ``rows``.

        Raises:
            ValueError: If a name, an intervention or a setting is not valid.
        """
        return average_effect(self, outcome, do, versus, by, observed, EffectSettings(**settings))

    def particles(self, asked: int | None) -> int | None:
        """The number of particles of a counterfactual, None for one answer without draws.

        Raises:
            ValueError: If it is less than 1, or less than the number of models.
        """
        models = len(self.ensemble.members)
        if asked is None:
            return None if models == 1 else 2 * models
        whole_number("num_particles", asked, least=1)
        if asked < models:
            raise ValueError(
                f"num_particles: expected at least {models}, one for each model, but got {asked}; "
                "leave it out for two of each."
            )
        return asked

    def _dos(self, do: Do | str | Sequence[Do | str]) -> tuple[list[Do], bool]:
        """The interventions, and whether a single one was given."""
        is_single = isinstance(do, str | Mapping)
        dos: Any = [do] if is_single else do
        if not isinstance(dos, Sequence) or not all(isinstance(e, str | Mapping) for e in dos):
            raise ValueError(
                "do: expected a text such as 'age=80', a mapping, or a list of these, but got "
                f"{one_line(repr(do), 80)}."
            )
        return [self._parsed(each) for each in dos], is_single

    def _parsed(self, do: Do | str) -> Do:
        """An intervention, whose classes may be given by their names."""
        if isinstance(do, str):
            return parse_do(do, self.variables)
        found: dict[str, Any] = dict(do)
        for name, value in found.items():
            classes = self.variables[name].classes if name in self.variables else ()
            if isinstance(value, str) and classes:
                if value not in classes:
                    raise ValueError(
                        f"do({name}): expected one of {', '.join(classes)}, but got {value!r}."
                    )
                found[name] = float(classes.index(value))
        return found


@contextmanager
def _without_gradients(seed: int | None) -> Iterator[None]:
    """Compute without gradients, and with separate random numbers if there is a seed."""
    if seed is not None:
        whole_number("seed", seed, least=-(2**63), most=2**64 - 1)
    with torch.no_grad(), torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class _Settings:
    """The hyper-parameters of a causal model, restored according to these annotations."""

    graph: str | dict[str, list[str]]
    mechanisms: dict[str, Callable[[Context], Mechanism]]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint or an exported model, read and checked.

    Attributes:
        path: The file, for error messages.
        content: Tensors and plain data by the name of the entry.
        trust: Packages whose classes the file may name, in addition to this package.
    """

    path: Path
    content: dict[str, Any]
    trust: Sequence[str] = ()

    @classmethod
    def read(
        cls, path: str | Path, map_location: Any = "cpu", trust: Sequence[str] = ()
    ) -> Checkpoint:
        """Read a file without executing code in it; errors are those of :func:`load`."""
        return cls(Path(path), read_checkpoint(path, map_location, settings=()), tuple(trust))

    def trained_model(self) -> TrainedModel:
        """Build the causal model without the state of its training.

        Raises:
            ValueError: If the file does not describe a fitted causal model.
        """
        kind = self.content.get("model_class")
        if kind not in (None, _MODEL_CLASS):
            raise ValueError(
                f"checkpoint: {self.path} belongs to another kind of model, "
                f"{one_line(kind, 80)}; expected a structural causal model."
            )
        names = ("graph", "mechanisms")
        require_settings(self.path, self.content, names)
        settings = {name: self.content["hyper_parameters"][name] for name in names}

        def make() -> StructuralCausalModel:
            return StructuralCausalModel(**restore_arguments(_Settings, settings, self.trust))

        scm = self._built(make, _inner_weights)
        content = without_training_state(self.content)
        return TrainedModel(Ensemble([scm]), (replace(self, content=content),))

    def build(self, kind: type[_Module], changes: Mapping[str, Any] | None = None) -> _Module:
        """Build the model that the file describes, in evaluation mode.

        Args:
            kind: Its class, such as :class:`~deepscm_pl.training.DeepSCM`. The attribute
                ``required_settings``, if any, lists hyper-parameters that the file must have.
            changes: Arguments of ``kind`` that replace those in the file.

        Raises:
            ValueError: If the file does not describe such a model, or a causal model was not
                fitted.
        """
        require_settings(self.path, self.content, getattr(kind, "required_settings", ()))

        def make() -> _Module:
            found = restore_arguments(kind, self.content["hyper_parameters"], self.trust)
            return kind(**{**found, **(changes or {})})

        return self._built(make)

    def _built(
        self, make: Callable[[], _Module], select: Callable[[Any], Any] = lambda weights: weights
    ) -> _Module:
        """Build a model on the device ``"meta"``, which uses no memory, and then on the CPU."""
        variables = self.variables()
        try:
            weights = select(self.content["state_dict"])
            with without_values(), _at_most(len(weights) + _SPARE_PARAMETERS):
                load_weights(make(), weights)
            model = make()
            load_weights(model, weights)
            scm = getattr(model, "scm", model)
            if isinstance(scm, StructuralCausalModel):
                scm.describe(variables)
        except (*_UNFIT, ValueError) as error:
            raise ValueError(
                f"checkpoint: {self.path} does not fit this version of the program: "
                f"{one_line(error)}"
            ) from None
        if isinstance(scm, StructuralCausalModel) and not bool(scm.fitted):
            raise ValueError(
                f"checkpoint: the model in {self.path} was never fitted to data, so its answers "
                "would be meaningless; train it first."
            )
        return model.eval()

    def variables(self) -> dict[str, Variable]:
        """The units and class names in the file; empty for files without any.

        Raises:
            ValueError: If they are malformed.
        """
        try:
            described = self.content.get("variables")
            if described is None:  # version 0.1 wrote two mappings
                older = self.content.get("descriptions", {})
                units, classes = older.get("units", {}), older.get("class_names", {})
                described = {
                    name: {"unit": units.get(name), "classes": classes.get(name)}
                    for name in {**units, **classes}
                }
            return {str(name): Variable.read(str(name), each) for name, each in described.items()}
        except (AttributeError, TypeError, ValueError):
            raise ValueError(
                f"checkpoint: {self.path} describes its variables in an unexpected form; use "
                "another checkpoint of the same run."
            ) from None

    def calibration(self) -> Calibration | None:
        """The calibration of intervals in the file; None if there is none.

        Raises:
            ValueError: If it is malformed.
        """
        found = self.content.get("calibration")
        return None if found is None else Calibration.read(found)

    def described_data(self) -> tuple[type[CausalDataModule], dict[str, Any]] | None:
        """The class of the data module in the file and its arguments; None if there is none.

        A folder of caches is used only if it contains caches of this program.

        Raises:
            ValueError: If the description is malformed or names another kind of class.
        """
        description = self.content.get("data")
        if description is None:
            return None
        from deepscm_pl.data import CausalDataModule
        from deepscm_pl.data.scans.cache import Cache, holds_caches

        try:
            expected = Callable[[], CausalDataModule]
            factory: partial[CausalDataModule] = restore(description, expected, self.trust)
        except ValueError as error:
            raise ValueError(
                f"data: the data module that the checkpoint {self.path} describes cannot be made: "
                f"{error}"
            ) from None
        arguments = dict(factory.keywords)
        kind: Any = factory.func
        folder = arguments.get("cache_dir")
        if folder is not None and not holds_caches(Path(folder)):
            del arguments["cache_dir"]
        cache = arguments.get("cache")
        if isinstance(cache, Cache) and not holds_caches(cache.path):
            arguments["cache"] = replace(cache, folder=None)
        return kind, arguments

    @property
    def lacks_data(self) -> bool:
        """Whether the file names no data, or a folder of data that does not exist."""
        root = _data_settings(self).get("root")
        is_missing = isinstance(root, str) and not os.path.exists(os.path.expanduser(root))
        return self.content.get("data") is None or is_missing

    @property
    def table_format(self) -> TableFormat:
        """The format of tables of observations: missing values are written as in the data."""
        for each in _data_settings(self).values():
            words = each.get("missing_words") if isinstance(each, Mapping) else None
            if isinstance(words, list) and all(isinstance(word, str) for word in words):
                return TableFormat(missing_words=words)
        return TableFormat()

    def data_from_files(self, root: str | Path | None = None) -> CausalDataModule | None:
        """Make the data module if its images are made from files, to prepare new ones alike.

        Args:
            root: As for :meth:`data`.

        Returns:
            None if the file names no data, or their images are not made from files.

        Raises:
            ValueError: If the file has no valid description of the data.
        """
        if self.content.get("data") is None:
            return None
        data = self.data(root)
        return data if data.prepares_files else None

    def data(self, root: str | Path | None = None, **changes: Any) -> CausalDataModule:
        """Make the data module that the model was trained with; the data are read on first use.

        Args:
            root: Folder of the data, if it has moved.
            changes: Arguments of the data module that replace those in the file.

        Raises:
            ValueError: If the file has no valid description of the data, or they have no root.
        """
        found = self.described_data()
        if found is None:
            raise ValueError(
                f"data: the checkpoint {self.path} does not name the data of its training; make "
                "the data module yourself, or give your own observations (--observations FILE.csv)."
            )
        kind, arguments = found
        if root is not None and "root" not in arguments:
            raise ValueError(
                f"data.root: {kind.__module__}.{kind.__qualname__} has no root; leave it out."
            )
        if root is not None:
            changes = {**changes, "root": str(root)}
        try:
            return kind(**{**arguments, **changes})
        except _UNFIT as error:
            raise ValueError(
                f"data: the checkpoint {self.path} does not fit this version of "
                f"{one_line(kind.__qualname__)}: {one_line(error)}"
            ) from None


_LOADING = {"batch_size", "cache", "cache_dir", "drop_last", "num_workers"}
"""Arguments of data modules that do not change the data."""


def _check_members(first: TrainedModel, other: TrainedModel) -> None:
    """Raise ValueError unless two models can answer together."""
    paths = first.checkpoint.path, other.checkpoint.path
    which = f"checkpoint: {paths[0]} and {paths[1]} cannot answer together"
    if paths[0].resolve() == paths[1].resolve():
        raise ValueError(f"{which}: they are one file; name each file once.")
    try:
        Ensemble([first.scm, other.scm])
    except ValueError as error:
        raise ValueError(f"{which}: {error}") from None
    distributions = [model.scm.training_distribution for model in (first, other)]
    is_known = all(each.is_known for each in distributions)
    states = [each.state_dict() for each in distributions]
    settings = [_data_settings(model.checkpoint) for model in (first, other)]
    names = {name for each in settings for name in each} if all(settings) else set()
    # Equal training distributions show that a folder has only moved.
    names -= _LOADING | ({"root"} if is_known else set())
    differing = sorted(name for name in names if settings[0].get(name) != settings[1].get(name))
    is_same = all(torch.allclose(value, states[1][name]) for name, value in states[0].items())
    if differing or (is_known and not is_same):
        difference = ", ".join(differing) or "the distribution of the training split"
        raise ValueError(
            f"{which}: their training data differ ({one_line(difference, 200)}); train all members "
            "on the same data."
        )


def _data_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The class of the data module in a file, and its arguments as plain data."""
    found = checkpoint.content.get("data")
    arguments = found.get("init_args") if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(arguments, Mapping):
        return {}
    return {**arguments, "class": found.get("class_path")}


def load_data(
    path: str | Path, root: str | Path | None = None, trust: Sequence[str] = (), **changes: Any
) -> CausalDataModule:
    """Make the data module that the model in a file was trained with.

    The arguments and errors are those of :func:`load` and :meth:`Checkpoint.data`. For a loaded
    model, :meth:`TrainedModel.data` does the same.
    """
    return Checkpoint.read(find_model(path), trust=trust).data(root, **changes)


def _inner_weights(weights: Any) -> Any:
    """Rename weights to those of the causal model; other names are kept, and refused later."""
    if not isinstance(weights, Mapping):
        return weights
    return {
        name[4:] if str(name).startswith("scm.") else f"outside of scm: {name}": value
        for name, value in weights.items()
        if not str(name).startswith("objective.")  # only training needs these
    }


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Raise ValueError as soon as modules register more parameters."""
    left = parameters

    def count(module: object, name: str, parameter: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError("its settings describe a model with more weights than are in the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
