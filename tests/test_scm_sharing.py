"""Laws of sub-models, of interventions that share their noise, and of the floating-point type."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from deepscm_pl import StructuralCausalModel
from deepscm_pl.mechanisms import AffineFlow, Constant, Context, Flow
from deepscm_pl.transforms import Positive
from deepscm_pl.variables import Domain


class Fixed(Flow):
    """x = Σ pa + u, without parameters or buffers of float32."""

    def transforms(self, context):
        shift = context.sum(dim=-1, keepdim=True) if context.numel() else context.new_zeros(1)
        return [torch.distributions.AffineTransform(shift, 1.0)]


@pytest.fixture
def chain() -> StructuralCausalModel:
    """a -> b -> c, d, of learned mechanisms."""
    torch.manual_seed(0)
    scm = StructuralCausalModel(
        "a -> b; b -> c; d", dict.fromkeys("abcd", partial(AffineFlow, hidden=()))
    )
    with torch.no_grad():
        for parameter in scm.parameters():
            parameter.normal_()
    return scm.eval()


def test_a_sub_model_holds_the_ancestors_and_shares_the_mechanisms(chain):
    part = chain.restrict(["b"])
    assert part.graph.parents == {"a": (), "b": ("a",)}
    assert part["b"] is chain["b"]
    assert part.training is chain.training is False
    chain.fitted.fill_(True)
    assert bool(chain.restrict(["c"]).fitted)
    assert not bool(part.fitted)  # a copy
    with pytest.raises(ValueError, match="unknown variable 'e'"):
        chain.restrict(["e"])


def test_a_sub_model_answers_as_the_whole(chain):
    values = chain.sample(5)
    part = chain.restrict(["b"])
    whole = chain.counterfactual(values, {"a": 2.0})
    found = part.counterfactual(values, {"a": 2.0})
    assert set(found) == {"a", "b"}
    assert all(torch.equal(found[name], whole[name]) for name in found)


def test_scalar_variables(chain):
    assert chain.scalar_variables == ("a", "b", "c", "d")
    image = Constant(torch.zeros(1, 4, 4), Domain(shape=(1, 4, 4)))
    scm = StructuralCausalModel("a -> image", {"a": AffineFlow, "image": image})
    assert scm.scalar_variables == ("a",)


def test_interventions_in_a_sequence_share_their_noise(chain):
    torch.manual_seed(1)
    found = chain.intervene([{}, {"b": 1.0}, {"c": lambda c: c + 1}], 7)
    assert all(value.shape == (3, 7, 1) for value in found.values())
    torch.manual_seed(1)
    sample = chain.sample(7)
    assert all(torch.equal(found[name][0], sample[name]) for name in "abcd")
    assert torch.equal(found["a"][1], sample["a"])
    assert (found["b"][1] == 1).all()
    # The same noise of c explains c where b was set and where it was not.
    noise = [chain["c"].abduct(found["c"][k], {"b": found["b"][k]})["u"] for k in (0, 1)]
    torch.testing.assert_close(*noise)
    assert not torch.equal(found["c"][1], sample["c"])
    torch.testing.assert_close(found["c"][2], sample["c"] + 1)
    assert torch.equal(found["d"][0], found["d"][2])


def test_a_sequence_is_the_counterfactual_of_the_sample(chain):
    dos = [{"a": 1.0}, {"a": lambda a: a - 1, "c": 0.5}]
    torch.manual_seed(2)
    sample = chain.sample((2, 3))
    torch.manual_seed(2)
    found = chain.intervene(dos, (2, 3))
    expected = chain.counterfactual(sample, dos)
    for name in "abcd":
        assert found[name].shape == (2, 2, 3, 1)
        torch.testing.assert_close(found[name], expected[name][0])


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ([], "empty sequence"),
        ([{"a": torch.zeros(2, 1, 1)}], "without leading dimensions"),
        ([{"a": 1.0}, {"e": 1.0}], "unknown variable 'e'"),
        ([{"a": 1.0}, 3], "expected a mapping of variables"),
    ],
)
def test_bad_sequences(chain, do, message):
    with pytest.raises(ValueError, match=message):
        chain.intervene(do, 4)
    with pytest.raises(ValueError, match="size: expected at least 1"):
        chain.intervene([{}], 0)


def test_the_type_of_a_model_without_parameters_is_that_of_its_mechanisms():
    fixed = dict.fromkeys("ab", Fixed)
    scm = StructuralCausalModel("a -> b", fixed).double()
    assert not list(scm.parameters())
    assert scm.dtype == torch.float64
    answer = scm.counterfactual(
        {"a": torch.tensor([[0.1]]).double(), "b": torch.tensor([[1.0]]).double()}, {"a": 0.3}
    )
    assert float(answer["a"]) == 0.3  # not the nearest number of single precision
    assert StructuralCausalModel("a -> b", fixed).dtype == torch.float32
    assert scm.act({"a": lambda a: a}).dtype == torch.float64


def test_parameters_decide_on_the_type():
    wide = Constant(torch.zeros(1, dtype=torch.float64), Domain())
    scm = StructuralCausalModel("a; b", {"a": wide, "b": AffineFlow})
    assert scm.dtype == torch.float32
    positive = AffineFlow(Context(), constraint=Positive).double()
    assert positive.dtype == torch.float64
