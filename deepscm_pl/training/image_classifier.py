"""Training of an image classifier, which tests whether a counterfactual keeps its class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassAccuracy

from deepscm_pl.checks import whole_number, whole_numbers
from deepscm_pl.configuration import describe
from deepscm_pl.metrics import PerImageStatistics
from deepscm_pl.model_memory import require_buildable
from deepscm_pl.nn import ResidualClassifier
from deepscm_pl.runs.training_state import check_monitors
from deepscm_pl.training.schedule import Optimisation
from deepscm_pl.training.stored import StoredModule
from deepscm_pl.variables import Variables

__all__ = ["ImageClassifier"]


class ImageClassifier(StoredModule):
    """A classifier of a data module's images, trained by the cross-entropy on shifted images.

    Logged in train, validation and test: ``cross_entropy`` in nats; in validation and test also
    ``accuracy``, the fraction of images whose most likely class is their label.

    Args:
        shape: Shape of one image, (channels, height, width), in pixels.
        classes: Number of classes.
        network: Factory, called with ``shape`` and ``classes``: a network ``(batch, *shape)`` ->
            ``(batch, classes)`` of images scaled to [−1, 1]. None for
            :class:`~deepscm_pl.nn.ResidualClassifier`.
        optimizer: The optimiser with its arguments. None for :class:`torch.optim.Adam`.
        scheduler: Learning-rate schedule with its arguments, stepped after every training step
            (``ReduceLROnPlateau`` after every epoch, by ``validation/accuracy``).
        shift: Largest random shift of training images in pixels; pixels that enter are black.
        variable: Name of the images in a batch, with grey levels from 0 to ``levels`` − 1.
        label: Name of the class indices in a batch, ``(batch, 1)``.
        levels: Number of grey levels.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> classifier = ImageClassifier(shape=(1, 8, 8), classes=3)
        >>> classifier(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    required_settings = ("network", "classes")

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
        network: Callable[[Sequence[int], int], nn.Module] | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        shift: int = 0,
        variable: str = "image",
        label: str = "label",
        levels: int = 256,
    ) -> None:
        super().__init__()
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        shape = whole_numbers("shape", shape, least=1, lengths=(3,))
        whole_number("classes", classes, least=2)
        whole_number("shift", shift, least=0)
        whole_number("levels", levels, least=2)
        self.save_hyperparameters(describe(settings))
        make = network or ResidualClassifier
        require_buildable("network", make, shape, classes)
        self.network = make(shape, classes)
        self.optimisation = Optimisation(optimizer or torch.optim.Adam, scheduler)
        self.shift, self.variable, self.label, self.levels = shift, variable, label, levels
        self.validation_accuracy = MulticlassAccuracy(classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(classes, average="micro")
        self.validation_surprise = PerImageStatistics(["cross_entropy"])
        self.test_surprise = PerImageStatistics(["cross_entropy"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the names of the class and of the data, so that a test needs only the checkpoint."""
        checkpoint["model_class"] = f"{type(self).__module__}.{type(self).__qualname__}"
        super().on_save_checkpoint(checkpoint)

    def forward(self, image: Tensor) -> Tensor:
        """The logits ``(batch, classes)`` of images ``(batch, *shape)`` in grey levels."""
        logits: Tensor = self.network(2 * image / (self.levels - 1) - 1)
        return logits

    def training_step(self, batch: Variables, batch_index: int) -> Tensor:
        """The cross-entropy of shifted images, in nats per image."""
        logits = self(shift_images(batch[self.variable], self.shift))
        surprise = functional.cross_entropy(logits, self._labels(batch), reduction="none")
        loss = surprise.mean()
        self.loss_terms = {"cross_entropy": surprise.detach()}
        self.log("train/cross_entropy", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: Variables, batch_index: int) -> None:
        """Collect the accuracy and the cross-entropy of a batch."""
        self._evaluate(batch, "validation", self.validation_accuracy, self.validation_surprise)

    def on_validation_epoch_end(self) -> None:
        """Log the mean cross-entropy over all images."""
        self.log_means("validation", self.validation_surprise)

    def test_step(self, batch: Variables, batch_index: int) -> None:
        """Collect the accuracy and the cross-entropy of a batch."""
        self._evaluate(batch, "test", self.test_accuracy, self.test_surprise)

    def on_test_epoch_end(self) -> None:
        """Log the mean cross-entropy over all images."""
        self.log_means("test", self.test_surprise)

    def predict_step(self, batch: Variables, batch_index: int) -> dict[str, Tensor]:
        """Each image's label, its most likely class, and the probability of that class."""
        probability, prediction = self(batch[self.variable]).softmax(dim=-1).max(dim=-1)
        label = self._labels(batch)
        return {"label": label, "prediction": prediction, "probability": probability}

    def setup(self, stage: str) -> None:
        """Raise ValueError where a callback monitors a quantity that is not logged."""
        if stage == "fit":
            logged = ("validation/accuracy", "validation/cross_entropy")
            check_monitors(self.trainer, self, logged)

    def configure_optimizers(self) -> Any:
        """The optimiser of all parameters, and its schedule."""
        return self.optimisation.configure(self.trainer, self.parameters(), "validation/accuracy")

    def _labels(self, batch: Variables) -> Tensor:
        return batch[self.label].flatten().long()

    def _evaluate(
        self,
        batch: Variables,
        stage: str,
        accuracy: MulticlassAccuracy,
        surprise: PerImageStatistics,
    ) -> None:
        logits, labels = self(batch[self.variable]), self._labels(batch)
        accuracy.update(logits, labels)
        self.log(f"{stage}/accuracy", accuracy, on_epoch=True, prog_bar=True)
        cross_entropy = functional.cross_entropy(logits, labels, reduction="none")
        surprise.update({"cross_entropy": cross_entropy})


def shift_images(image: Tensor, largest: int) -> Tensor:
    """Shift each image ``(batch, C, H, W)`` by up to ``largest`` pixels in each direction.

    The shifts are whole numbers of pixels, drawn uniformly.

    Example:
        >>> shift_images(torch.ones(1, 1, 4, 4), 0).sum()
        tensor(16.)
    """
    if largest == 0:
        return image
    size, _, height, width = image.shape
    padded = functional.pad(image, (largest,) * 4)
    starts = torch.randint(0, 2 * largest + 1, (2, size, 1), device=image.device)
    rows = (starts[0] + torch.arange(height, device=image.device))[:, :, None]
    columns = (starts[1] + torch.arange(width, device=image.device))[:, None, :]
    images = torch.arange(size, device=image.device)[:, None, None]
    return padded[images, :, rows, columns].movedim(-1, 1)
