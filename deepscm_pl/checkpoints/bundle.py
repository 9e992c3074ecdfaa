"""The network of a MONAI bundle, and the parts of its inference: reader and writer of images.

:func:`~deepscm_pl.checkpoints.bundle_files.write_bundle` writes configurations that name these
classes. The module imports no MONAI.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.data.images import (
    colours,
    default_placement,
    read_prepared,
    write_nifti,
    write_picture,
)
from deepscm_pl.data.placement import Placement
from deepscm_pl.data.tables import Table, read_table
from deepscm_pl.escaping import for_file_name, one_line
from deepscm_pl.files import new_folder
from deepscm_pl.interventions import format_do, parse_do
from deepscm_pl.observed import read_observed
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.variables import Do, Variable

__all__ = ["CounterfactualNetwork", "CounterfactualWriter", "ObservationReader", "image_of"]


def image_of(scm: StructuralCausalModel) -> Variable:
    """Return the image of a model that can be the network of a bundle.

    Raises:
        ValueError: If the model has no image, several, one of other values than whole grey levels
            from 0, or no other variable, on which an intervention would act.
    """
    images = scm.image_variables
    if len(images) != 1:
        found = f"has {', '.join(images)}" if images else f"has only {', '.join(scm.graph.nodes)}"
        raise ValueError(
            f"bundle: expected a model with one image, which the network of a bundle takes and "
            f"returns, but this one {found}; export it as safetensors (leave --format out)."
        )
    if len(scm.graph.nodes) == 1:
        raise ValueError(
            f"bundle: expected a model with attributes to intervene on, but it has only "
            f"{images[0]}; export it as safetensors (leave --format out)."
        )
    variable = scm.variables[images[0]]
    domain = variable.domain
    if not domain.whole or domain.lower != 0 or not 0 < domain.upper < math.inf:
        raise ValueError(
            f"bundle: expected an image of whole grey levels from 0, but {variable.name} has "
            f"{domain}; export it as safetensors (leave --format out)."
        )
    return variable


class CounterfactualNetwork(nn.Module):
    """A network from an image and its attributes to the image under an intervention.

    Grey levels are divided by the largest one, usually 255: they are numbers in [0, 1], as is usual
    in MONAI. Numbers between two grey levels are rounded to the nearer one. Images have the axes of
    this package: pictures ``(C, rows, columns)`` with the first row at the top, volumes
    ``(C, X, Y, Z)`` from left to right, back to front and bottom to top.

    The answer is one for each image, with its noise at its most likely value: abduction, action and
    prediction of :meth:`StructuralCausalModel.counterfactual
    <deepscm_pl.scm.StructuralCausalModel.counterfactual>`.

    Args:
        model: An exported model, ``model.safetensors``. No code in it is executed.
        do: The intervention, as text such as ``"thickness=3"``.
        attributes: Values of the attributes, in their units or as indices of classes, of images
            that come without; None to refuse such images. Numbers of a vector are a list.
        trust: Packages whose classes the file may name, in addition to this package.
        seed: Seed of noise that an observation does not determine, such as that of classes.

    Attributes:
        scm: The causal model.
        image: The image variable.
        attributes: The other variables, in the order of the graph.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file, the intervention or an attribute does not fit.
    """

    def __init__(
        self,
        model: str | Path,
        do: str,
        attributes: Mapping[str, float | Sequence[float]] | None = None,
        trust: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        path = Path(model)
        if not path.is_file():
            raise FileNotFoundError(
                f"model: there is no file {path}; run in the folder of the bundle, or give its "
                "path: bundle_root in monai.bundle.run, net_override={'model': FILE} in "
                "monai.bundle.load."
            )
        trained = Checkpoint.read(path, trust=trust).trained_model()
        self.scm = trained.scm
        self.checkpoint = trained.checkpoint
        self.image = image_of(self.scm)
        self.attributes = {n: v for n, v in self.scm.variables.items() if n != self.image.name}
        self.seed = seed
        self.do = self._parsed(do)
        self.constants = None if attributes is None else self._constants(attributes)
        self.eval()

    @property
    def levels(self) -> float:
        """The largest grey level, by which images are divided."""
        return self.image.domain.upper

    def forward(
        self, image: Tensor, attributes: Tensor | None = None, do: str | None = None
    ) -> Tensor:
        """Return the images under the intervention, ``(N, C, *sizes)`` in [0, 1].

        Args:
            image: Images ``(N, C, *sizes)`` in [0, 1].
            attributes: ``(N, A)``, the numbers of all attributes in the order of the graph, in
                their units or as indices of classes; NaN is a missing number and is inferred. None
                for those of the constructor, with a warning.
            do: Another intervention than that of the constructor.

        Raises:
            ValueError: If a tensor has another shape, or an impossible value; if there are neither
                attributes nor constants; or if the intervention cannot be read.
        """
        values = {**self._observed(attributes, len(image)), self.image.name: self._recorded(image)}
        asked = self.do if do is None else self._parsed(do)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            answer = self.scm.counterfactual(values, asked)[self.image.name][0]
        return (answer / self.levels).float()

    def describe_do(self) -> str:
        """The intervention in words, such as ``do(thickness = 3 pixels)``."""
        return format_do(self.do, self.scm.variables)

    def encode(self, observed: Mapping[str, Tensor]) -> Tensor:
        """Return attributes ``(N, *event)`` of each name as the numbers ``(N, A)`` of a row."""
        return torch.cat([observed[name].flatten(1) for name in self.attributes], dim=1)

    def _parsed(self, do: str) -> Do:
        if not isinstance(do, str):
            raise ValueError(
                f"do: expected a text such as 'age=80', but got {one_line(repr(do), 80)}."
            )
        found = parse_do(do, self.scm.variables)
        self.scm.check_do(found)
        return found

    def _constants(self, given: Mapping[str, float | Sequence[float]]) -> Tensor:
        """The constant attributes as a row ``(1, A)``."""
        differing = sorted(given.keys() ^ self.attributes.keys())
        if differing:
            raise ValueError(
                f"attributes: expected values of {', '.join(self.attributes)}, but got "
                f"{', '.join(given) or 'none'} ({differing[0]} differs)."
            )
        found = {}
        for name, variable in self.attributes.items():
            try:
                value = torch.as_tensor(given[name], dtype=self.scm.dtype)
                found[name] = value.reshape(1, *variable.domain.shape)
            except (TypeError, ValueError, RuntimeError):
                raise ValueError(
                    f"attributes: expected {math.prod(variable.domain.shape)} numbers of {name}, "
                    f"but got {one_line(repr(given[name]), 80)}."
                ) from None
            variable.domain.check(f"attributes: {name}", found[name])
        return self.encode(found)

    def _recorded(self, image: Tensor) -> Tensor:
        """Whole grey levels of an image in [0, 1]."""
        shape = self.image.domain.shape
        if tuple(image.shape[1:]) != shape or not len(image):
            raise ValueError(
                f"image: expected images ({', '.join(map(str, ('N', *shape)))}), but got "
                f"{tuple(image.shape)}; crop or resize them as the training data."
            )
        inside = (image >= 0) & (image <= 1)
        if not bool(inside.all()):
            found = float(image[~inside].flatten()[0])
            raise ValueError(
                f"image: expected grey levels divided by {self.levels:g}, in [0, 1], but got "
                f"{found:g}; divide them."
            )
        return (image.to(self.scm.fitted.device, self.scm.dtype) * self.levels).round()

    def _observed(self, attributes: Tensor | None, rows: int) -> dict[str, Tensor]:
        """The attributes of images by name, ``(N, *event)`` each."""
        if attributes is None:
            if self.constants is None:
                raise ValueError(
                    f"attributes: expected a tensor ({rows}, {self._width()}) with "
                    f"{', '.join(self.attributes)} of each image, but got none."
                )
            warnings.warn(
                "attributes: the images came without, so that the constants of the configuration "
                f"are used for {', '.join(self.attributes)}; the answer is wrong if they differ.",
                stacklevel=3,
            )
            attributes = self.constants.expand(rows, -1)
        if tuple(attributes.shape) != (rows, self._width()):
            raise ValueError(
                f"attributes: expected a tensor ({rows}, {self._width()}) with "
                f"{', '.join(self.attributes)} of each image, but got {tuple(attributes.shape)}."
            )
        moved = attributes.to(self.scm.fitted.device, self.scm.dtype)
        shapes = [variable.domain.shape for variable in self.attributes.values()]
        parts = moved.split([math.prod(shape) for shape in shapes], dim=1)
        return {
            name: part.reshape(rows, *shape)
            for name, part, shape in zip(self.attributes, parts, shapes, strict=True)
        }

    def _width(self) -> int:
        return sum(math.prod(each.domain.shape) for each in self.attributes.values())


class ObservationReader:
    """Reader of the rows of a table: an image file, prepared as the training data, and attributes.

    It is the preprocessing of a bundle. MONAI's own reader of pictures swaps rows and columns, and
    knows neither the crops nor the grey levels of the training data.

    Args:
        network: The network of the bundle.
    """

    def __init__(self, network: CounterfactualNetwork) -> None:
        self.network = network
        self._data = network.checkpoint.data_from_files()

    def rows(self, table: str | Path) -> list[dict[str, str]]:
        """Return the rows of a table with a column for each variable, without reading images.

        Args:
            table: A file, as for ``deepscm counterfactual --observations``; the paths of images are
                relative to it.

        Raises:
            FileNotFoundError: If the table or an image does not exist.
            ValueError: If the table cannot be read, is empty, or a column is missing.
        """
        path, names = Path(table), [*self.network.attributes, self.network.image.name]
        if not path.is_file():
            raise FileNotFoundError(
                f"observations: there is no table {path}; give one with the columns "
                f"{', '.join(names)}."
            )
        found = read_table(path, setting="observations", expected=names)
        missing = [name for name in names if name not in found.columns]
        if missing:
            raise ValueError(
                f"observations: expected {path} to have the columns {', '.join(names)}, but "
                f"{', '.join(missing)} is missing; it has {found.listed}."
            )
        columns = {name: self._cells(found, name) for name in names}
        rows = [{name: columns[name][k] for name in names} for k in range(len(found))]
        for k, row in enumerate(rows):
            image = path.parent / row[self.network.image.name]
            if not row[self.network.image.name] or not image.is_file():
                raise FileNotFoundError(
                    f"observations: {found.where(k)}: there is no image {image}."
                )
            row[self.network.image.name] = str(image)
        return rows

    def _cells(self, table: Table, name: str) -> list[str]:
        """The cells of a column, numbers with decimal points, and missing ones empty."""
        texts = [
            "" if missing else str(cell)
            for cell, missing in zip(table[name], table.is_missing(name), strict=True)
        ]
        variable = self.network.attributes.get(name)
        if variable is None or variable.domain.categories is not None:
            return texts
        numbers = table.numbers(name)
        # What is no number stays as it is, and is refused with its row.
        return [
            text if math.isnan(number) else str(number)
            for text, number in zip(texts, numbers, strict=True)
        ]

    def __call__(self, row: Mapping[str, str]) -> dict[str, Any]:
        """Read the image of a row.

        Returns:
            ``image`` ``(C, *sizes)`` in [0, 1], ``attributes`` ``(A,)``, ``affine`` ``(4, 4)`` as
            in :class:`~deepscm_pl.data.placement.Placement`, and ``name``, that of the file.

        Raises:
            ValueError: If the image or an attribute does not fit the model.
        """
        network, places = self.network, []

        def read(path: Path, variable: Variable) -> Tensor:
            image, placement = self._read(path, variable)
            places.append(placement or default_placement(image.dim() - 1))
            return image

        given = {name: [cell or None] for name, cell in row.items()}
        observed = read_observed(given, network.scm.variables, network.scm.dtype, read, True).values
        return {
            "image": (observed[network.image.name][0] / network.levels).float(),
            "attributes": network.encode(observed)[0].float(),
            "affine": torch.as_tensor(places[0].affine),
            "name": Path(row[network.image.name]).name.partition(".")[0],
        }

    def _read(self, path: Path, variable: Variable) -> tuple[Tensor, Placement | None]:
        shape = variable.domain.shape
        found = read_prepared(path, shape, self._data)
        if len(found) != 1 or tuple(found[0][0].shape) != shape:
            sizes = f"{len(found)} images" if len(found) != 1 else f"{tuple(found[0][0].shape)}"
            raise ValueError(
                f"{path}: expected one image {shape}, but got {sizes}; give an image of the size "
                "of the training data."
            )
        return found[0]


class CounterfactualWriter:
    """Writer of the answers of a bundle: an image file for each row.

    It is the evaluator of a bundle, without Ignite. Pictures are PNG; volumes are NIfTI, in the
    place of their scans.

    Args:
        network: The network of the bundle.
        dataloader: Batches of what :class:`ObservationReader` returns.
        inferer: Called with the images, the network and the attributes, such as MONAI's
            ``SimpleInferer``.
        output_dir: Folder to make; new or empty.

    Raises:
        ValueError: If the images have channels that files of images cannot contain.
    """

    def __init__(
        self,
        network: CounterfactualNetwork,
        dataloader: Iterable[Mapping[str, Any]],
        inferer: Callable[[Tensor, nn.Module, Tensor], Tensor],
        output_dir: str | Path,
    ) -> None:
        channels = network.image.domain.shape[0]
        if channels not in (1, 3):
            raise ValueError(
                f"evaluator: expected images of one or three channels, which files can contain, "
                f"but the model has {channels}; call the network for tensors."
            )
        self.network, self.dataloader, self.inferer = network, dataloader, inferer
        self.output_dir = Path(output_dir)

    def run(self) -> list[Path]:
        """Answer for all rows, and return the files; the folder appears when it is complete.

        Raises:
            ValueError: If the folder is not empty or cannot be written, or an observation does not
                fit the model.
        """
        names: list[str] = []
        device = self.network.scm.fitted.device
        with new_folder(self.output_dir) as folder:
            for batch in self.dataloader:
                images, attributes = batch["image"].to(device), batch["attributes"].to(device)
                answers = self.inferer(images, self.network, attributes)
                pixels = (answers * self.network.levels).round().byte().cpu()
                for image, affine, name in zip(pixels, batch["affine"], batch["name"], strict=True):
                    stem = f"{len(names)}-{for_file_name(name)}"
                    names.append(self._write(folder, stem, image, Placement(affine.numpy())))
        return [self.output_dir / name for name in names]

    def _write(self, folder: Path, stem: str, image: Tensor, placement: Placement) -> str:
        if image.dim() == 3:
            write_picture(folder / f"{stem}.png", image.numpy())
            return f"{stem}.png"
        volume = image[0].numpy() if len(image) == 1 else colours(image.numpy())
        write_nifti(folder / f"{stem}.nii.gz", volume, placement, self.network.describe_do())
        return f"{stem}.nii.gz"
