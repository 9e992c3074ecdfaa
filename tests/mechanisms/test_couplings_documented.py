"""Each exported mechanism documents the coupling of its counterfactuals."""

from __future__ import annotations

import inspect
import re

import pytest

from deepscm_pl import likelihoods, mechanisms


def exported(module, base):
    found = (getattr(module, name) for name in module.__all__)
    return [each for each in found if inspect.isclass(each) and issubclass(each, base)]


@pytest.mark.parametrize(
    "kind", exported(mechanisms, mechanisms.Mechanism), ids=lambda kind: kind.__name__
)
def test_the_docstring_of_a_mechanism_has_a_sentence_about_its_coupling(kind):
    assert kind.__doc__
    sentences = re.split(r"[.:]\s", " ".join(kind.__doc__.partition("Args:")[0].split()))
    assert any("coupling" in sentence for sentence in sentences), kind


@pytest.mark.parametrize(
    "kind", exported(likelihoods, likelihoods.Likelihood), ids=lambda kind: kind.__name__
)
def test_a_likelihood_or_one_of_its_bases_documents_its_coupling(kind):
    texts = [each.__doc__ or "" for each in kind.__mro__ if each.__module__.startswith("deepscm")]
    assert any("coupling" in text for text in texts), kind
