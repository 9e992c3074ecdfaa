"""Synthetic worlds: causal models that are known, attributes and images included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, gammaln, logit

from deepscm_pl.morphology import set_intensity, set_thickness

__all__ = ["ThicknessIntensityWorld"]


@dataclass(frozen=True)
class ThicknessIntensityWorld:
    r"""Digits that are brighter the thicker they are.

    The world of Pawlowski et al. (2020, arXiv:2006.06485, section 4.1):

    .. math::
        t &= 0.5 + g, & g &\sim \Gamma(10, 5) \\
        i &= 64 + 191 \, \sigma(2 (t - 2.5) + 0.5 \, \epsilon), & \epsilon &\sim N(0, 1) \\
        x &= \text{a digit drawn with thickness } t \text{ and intensity } i.

    With ``slope=-2, centre=2`` intensity falls with thickness.

    Attributes:
        slope: Of the logit of intensity over thickness, per pixel; 2 above.
        centre: Thickness in pixels at which intensity is half-way; 2.5 above.
        spread: Standard deviation of the logit of intensity; 0.5 above.

    Raises:
        ValueError: If ``spread`` is not positive.

    Example:
        >>> world = ThicknessIntensityWorld()
        >>> sample = world.sample(3, np.random.default_rng(0))
        >>> {name: values.shape for name, values in sample.items()}
        {'thickness': (3,), 'intensity': (3,)}
    """

    slope: float = 2.0
    centre: float = 2.5
    spread: float = 0.5

    _SHAPE = 10.0
    _RATE = 5.0
    _THINNEST = 0.5
    _DARKEST = 64.0
    _RANGE = 191.0

    def __post_init__(self) -> None:
        """Checks the parameters."""
        if not self.spread > 0:
            raise ValueError(f"spread must be positive, got {self.spread}.")

    def sample(self, size: int, generator: np.random.Generator) -> dict[str, NDArray[np.float64]]:
        """Draws attributes.

        Args:
            size: N, the number of digits.
            generator: Where randomness comes from.

        Returns:
            ``thickness`` in pixels and ``intensity`` in grey levels, ``(N,)`` each.
        """
        thickness = self._THINNEST + generator.gamma(self._SHAPE, 1 / self._RATE, size)
        noise = generator.standard_normal(size)
        share = expit(self._location(thickness) + self.spread * noise)
        return {"thickness": thickness, "intensity": self._DARKEST + self._RANGE * share}

    def render(
        self, image: ArrayLike, thickness: ArrayLike, intensity: ArrayLike
    ) -> NDArray[np.uint8]:
        """Draws digits with given attributes: the true mechanism of the image.

        Args:
            image: Original digits, grey levels 0 to 255, ``(H, W)`` or ``(N, H, W)``.
            thickness: In pixels, a number or ``(N,)``.
            intensity: In grey levels, a number or ``(N,)``.

        Returns:
            Of the shape of ``image``, grey levels 0 to 255.

        Raises:
            ValueError: If an image or attribute is out of range.
        """
        return set_intensity(set_thickness(image, thickness), intensity)

    def log_prob_thickness(self, thickness: ArrayLike) -> NDArray[np.float64]:
        """The log-density of thickness.

        Args:
            thickness: In pixels, any shape.

        Returns:
            In nats, of that shape; minus infinity outside of the support.
        """
        excess = np.asarray(thickness, dtype=np.float64) - self._THINNEST
        with np.errstate(divide="ignore", invalid="ignore"):
            log_prob = (
                self._SHAPE * np.log(self._RATE)
                + (self._SHAPE - 1) * np.log(excess)
                - self._RATE * excess
                - gammaln(self._SHAPE)
            )
        return np.where(excess > 0, log_prob, -np.inf)

    def log_prob_intensity(self, intensity: ArrayLike, thickness: ArrayLike) -> NDArray[np.float64]:
        """The log-density of intensity given thickness.

        Args:
            intensity: In grey levels, any shape.
            thickness: In pixels, broadcast against it.

        Returns:
            In nats, of the joint shape; minus infinity outside of the support.
        """
        share = (np.asarray(intensity, dtype=np.float64) - self._DARKEST) / self._RANGE
        inside = (share > 0) & (share < 1)
        share = np.where(inside, share, 0.5)
        noise = (logit(share) - self._location(thickness)) / self.spread
        log_prob = -0.5 * (noise**2 + np.log(2 * np.pi)) - np.log(self.spread)
        log_prob -= np.log(self._RANGE * share * (1 - share))
        return np.where(inside, log_prob, -np.inf)

    def _location(self, thickness: ArrayLike) -> NDArray[np.float64]:
        """The mean of the logit of intensity."""
        return self.slope * (np.asarray(thickness, dtype=np.float64) - self.centre)
