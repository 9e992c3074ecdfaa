"""Models that are found by a name: inside the package, in its repository, and on the Hub.

================  ==================================================================
module            contents
================  ==================================================================
``names``         the names of models, and the files that they stand for
``hub``           model repositories of the Hugging Face Hub: download and upload
``models/``       the models inside the package
================  ==================================================================
"""

from typing import TYPE_CHECKING

from deepscm_pl.lazy import first_use

if TYPE_CHECKING:
    from deepscm_pl.shipped.hub import ModelFolder as ModelFolder, download as download
    from deepscm_pl.shipped.names import find_model as find_model, model_names as model_names

__getattr__ = first_use(__name__)
