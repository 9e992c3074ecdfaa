"""Images of observations, prepared as the data of a model were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from deepscm_pl.data.images.reading import is_answer, read_image
from deepscm_pl.data.placement import Placement

if TYPE_CHECKING:
    from deepscm_pl.data.causal_data import CausalData

__all__ = ["read_prepared"]


def read_prepared(
    path: Path, shape: Sequence[int], data: CausalData | None = None
) -> list[tuple[Tensor, Placement | None]]:
    """Read the images of a file for a model, prepared as the images of its data were.

    Images that a question of this program has written are prepared already, as are those for data
    that are not made from files. Grey levels become three equal channels for a model in colour;
    nothing else is converted.

    Args:
        path: The file; see :func:`~deepscm_pl.data.images.read_scan`.
        shape: ``(C, *sizes)``, the shape of the images of the model.
        data: The data of the model; None for images that are prepared already.

    Returns:
        Grey levels ``(C, *sizes)`` with their placement, if it is known: one for each slice of the
        file. The caller checks their sizes and numbers.

    Raises:
        ValueError: If the file cannot be read, does not fit the settings of the data, or is in
            colour for a model of grey levels.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.new("L", (5, 4), 200).save(path)
        >>> [(image, _)] = read_prepared(path, (3, 4, 5))
        >>> image.shape
        torch.Size([3, 4, 5])
    """
    if data is None or not data.prepares_files or is_answer(path):
        return [read_image(path, shape)]
    return [(_with_channels(path, image, shape), p) for image, p in data.prepare_file(path)]


def _with_channels(path: Path, image: Tensor, shape: Sequence[int]) -> Tensor:
    if len(image) == shape[0]:
        return image
    if len(image) != 1:
        raise ValueError(
            f"images: {path}: expected grey levels, as the model has, but it is in colour; give a "
            "grey image."
        )
    return image.expand(shape[0], *image.shape[1:])
