"""Training of a network that reads a number from an image, as a judge of counterfactuals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from deepscm_pl.checks import whole_number, whole_numbers
from deepscm_pl.configuration import describe
from deepscm_pl.metrics import PerImageStatistics
from deepscm_pl.model_memory import require_buildable
from deepscm_pl.nn import ResidualClassifier
from deepscm_pl.runs.training_state import check_monitors
from deepscm_pl.training.image_classifier import shift_images
from deepscm_pl.training.schedule import Optimisation
from deepscm_pl.training.stored import StoredModule
from deepscm_pl.variables import Variables

__all__ = ["ImageRegressor"]

_QUANTITIES = ("mean_absolute_error", "squared_error")


class ImageRegressor(StoredModule):
    r"""A regressor of a number y, such as the thickness of a digit, from the images of a data set.

    It minimises the mean of ((f(x) − y) / s)² over randomly shifted images x, with s the standard
    deviation of y in the training split. Logged: ``squared_error``, that mean, in train, validation
    and test; in validation and test also ``mean_absolute_error``, of |f(x) − y| in the unit of y.

    Args:
        label: Name of the number in a batch, ``(batch, 1)``.
        shape: Shape of one image, (channels, height, width), in pixels.
        network: Factory, called with ``shape`` and 1: a network ``(batch, *shape)`` ->
            ``(batch, 1)`` of images scaled to [−1, 1]. None for
            :class:`~deepscm_pl.nn.ResidualClassifier`.
        optimizer: The optimiser with its arguments. None for :class:`torch.optim.Adam`.
        scheduler: Learning-rate schedule with its arguments, stepped after every training step
            (``ReduceLROnPlateau`` after every epoch, by ``validation/mean_absolute_error``).
        shift: Largest random shift of training images in pixels; pixels that enter are black.
        variable: Name of the images in a batch, with grey levels from 0 to ``levels`` − 1.
        levels: Number of grey levels.

    Raises:
        ValueError: If a number is out of range; on setup, if the data lack the number or it is not
            finite.

    Example:
        >>> regressor = ImageRegressor("thickness", shape=(1, 8, 8))
        >>> regressor(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 1])
    """

    required_settings = ("network", "label")
    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        label: str,
        shape: Sequence[int] = (1, 28, 28),
        network: Callable[[Sequence[int], int], nn.Module] | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        shift: int = 0,
        variable: str = "image",
        levels: int = 256,
    ) -> None:
        super().__init__()
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        shape = whole_numbers("shape", shape, least=1, lengths=(3,))
        whole_number("shift", shift, least=0)
        whole_number("levels", levels, least=2)
        self.save_hyperparameters(describe(settings))
        make = network or ResidualClassifier
        require_buildable("network", make, shape, 1)
        self.network = make(shape, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.optimisation = Optimisation(optimizer or torch.optim.Adam, scheduler)
        self.label, self.shift, self.variable, self.levels = label, shift, variable, levels
        self.validation_errors = PerImageStatistics(_QUANTITIES)
        self.test_errors = PerImageStatistics(_QUANTITIES)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the names of the class and of the data, so that a test needs only the checkpoint."""
        checkpoint["model_class"] = f"{type(self).__module__}.{type(self).__qualname__}"
        super().on_save_checkpoint(checkpoint)

    def forward(self, image: Tensor) -> Tensor:
        """Return numbers ``(batch, 1)``, in their unit, of images ``(batch, *shape)``."""
        standardised: Tensor = self.network(2 * image / (self.levels - 1) - 1)
        return self.mean + self.deviation * standardised

    def setup(self, stage: str) -> None:
        """Take mean and standard deviation of the number from the training split."""
        if stage != "fit":
            return
        check_monitors(self.trainer, self, [f"validation/{name}" for name in _QUANTITIES])
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        rows = datamodule.variables("train")
        if self.label not in rows:
            raise ValueError(
                f"label: expected a variable of the data, {', '.join(rows)}, but got "
                f"{self.label!r}; name the number to be read from images."
            )
        values = rows[self.label].double()
        if not bool(values.isfinite().all()):
            raise ValueError(
                f"label: expected finite numbers of {self.label}, but got NaN or infinity; leave "
                "out rows without a value."
            )
        spread = values.std(correction=0)
        self.mean.copy_(values.mean())
        self.deviation.copy_(spread if bool(spread > 0) else torch.ones_like(spread))

    def training_step(self, batch: Variables, batch_index: int) -> Tensor:
        """The standardised squared error of shifted images."""
        errors = self._errors(batch, self.shift)["squared_error"]
        loss = errors.mean()
        self.loss_terms = {"squared_error": errors.detach()}
        self.log("train/squared_error", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: Variables, batch_index: int) -> None:
        """Collect the errors of a batch."""
        self.validation_errors.update(self._errors(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the mean errors over all images."""
        self.log_means("validation", self.validation_errors)

    def test_step(self, batch: Variables, batch_index: int) -> None:
        """Collect the errors of a batch."""
        self.test_errors.update(self._errors(batch))

    def on_test_epoch_end(self) -> None:
        """Log the mean errors over all images."""
        self.log_means("test", self.test_errors)

    def predict_step(self, batch: Variables, batch_index: int) -> dict[str, Tensor]:
        """Each image's number, and the number that is read from the image."""
        read = self(batch[self.variable]).flatten()
        return {"label": batch[self.label].flatten(), "prediction": read}

    def configure_optimizers(self) -> Any:
        """The optimiser of all parameters, and its schedule."""
        monitor = "validation/mean_absolute_error"
        return self.optimisation.configure(self.trainer, self.parameters(), monitor)

    def _errors(self, batch: Variables, shift: int = 0) -> dict[str, Tensor]:
        image = shift_images(batch[self.variable], shift)
        error = (self(image) - batch[self.label]).flatten().float()
        scaled = (error / self.deviation).square()
        return {"mean_absolute_error": error.abs(), "squared_error": scaled}
