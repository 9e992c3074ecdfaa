"""Networks: PyTorch modules without causal notions."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.nn.classifier import ResidualClassifier
    from deepscm_pl.nn.convolutional import (
        ConvolutionalConditioner,
        ConvolutionalDecoder,
        ConvolutionalEncoder,
        PyramidDecoder,
        PyramidEncoder,
    )
    from deepscm_pl.nn.layers import Features, ParameterNetwork, call_in_precision
    from deepscm_pl.nn.modulated import ResidualBlock, ResidualDecoder, ResidualEncoder
    from deepscm_pl.nn.template import Overlay, TemplateDecoder

__all__ = [
    "ConvolutionalConditioner",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "Features",
    "Overlay",
    "ParameterNetwork",
    "PyramidDecoder",
    "PyramidEncoder",
    "ResidualBlock",
    "ResidualClassifier",
    "ResidualDecoder",
    "ResidualEncoder",
    "TemplateDecoder",
    "call_in_precision",
]

__getattr__ = first_use(__name__)
