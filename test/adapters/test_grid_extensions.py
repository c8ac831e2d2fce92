"""What egs/grid tries beyond the paper, as extensions of the experts."""

import sys

import pytest
import torch
from test_contract import frozen_lm

import mome
from mome.adapters.base import ADAPTERS, find_layers
from mome.tasks.extensions import import_modules

IDS = torch.randint(0, 60, (8, 40), generator=torch.Generator().manual_seed(0))
SIZES = {"num_routed": 6, "num_shared": 1, "bottleneck": 2, "top_k": 2, "init": "normal"}


@pytest.fixture(autouse=True)
def recipe(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath / "egs" / "grid")
    monkeypatch.setattr(sys, "path", [*sys.path])
    import_modules(["local.loss_free", "local.decorrelation"])
    assert {"mome_loss_free", "mome_decorrelated"} <= set(ADAPTERS)


def test_a_bias_on_the_choice_evens_the_load_and_leaves_the_weights(tiny_lm):
    lm = frozen_lm(tiny_lm)
    torch.manual_seed(0)
    adapter = mome.attach(lm, "mome_loss_free", SIZES | {"step": 5e-4})
    for layer in adapter.experts:
        torch.nn.init.normal_(layer.router.weight, std=0.2)
    mask = torch.ones(IDS.shape, dtype=torch.bool)

    def loads():
        with adapter.recording(mask):
            lm(input_ids=IDS)
            return adapter.take_routing()

    adapter.eval()
    before = loads()
    adapter.train()
    for _ in range(300):
        loads()
    adapter.eval()
    after = loads()
    for (old, _), (gates, probs) in zip(before, after, strict=True):
        first, last = ((each > 0).float().mean((0, 1)) for each in (old, gates))
        assert last.std() < first.std() / 2
        on = gates > 0
        torch.testing.assert_close(gates[on], probs[on])
        assert (on.sum(-1) == SIZES["top_k"]).all()
    # Neither validation nor what is not trained moves it.
    kept = [layer.choice_bias.clone() for layer in adapter.experts]
    loads()
    adapter.train()
    with torch.no_grad():
        loads()
    for layer, bias in zip(adapter.experts, kept, strict=True):
        torch.testing.assert_close(layer.choice_bias, bias)
    assert any(name.endswith("choice_bias") for name in adapter.state_dict())


def test_the_similarity_to_the_first_token_is_a_mean_of_cosines(tiny_lm):
    lm = frozen_lm(tiny_lm)
    read = []
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: read.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for layer in find_layers(lm)
    ]
    adapter = mome.attach(lm, "mome_decorrelated", SIZES | {"decorrelation": 3.0})
    mask = torch.ones(IDS.shape, dtype=torch.bool)
    mask[0, :2] = False  # padding on the left, as of shorter prompts
    mask[1, -3:] = False

    def loss(weight):
        adapter.decorrelation = weight
        with adapter.recording(mask):
            lm(input_ids=IDS)
            return adapter.balance_loss()

    balance = loss(0.0)
    read.clear()
    both = loss(3.0)
    layers = []
    for hidden in read:
        cosines = []
        for row, kept in zip(hidden, mask, strict=True):
            first, *others = row[kept]
            cosines += [(first @ each / first.norm() / each.norm()) ** 2 for each in others]
        layers.append(sum(cosines) / len(cosines))
    torch.testing.assert_close(both - balance, 3 * sum(layers) / len(layers))
    both.backward()
    # Experts of all layers but the last are before something whose similarity counts.
    assert all(layer.up.weight.grad.abs().sum() > 0 for layer in adapter.experts[:-1])
    for hook in hooks:
        hook.remove()
