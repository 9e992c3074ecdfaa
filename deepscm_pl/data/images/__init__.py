"""Image files, read by one reader for training and for questions, and written for viewers."""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.data.images.nifti import read_header as read_header
    from deepscm_pl.data.images.prepared import read_prepared as read_prepared
    from deepscm_pl.data.images.reading import (
        SUFFIXES as SUFFIXES,
        image_stamp as image_stamp,
        is_answer as is_answer,
        is_image as is_image,
        is_in_colour as is_in_colour,
        read_image as read_image,
        read_scan as read_scan,
    )
    from deepscm_pl.data.images.scan import (
        HEADER_BYTES as HEADER_BYTES,
        NIFTI_SUFFIXES as NIFTI_SUFFIXES,
        Background as Background,
        Scan as Scan,
    )
    from deepscm_pl.data.images.sizes import check_voxel_sizes as check_voxel_sizes
    from deepscm_pl.data.images.writing import (
        ImageFormat as ImageFormat,
        colours as colours,
        default_placement as default_placement,
        write_nifti as write_nifti,
        write_picture as write_picture,
    )

__getattr__ = first_use(__name__)
