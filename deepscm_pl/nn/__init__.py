"""Networks: PyTorch modules without causal notions."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.nn.classifier import ResidualClassifier as ResidualClassifier
    from deepscm_pl.nn.convolutional import (
        ConvolutionalConditioner as ConvolutionalConditioner,
        ConvolutionalDecoder as ConvolutionalDecoder,
        ConvolutionalEncoder as ConvolutionalEncoder,
        PyramidDecoder as PyramidDecoder,
        PyramidEncoder as PyramidEncoder,
    )
    from deepscm_pl.nn.ladder import Ladder as Ladder, LadderShapes as LadderShapes
    from deepscm_pl.nn.layers import (
        Features as Features,
        ParameterNetwork as ParameterNetwork,
        call_in_precision as call_in_precision,
    )
    from deepscm_pl.nn.modulated import (
        Embedding as Embedding,
        ResidualBlock as ResidualBlock,
        ResidualDecoder as ResidualDecoder,
        ResidualEncoder as ResidualEncoder,
    )
    from deepscm_pl.nn.template import Overlay as Overlay, TemplateDecoder as TemplateDecoder
    from deepscm_pl.nn.unet import UNet as UNet

__getattr__ = first_use(__name__)
