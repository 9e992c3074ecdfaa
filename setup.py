"""The package, and the experiments as a part of it (setup.cfg cannot name both kinds of folder)."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["deepscm_pl", "deepscm_pl.*"]), "deepscm_pl.experiments"],
    package_dir={"deepscm_pl.experiments": "experiments"},
    package_data={
        "deepscm_pl": ["py.typed"],
        "deepscm_pl.cli": ["training_options.txt"],
        "deepscm_pl.experiments": ["*/*.yaml"],
        "deepscm_pl.shipped": ["models/*/*"],
        "deepscm_pl.explorer": ["page.html", "page.css", "page.js", "parts.css", "live.css"],
        "deepscm_pl.reports": ["page.css"],
    },
)
