"""Pruned experts against the whole module whose other experts can never be chosen."""

import numpy as np
import pytest
import torch

from mome.adapters.experts import MoME
from mome.adapters.pruning import most_asked, without_experts


def test_the_most_asked_experts_of_each_layer_stay():
    shares = np.array([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.5, 0.0]])
    assert most_asked(shares, 2).tolist() == [[1, 3], [0, 2]]
    assert most_asked(shares, 3).tolist() == [[1, 2, 3], [0, 1, 2]]


@pytest.mark.parametrize("gate", ["softmax_topk", "renormalized_topk"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_shared", [0, 2])
def test_fewer_experts_are_those_that_the_router_cannot_leave(gate, bias, num_shared):
    torch.manual_seed(0)
    conf = {"num_shared": num_shared, "bottleneck": 3, "top_k": 2, "gate": gate, "bias": bias}
    whole = MoME(16, num_routed=6, **conf)
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter)
    kept = np.array([1, 2, 5])
    fewer = MoME(16, num_routed=3, **conf)
    fewer.load_state_dict(without_experts(whole.state_dict(), whole, kept))
    hidden = torch.randn(40, 16)
    lost = [expert for expert in range(6) if expert not in kept]
    with torch.no_grad():
        whole.router.bias[lost] = -1e9
    expected, gates, probs = whole(hidden)
    output, fewer_gates, fewer_probs = fewer(hidden)
    assert torch.allclose(output, expected, atol=1e-5)
    assert torch.allclose(fewer_gates, gates[:, kept], atol=1e-6)
    assert torch.allclose(fewer_probs, probs[:, kept], atol=1e-6)
