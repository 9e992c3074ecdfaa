"""A training step of the full Morpho-MNIST model, against a plain loop written by hand.

Prints one JSON line per figure: how many times as fast as the plain loop ``DeepSCM`` trains the
same network with the same loss and optimiser. Both are checked to find the same loss first. On a
GPU also the most memory that ``DeepSCM`` takes beside the plain model, and the utilisation.

    python benchmarks/train_step.py --batch 256 --rounds 15 --device cuda
"""

from __future__ import annotations

import argparse
import math
from types import SimpleNamespace
from typing import Any

import torch
from devices import add_device_option, usage
from figures import Figures, add_promise_option
from measuring import compare, make_model, random_batch, repeat
from pytorch_lightning.trainer.states import RunningStage, TrainerFn, TrainerState
from torch import Tensor, nn
from torch.nn import functional

from deepscm_pl.training import DeepSCM
from deepscm_pl.training.objectives import TrainingProgress

_LEVELS, _ALPHA, _LOG_VARIANCE, _BOUND, _BINS = 256, 0.05, -5.0, 4.0, 8


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="images per step")
    parser.add_argument("--rounds", type=int, default=15, help="pairs of measurements")
    parser.add_argument("--steps", type=int, default=3, help="steps per measurement")
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--precisions", nargs="+", default=["32", "bf16"], choices=["32", "bf16"])
    add_device_option(parser)
    add_promise_option(parser)
    arguments = parser.parse_args()
    figures = Figures(arguments.at_least)
    for particles in arguments.particles:
        for precision in arguments.precisions:
            _measure(figures, arguments, particles, precision == "bf16")
    figures.check()


def _measure(
    figures: Figures, arguments: argparse.Namespace, particles: int, is_mixed: bool
) -> None:
    torch.manual_seed(0)
    device: torch.device = arguments.device
    model = make_model("morphomnist/full.yaml", particles).to(device)
    plain = PlainModel(model).to(device)
    batch = {name: each.to(device) for name, each in random_batch(arguments.batch).items()}
    difference = _difference(model, plain, batch, particles)
    ours = ModelSteps(model, batch, is_mixed)
    theirs = PlainSteps(plain, batch, particles, is_mixed)
    found = compare(
        lambda: repeat(ours.step, arguments.steps),
        lambda: repeat(theirs.step, arguments.steps),
        arguments.rounds,
    )
    images = arguments.batch * arguments.steps
    figures.report(
        f"train_step_{particles}_particles_{'bf16_mixed' if is_mixed else 'float32'}",
        speed_over_plain=found.ratio,
        images_per_second=images / found.first,
        plain_images_per_second=images / found.second,
        relative_difference_of_losses=difference,
        **usage(lambda: repeat(ours.step, arguments.steps), device),
    )


def _difference(
    model: DeepSCM, plain: PlainModel, batch: dict[str, Tensor], particles: int
) -> float:
    """Of the losses of both with the same weights and noise, relative.

    Raises:
        RuntimeError: If it is more than 1e-4.
    """
    torch.manual_seed(7)
    first = -model.objective(model.scm, batch, _START).objective.item()
    torch.manual_seed(7)
    second = plain.loss(batch, particles).item()
    difference = abs(first - second) / abs(first)
    if not difference < 1e-4:
        raise RuntimeError(f"expected the same losses, but got {first} and {second}.")
    return difference


_START = TrainingProgress(0, 0)


class ModelSteps:
    """Steps of ``DeepSCM`` as a trainer does them, without the trainer and without logging.

    Args:
        model: The model, on the device to compute on.
        batch: The same for every step, on that device.
        is_mixed: Whether networks compute in bfloat16.
    """

    def __init__(self, model: DeepSCM, batch: dict[str, Tensor], is_mixed: bool = False) -> None:
        self.model, self.batch, self.is_mixed = model, batch, is_mixed
        self.device = next(model.parameters()).device
        self.trainer = StandInTrainer()
        model.trainer = self.trainer  # type: ignore[assignment]
        self.callbacks: Any = model.configure_callbacks()
        self.optimizer = _make_optimizer(
            [list(model.scm[name].parameters()) for name in model.scm.graph.nodes]
        )
        for name in ("log", "log_dict"):
            setattr(model, name, lambda *_, **__: None)

    def step(self) -> None:
        """One of them."""
        for callback in self.callbacks:
            callback.on_train_batch_start(self.trainer, self.model, self.batch, 1)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_mixed):
            loss = self.model.training_step(self.batch, 1)
        for callback in self.callbacks:
            callback.on_before_backward(self.trainer, self.model, loss)
        loss.backward()
        for callback in self.callbacks:
            callback.on_before_optimizer_step(self.trainer, self.model, self.optimizer)
        self.optimizer.step()


class StandInTrainer:
    """As much of a trainer as a training step asks for."""

    def __init__(self) -> None:
        self.global_step = self.current_epoch = self.global_rank = 0
        self.should_stop = self.predicting = False
        self.state = TrainerState(fn=TrainerFn.FITTING, stage=RunningStage.TRAINING)
        self.callbacks: list[object] = []
        self.precision_plugin = SimpleNamespace(scaler=None)
        progress = SimpleNamespace(is_last_batch=False)
        steps = SimpleNamespace(batch_progress=progress, val_loop=SimpleNamespace())
        self.fit_loop = SimpleNamespace(epoch_loop=steps)
        self.log_every_n_steps = 50


class PlainSteps:
    """Steps of a loop as one would write it.

    Args:
        model: The network with its loss, on the device to compute on.
        batch: The same for every step, on that device.
        particles: Draws of the latent.
        is_mixed: Whether networks compute in bfloat16.
    """

    def __init__(
        self, model: PlainModel, batch: dict[str, Tensor], particles: int, is_mixed: bool
    ) -> None:
        self.model, self.batch = model, batch
        self.device = next(model.parameters()).device
        self.particles, self.is_mixed = particles, is_mixed
        self.optimizer = _make_optimizer(
            [[model.spline], [model.affine_weight, model.affine_bias], [*model.image.parameters()]]
        )

    def step(self) -> None:
        """One of them."""
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_mixed):
            loss = self.model.loss(self.batch, self.particles)
        loss.backward()
        self.optimizer.step()


def _make_optimizer(groups: list[list[nn.Parameter]]) -> torch.optim.Optimizer:
    """Adam with the learning rates of the experiment: that of the last variable is the image's."""
    return torch.optim.Adam(
        [
            *({"params": group, "lr": 1e-2} for group in groups[:-1]),
            {"params": groups[-1], "lr": 2e-3},
        ],
        fused=True,
    )


class PlainModel(nn.Module):
    """The full Morpho-MNIST model, written by hand in plain PyTorch.

    Args:
        model: Gives the weights and the statistics of the data.
    """

    def __init__(self, model: DeepSCM) -> None:
        super().__init__()
        thickness, intensity, image = (model.scm[name] for name in model.scm.graph.nodes)
        self.spline = _copy(next(thickness.parameters()))
        weight, bias = intensity.parameters()
        self.affine_weight, self.affine_bias = _copy(weight), _copy(bias)
        self.image = _make_networks()
        pairs = zip(self.image.parameters(), image.parameters(), strict=True)
        with torch.no_grad():
            for mine, given in pairs:
                mine.copy_(given)
        self.scales = [
            (float(each.constraint.location), float(each.constraint.scale))  # type: ignore
            for each in (thickness, intensity)
        ]
        means = [image.context.get_buffer(f"{name}_mean") for name in ("thickness", "intensity")]
        self.register_buffer("mean", torch.cat(means))
        deviations = [
            image.context.get_buffer(f"{name}_deviation") for name in ("thickness", "intensity")
        ]
        self.register_buffer("deviation", torch.cat(deviations))

    def loss(self, batch: dict[str, Tensor], particles: int) -> Tensor:
        """The negative evidence lower bound, averaged over the batch."""
        image = batch["image"]
        margin = 2.0**-20 * _LEVELS * 4
        image = image + torch.rand_like(image).clamp(margin, 1 - margin)
        thickness, intensity = batch["thickness"], batch["intensity"]
        context = (torch.cat([thickness, intensity], dim=1) - self.mean) / self.deviation
        log_prob = self._thickness(thickness) + self._intensity(intensity, context[:, :1])
        return -(log_prob + self._image(image, context, particles)).mean()

    def _thickness(self, value: Tensor) -> Tensor:
        """log p of x = exp(m + s·(μ + σ·S(u)))."""
        location, scale = self.scales[0]
        logarithm = value.log()
        shift, log_scale, widths, heights, slopes = self.spline.split([1, 1, _BINS, _BINS, 7])
        y = ((logarithm - location) / scale - shift) * (-log_scale).exp()
        u, log_slope = _inverse_spline(y, widths, heights, slopes)
        jacobian = log_slope + log_scale + math.log(scale) + logarithm
        return (_log_normal(u) - jacobian).squeeze(1)

    def _intensity(self, value: Tensor, context: Tensor) -> Tensor:
        """log p of x = 64 + 191·σ(m + s·(μ(pa) + σ(pa)·u))."""
        location, scale = self.scales[1]
        share = (value - 64) / 191
        raw = share.log() - (-share).log1p()
        with torch.autocast(context.device.type, enabled=False):
            parameters = functional.linear(context, self.affine_weight, self.affine_bias)
        shift, log_scale = parameters.chunk(2, dim=1)
        u = ((raw - location) / scale - shift) * (-log_scale).exp()
        jacobian = log_scale + math.log(191 * scale) + share.log() + (-share).log1p()
        return (_log_normal(u) - jacobian).squeeze(1)

    def _image(self, value: Tensor, context: Tensor, particles: int) -> Tensor:
        """E_q[log p(x | z, pa)] − KL(q ‖ p)."""
        features = self.image["encoder"](2 * value / _LEVELS - 1)
        parameters = self.image["head"](torch.cat([features, context], dim=1)).float()
        location, log_scale = parameters.chunk(2, dim=1)
        log_scale = log_scale.clamp(max=20.0)
        noise = torch.randn(particles, *location.shape, device=location.device)
        latent = location + log_scale.exp() * noise
        inputs = torch.cat([latent, context.expand(particles, -1, -1)], dim=2).flatten(0, 1)
        mean = self.image["decoder"](inputs).float().view(particles, *value.shape)
        log_p = torch.log(_ALPHA + (1 - _ALPHA) / _LEVELS * value)
        log_q = torch.log((1 - _ALPHA) / _LEVELS * (_LEVELS - value))
        u = (log_p - log_q - mean) * math.exp(-_LOG_VARIANCE / 2)
        jacobian = math.log((1 - _ALPHA) / _LEVELS) - log_p - log_q - _LOG_VARIANCE / 2
        log_prob = (_log_normal(u) + jacobian).flatten(2).sum(2).mean(0)
        divergence = 0.5 * (location.square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(1)
        return log_prob - divergence


def _copy(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone())


def _make_networks() -> nn.ModuleDict:
    """Encoder, posterior head and decoder."""
    encoder = [nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(64, 128, 4, 2, 1)]
    head = [nn.Linear(102, 100), nn.LeakyReLU(0.1), nn.Linear(100, 32)]
    decoder = [nn.Linear(18, 1024), nn.LeakyReLU(0.1), nn.Linear(1024, 6272), nn.LeakyReLU(0.1)]
    doubling = [nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.LeakyReLU(0.1)]
    features = [nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(6272, 100), nn.LeakyReLU(0.1)]
    last = nn.ConvTranspose2d(64, 1, 4, 2, 1)
    return nn.ModuleDict(
        {
            "encoder": nn.Sequential(*encoder, *features),
            "head": nn.Sequential(*head),
            "decoder": nn.Sequential(*decoder, nn.Unflatten(1, (128, 7, 7)), *doubling, last),
        }
    )


def _log_normal(u: Tensor) -> Tensor:
    return -0.5 * u.square() - 0.5 * math.log(2 * math.pi)


def _inverse_spline(
    y: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """The input of a rational-quadratic spline with output ``y``, and the log of its slope."""
    knots_x, knots_y = _knots(widths), _knots(heights)
    derivatives = functional.softplus(slopes + math.log(math.e - 1))
    derivatives = functional.pad(1e-3 + (1 - 1e-3) * derivatives, (1, 1), value=1.0)
    index = (y.detach() >= knots_y[1:-1].detach()).sum(dim=1, keepdim=True)
    x_0, y_0, d_0 = knots_x[index], knots_y[index], derivatives[index]
    width, height = knots_x[index + 1] - x_0, knots_y[index + 1] - y_0
    d_1, s = derivatives[index + 1], height / width
    rise = (y - y_0).clamp(min=0).minimum(height)
    curvature = d_1 + d_0 - 2 * s
    a, b = height * (s - d_0) + rise * curvature, height * d_0 - rise * curvature
    root = (b.square() + 4 * a * s * rise).clamp(min=0).sqrt()
    xi = 2 * s * rise / (b + root)
    cross = xi * (1 - xi)
    top = d_1 * xi.square() + 2 * s * cross + d_0 * (1 - xi).square()
    log_slope = 2 * s.log() + top.log() - 2 * (s + curvature * cross).log()
    inside = y.abs() < _BOUND
    return (
        torch.where(inside, x_0 + xi * width, y),
        torch.where(inside, log_slope, torch.zeros_like(y)),
    )


def _knots(logits: Tensor) -> Tensor:
    sizes = 1e-3 + (1 - 1e-3 * _BINS) * logits.softmax(dim=0)
    inner = 2 * _BOUND * sizes.cumsum(dim=0)[:-1] - _BOUND
    return functional.pad(functional.pad(inner, (1, 0), value=-_BOUND), (0, 1), value=_BOUND)


if __name__ == "__main__":
    main()
