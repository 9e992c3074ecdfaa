"""Frozen predictors of the causes of an image, and what they see in counterfactual images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.checkpoints.loading import Checkpoint
from deepscm_pl.configuration import restore_class
from deepscm_pl.digest import weights_digest
from deepscm_pl.scm import StructuralCausalModel
from deepscm_pl.training.stored import StoredModule
from deepscm_pl.variables import Domain, Variables

__all__ = ["PredictorFactory", "Predictors", "TrainedPredictor"]

PredictorFactory = Callable[[], nn.Module]
"""A class of networks of images, or a ``functools.partial`` of one."""

_SCALES = 3.0  # from which on the error of a number counts linearly
_SMALLEST_ERROR = 1e-3  # of the standard deviation of a number in the data


class TrainedPredictor(nn.Module):
    """A trained predictor in a checkpoint, such as an :class:`ImageClassifier`.

    Args:
        checkpoint: A checkpoint of ``deepscm fit`` of a network of images in grey levels.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it is not that of a predictor.

    Example:
        >>> TrainedPredictor("missing.ckpt")
        Traceback (most recent call last):
            ...
        FileNotFoundError: checkpoint: there is no file missing.ckpt; ...
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        opened = Checkpoint.read(checkpoint)
        kind = opened.content.get("model_class")
        if kind is None:
            raise ValueError(
                f"checkpoint: expected a trained predictor, such as an ImageClassifier, but got "
                f"the causal model {Path(checkpoint)}; train a predictor first."
            )
        self.network: nn.Module = opened.build(restore_class(kind, (StoredModule,)))
        self.label: str | None = getattr(self.network, "label", None)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the output of the network for images ``(B, *shape)`` in grey levels."""
        found: Tensor | dict[str, Tensor] = self.network(image)
        return found


class Predictors:
    """Frozen predictors q(pa | x) of scalar causes of an image.

    A network maps images ``(B, *shape)`` in grey levels to logits ``(B, K)`` of a categorical
    cause, or to values ``(B,)`` or ``(B, 1)`` of another one in its unit; a network of several
    causes gives a mapping of these by name. It must be differentiable: a measurement, such as the
    mean of a segmented region, is a predictor, too.

    A predictor of a number is q = N(v(x), σ²), where v is its output, and σ the root mean square of
    its error on recorded images of :meth:`fit`.

    Args:
        networks: The network of each cause.
        domains: The domain of each cause.

    Attributes:
        errors: Of each predictor, once it was fitted.
        largest: The errors of constants.
    """

    def __init__(self, networks: Mapping[str, nn.Module], domains: Mapping[str, Domain]) -> None:
        self.networks = {name: each.eval() for name, each in networks.items()}
        self.domains = {name: domains[name] for name in networks}
        self.errors: dict[str, Tensor] = {}
        self.largest: dict[str, Tensor] = {}
        for each in self.networks.values():
            each.requires_grad_(False)

    @classmethod
    def made(
        cls, factories: Mapping[str, str | PredictorFactory], scm: StructuralCausalModel, image: str
    ) -> Predictors:
        """Make the predictors of causes of an image.

        Args:
            factories: For each cause the factory of its predictor, or a checkpoint.
            scm: The causal model.
            image: The name of the image.

        Raises:
            FileNotFoundError: If a checkpoint does not exist.
            ValueError: If a variable is not a cause of the image, or a predictor is of another
                variable.
        """
        causes = causes_of(scm, image)
        networks = {}
        for name, factory in factories.items():
            if name not in causes:
                raise ValueError(
                    f"predictors: expected some of {', '.join(causes)}, the causes of {image}, but "
                    f"got {name!r}; remove it."
                )
            with _named(f"predictors.{name}"):
                made = TrainedPredictor(factory) if isinstance(factory, str) else factory()
            label = getattr(made, "label", None)
            # The column of a class may have another name than its variable.
            is_other = label in scm.graph or scm[name].domain.categories is None
            if label is not None and label != name and is_other:
                raise ValueError(
                    f"predictors.{name}: expected a predictor of {name}, but got one of {label}; "
                    f"train one with label: {name}."
                )
            networks[name] = made.to(scm.fitted.device)
        return cls(networks, {name: scm[name].domain for name in networks})

    @property
    def digests(self) -> dict[str, str]:
        """The :func:`~deepscm_pl.digest.weights_digest` of each predictor."""
        return {name: weights_digest(each) for name, each in self.networks.items()}

    def views(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits ``(B, K)`` or the value ``(B,)`` of each cause.

        Raises:
            ValueError: If the output of a network is not of its cause.
        """
        found, outputs = {}, {}
        with torch.autocast(image.device.type, enabled=False):
            for name, network in self.networks.items():
                if id(network) not in outputs:
                    outputs[id(network)] = network(image.float())
                found[name] = self._view(name, outputs[id(network)], len(image))
        return found

    def _view(self, name: str, output: Tensor | Mapping[str, Tensor], size: int) -> Tensor:
        if isinstance(output, Mapping):
            if name not in output:
                raise ValueError(
                    f"predictors.{name}: expected a predictor of {name}, but got one of "
                    f"{', '.join(output)}; train one of {name}."
                )
            output = output[name]
        classes = self.domains[name].categories
        shapes = [(size, classes)] if classes else [(size,), (size, 1)]
        if tuple(output.shape) not in shapes:
            wanted = f"logits of {classes} classes" if classes else "one number"
            raise ValueError(
                f"predictors.{name}: expected {wanted} for each image, but got the shape "
                f"{tuple(output.shape)} for {size} images; give a predictor of {name}."
            )
        return output if classes else output.reshape(size)

    def fit(self, images: Tensor, values: Variables) -> None:
        """Measure the error of each predictor on recorded images ``(N, *shape)``.

        For numbers it is the root of the mean square of the error, for classes the mean
        cross-entropy. Rows with missing values are left out.
        """
        with torch.no_grad():
            parts = [self.views(some) for some in images.split(256)]
        for name, domain in self.domains.items():
            view = torch.cat([part[name] for part in parts])
            value = values[name].flatten()
            known = ~value.isnan()
            view, value = view[known], value[known]
            if domain.categories:
                self.errors[name] = functional.cross_entropy(view, value.long())
                shares = value.long().bincount(minlength=domain.categories) / len(value)
                self.largest[name] = -shares.xlogy(shares).sum()
            else:
                deviation = self.largest[name] = value.std(correction=0)
                smallest = _SMALLEST_ERROR * deviation
                self.errors[name] = (view - value).square().mean().sqrt().clamp(min=smallest)

    def blind(self) -> Iterator[str]:
        """Yield a sentence for each predictor that sees nothing of its variable.

        Its error is then that of a constant, the deviation of a number or the entropy of a class,
        or larger: it may be a predictor of another variable.
        """
        for name, error in self.errors.items():
            largest = self.largest[name]
            if 0 < largest <= error:
                yield (
                    f"predictors.{name}: expected an error below {largest.item():.3g}, that of a "
                    f"constant, but got {error.item():.3g}; give a trained predictor of {name}."
                )

    def asked(self, name: str, view: Tensor, value: Tensor) -> Tensor:
        """Return the loss ``(B,)`` of an image that shows ``view`` where ``value`` was asked.

        It is −log q(value | x) without its constant in nats, at least that of a recorded image:
        below, an image would show its class more clearly than recorded ones do.
        """
        if self.domains[name].categories:
            surprise = functional.cross_entropy(view, value.flatten().long(), reduction="none")
            return (surprise - self.errors[name]).clamp(min=0)
        return self._square(name, view - value.flatten())

    def kept(self, name: str, view: Tensor, before: Tensor, change: Tensor) -> Tensor:
        """Return the loss of a counterfactual of a cause on which nobody intervened, ``(B,)``.

        The target is the predictor's own view of the factual image, so that its errors are no
        reason to change the image: KL(q(· | x) ‖ q(· | x*)) of classes, and for numbers that view
        plus the change of the value.
        """
        if not self.domains[name].categories:
            return self._square(name, view - before - change.flatten())
        target = before.softmax(dim=-1)
        return functional.kl_div(view.log_softmax(-1), target, reduction="none").sum(-1)

    def _square(self, name: str, difference: Tensor) -> Tensor:
        """½ (d/σ)², linear beyond three σ."""
        scaled = difference / self.errors[name]
        zero = torch.zeros_like(scaled)
        return functional.huber_loss(scaled, zero, reduction="none", delta=_SCALES)


def causes_of(scm: StructuralCausalModel, image: str) -> tuple[str, ...]:
    """Return the scalar causes of an image, direct and indirect."""
    causes = scm.graph.ancestors(image)
    return tuple(name for name in scm.scalar_variables if name in causes and name != image)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the setting in errors of the construction of a predictor."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
