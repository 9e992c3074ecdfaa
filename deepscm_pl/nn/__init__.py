"""Networks: plain PyTorch modules that know nothing of causes."""

from deepscm_pl.nn.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from deepscm_pl.nn.parameters import ParameterNetwork
from deepscm_pl.nn.residual import ResidualClassifier

__all__ = ["ConvolutionalDecoder", "ConvolutionalEncoder", "ParameterNetwork", "ResidualClassifier"]
