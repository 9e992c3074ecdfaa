"""Networks: plain PyTorch modules that know nothing of causes."""

from deepscm_pl.nn.classifier import ResidualClassifier
from deepscm_pl.nn.conditioner import ConvolutionalConditioner
from deepscm_pl.nn.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.nn.modulated import ResidualBlock, ResidualDecoder, ResidualEncoder
from deepscm_pl.nn.overlay import Overlay
from deepscm_pl.nn.parameters import ParameterNetwork
from deepscm_pl.nn.precision import call_in_precision
from deepscm_pl.nn.pyramid import PyramidDecoder, PyramidEncoder
from deepscm_pl.nn.template import TemplateDecoder

__all__ = [
    "ConvolutionalConditioner",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
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
