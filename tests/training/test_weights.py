"""Weights that do not fit are refused with one line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepscm_pl.runs.reading import load_weights


def model():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    network.register_buffer("single", torch.tensor(1.0))
    network.register_buffer("nothing", None)
    return network


def test_weights_that_fit_are_loaded():
    source, target = model(), model()
    load_weights(target, {name: value + 1 for name, value in source.state_dict().items()})
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value + 1)


def test_precision_may_differ():
    weights = {name: value.clone() for name, value in model().state_dict().items()}
    weights["0.weight"] = torch.ones(3, 2, dtype=torch.bfloat16)
    target = model()
    load_weights(target, weights)
    assert torch.equal(target.state_dict()["0.weight"], torch.ones(3, 2))


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0.bias": ...}, r"(missing: 0.bias)"),
        ({"0.bias": ..., "2.bias": ...}, r"(missing: 0.bias and 1 more)"),
        ({"other": torch.ones(1)}, r"(unexpected: other)"),
        ({7: torch.ones(1)}, r"(unexpected: 7)"),
        ({"a\nb": torch.ones(1)}, r"(unexpected: a)"),
        ({"0.bias": torch.ones(4)}, r"(0.bias is of shape (4,) instead of (3,))"),
        ({"single": torch.ones(4)}, r"(single is of shape (4,) instead of ())"),
        ({"single": torch.ones(0)}, r"(single is of shape (0,) instead of ())"),
        ({"0.bias": [1.0] * 3}, r"(0.bias is of type list instead of a tensor)"),
        ({"0.bias": None}, r"(0.bias is of type NoneType instead of a tensor)"),
        ({"0.bias": torch.ones(3).long()}, "0.bias is of torch.int64 (torch.strided) instead of"),
        ({"0.bias": torch.ones(3).cfloat()}, "0.bias is of torch.complex64 (torch.strided) inst"),
        ({"0.bias": torch.ones(3).to_sparse()}, "0.bias is of torch.float32 (torch.sparse_coo)"),
        ({"1.num_batches_tracked": torch.tensor(0.5)}, "is of torch.float32 (torch.strided) inst"),
        ({"0.bias": torch.ones(3, device="meta")}, "meta"),
        (
            {"0.bias": ..., "2.bias": torch.ones(2), "other": torch.ones(1)},
            "(missing: 0.bias; unexpected: other; 2.bias is of shape (2,) instead of (1,))",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_one_line(changes, message):
    weights = {**model().state_dict(), **changes}
    weights = {name: value for name, value in weights.items() if value is not ...}
    with pytest.raises(ValueError, match="the weights do not fit the model") as error:
        load_weights(model(), weights)
    assert message in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("weights", [None, [1], "text", torch.ones(2)])
def test_weights_have_names(weights):
    with pytest.raises(ValueError, match="expected tensors by name as weights, but got"):
        load_weights(model(), weights)


class Growing(nn.Module):
    """Adapts the size of its buffer to the loaded weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(0, 2))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        self.memory = torch.zeros_like(state_dict[f"{prefix}memory"])
        super()._load_from_state_dict(state_dict, prefix, *rest)


def test_a_module_that_fits_itself_to_weights_may_do_so():
    module = Growing()
    load_weights(module, {"memory": torch.ones(5, 2)})
    assert torch.equal(module.memory, torch.ones(5, 2))
