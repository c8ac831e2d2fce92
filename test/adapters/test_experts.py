"""The MoME module against a plain loop, and its balance loss against the formula."""

import pytest
import torch
import torch.nn.functional as F

from mome.adapters.experts import MoME
from mome.adapters.routers import balance_loss, sequence_balance_loss


def loop_over_experts(module: MoME, hidden: torch.Tensor) -> torch.Tensor:
    """The formula of the paper, token by token and expert by expert."""
    output = torch.zeros_like(hidden)
    r = module.bottleneck
    for index, token in enumerate(hidden):
        gates = torch.ones(module.num_shared)
        if module.num_routed:
            logits = module.router(token[None])[0]
            probs = logits.softmax(0)
            best = sorted(range(module.num_routed), key=lambda n: -float(logits[n]))
            routed = torch.zeros(module.num_routed)
            for n in best[: module.top_k]:
                if module.gate == "softmax_topk":
                    routed[n] = probs[n]
                else:
                    routed[n] = logits[n].exp() / sum(logits[m].exp() for m in best[: module.top_k])
            gates = torch.cat([routed, gates])
        for n, gate in enumerate(gates):
            if gate > 0:
                rows = slice(n * r, (n + 1) * r)
                inner, expert = module.down.weight[rows] @ token, torch.zeros_like(token)
                if module.bias:
                    inner = inner + module.down.bias[rows]
                    expert = module.up.weight[:, module.width + n]
                output[index] += gate * (expert + module.up.weight[:, rows] @ F.gelu(inner))
    return output


def random_(module: MoME, std: float = 1.0) -> MoME:
    """Every parameter drawn anew, biases too."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gate", ["softmax_topk", "renormalized_topk"])
@pytest.mark.parametrize(
    ("routed", "shared", "bottleneck", "top_k"),
    [(23, 1, 12, 4), (4, 0, 24, 2), (23, 2, 1, 4), (0, 1, 48, 4), (5, 3, 2, 5)],
)
def test_equals_a_plain_loop(routed, shared, bottleneck, top_k, gate, bias):
    torch.manual_seed(routed + bottleneck)
    conf = {"router_conf": {"bias": bias}, "bias": bias}
    module = random_(MoME(16, routed, shared, bottleneck, top_k, gate, **conf), 0.3)
    hidden = torch.randn(9, 16)
    output, gates, _ = module(hidden)
    assert torch.allclose(output, loop_over_experts(module, hidden), atol=1e-5)
    assert ((gates > 0).sum(-1) == (top_k if routed else 0)).all()


def test_a_fresh_module_adds_nothing():
    assert MoME(8, 4, 1, 2, 2)(torch.randn(3, 8))[0].abs().max() == 0


def test_the_paper_s_first_values_are_small_normal_weights_and_biases_of_zero():
    torch.manual_seed(0)
    module = MoME(256, 23, 1, 8, 4, init="normal")
    weights = {
        "down": module.down.weight,
        "up": module.up.weight[:, : module.width],
        "router": module.router.weight,
    }
    for weight in weights.values():
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert abs(weight.mean().item()) < 1e-3
    for bias in (module.down.bias, module.up.weight[:, module.width :], module.router.bias):
        assert bias.abs().max() == 0
    assert module(torch.randn(3, 256))[0].abs().max() > 0


@pytest.mark.parametrize(
    ("dim", "reduction", "bottleneck"),
    [(2048, 256, 8), (3072, 256, 12), (4096, 512, 8), (576, 48, 12), (576, 1000, 1)],
)
def test_the_bottleneck_can_be_given_as_a_divisor_of_the_width(dim, reduction, bottleneck):
    assert MoME(dim, 2, 1, reduction=reduction, top_k=1).bottleneck == bottleneck


def test_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    module = random_(MoME(6, 4, 1, 2, 2)).double()
    hidden = torch.randn(3, 6, dtype=torch.double, requires_grad=True)

    def experts(h, down, down_bias, up, router, router_bias):
        inner = F.gelu(h @ down.T + down_bias)
        probs = (h @ router.T + router_bias).softmax(-1)
        top = probs.topk(2, -1)
        gates = torch.zeros_like(probs).scatter(-1, top.indices, top.values)
        gates = torch.cat([gates, torch.ones(3, 1, dtype=h.dtype)], -1)
        return (inner * gates.repeat_interleave(2, -1)) @ up[:, :10].T + gates @ up[:, 10:].T

    weights = (*module.down.parameters(), module.up.weight, *module.router.parameters())
    expected = torch.autograd.grad(experts(hidden, *weights).sum(), (hidden, *weights))
    actual = torch.autograd.grad(module(hidden)[0].sum(), (hidden, *weights))
    for a, b in zip(actual, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-4)  # routing runs in float32


@pytest.mark.parametrize("shared", [0, 2])
def test_grouped_products_equal_the_plain_loop_and_have_the_gradients_of_dense_ones(shared):
    torch.manual_seed(0)
    module = random_(MoME(16, 6, shared, 128, 2), 0.1)
    with torch.no_grad():
        module.router.weight[5] = -module.router.weight[:5].sum(0)
        module.router.weight[5] *= 100  # an expert that many tokens, or none, choose
    hidden, base = torch.randn(2, 600, 16)
    assert module._group(hidden)
    assert not module._group(hidden[:70])
    output = module(hidden, base)[0]
    assert torch.allclose(output, base + loop_over_experts(module, hidden), atol=1e-4)
    weights = tuple(module.parameters())
    target = torch.randn_like(output)
    grouped = torch.autograd.grad((output * target).sum(), weights)
    module._group = lambda _: False
    dense = torch.autograd.grad((module(hidden, base)[0] * target).sum(), weights)
    for a, b in zip(grouped, dense, strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_base_is_added_in_any_shape():
    torch.manual_seed(0)
    module = MoME(8, 4, 1, 2, 2)
    random_(module)
    hidden, base = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    output, gates, probs = module(hidden, base)
    assert torch.allclose(output, base + module(hidden)[0], atol=1e-6)
    assert gates.shape == probs.shape == (2, 3, 4)


def test_balance_loss_is_one_for_uniform_routing():
    probs = torch.full((6, 4), 0.25)
    gates = torch.zeros(6, 4).scatter(-1, torch.tensor([[0, 1], [2, 3], [0, 1]] * 2), 0.25)
    assert balance_loss(gates, probs) == pytest.approx(1.0)


def test_balance_loss_equals_its_formula_and_ignores_padding():
    torch.manual_seed(1)
    probs = torch.randn(2, 7, 5).softmax(-1)
    top = probs.topk(2, -1)
    gates = torch.zeros_like(probs).scatter(-1, top.indices, top.values)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    counts, sums, tokens = [0] * 5, [0.0] * 5, 0
    for b in range(2):
        for t in range(7):
            if mask[b, t]:
                tokens += 1
                for n in range(5):
                    counts[n] += int(gates[b, t, n] > 0)
                    sums[n] += float(probs[b, t, n])
    expected = 5 * sum(c / (2 * tokens) * s / tokens for c, s in zip(counts, sums, strict=True))
    assert float(balance_loss(gates, probs, mask)) == pytest.approx(expected, abs=1e-5)
    changed = probs.clone()
    changed[1, 4:] = torch.tensor([1.0, 0, 0, 0, 0])
    assert balance_loss(gates, changed, mask) == balance_loss(gates, probs, mask)


def test_the_paper_s_balance_loss_equals_its_formula_sequence_by_sequence():
    torch.manual_seed(1)
    layers, experts, k = 3, 5, 2
    routing = []
    for _ in range(layers):
        probs = torch.randn(2, 7, experts).softmax(-1)
        top = probs.topk(k, -1)
        routing.append((torch.zeros_like(probs).scatter(-1, top.indices, top.values), probs))
    mask = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    # Two prompts with a common beginning of three columns.
    sequences = [[0, 1, 2, 3, 4], [0, 1, 2, 5, 6]]
    losses = []
    for columns in sequences:
        tokens, counts, sums = 0, [0] * experts, [0.0] * experts
        for gates, probs in routing:
            for b in range(2):
                for t in columns:
                    if mask[b, t]:
                        tokens += 1
                        for n in range(experts):
                            counts[n] += int(gates[b, t, n] > 0)
                            sums[n] += float(probs[b, t, n])
        shares = zip(counts, sums, strict=True)
        losses.append(experts * sum(c / tokens * s / tokens for c, s in shares))
    member = torch.zeros(2, 7, dtype=torch.bool)
    for row, columns in enumerate(sequences):
        member[row, columns] = True
    loss = sequence_balance_loss(routing, mask, member)
    assert float(loss) == pytest.approx(sum(losses) / 2, abs=1e-5)
    one = sequence_balance_loss(routing, mask)
    all_columns = sequence_balance_loss(routing, mask, torch.ones(1, 7, dtype=torch.bool))
    assert float(one) == float(all_columns)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("read", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("based", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(6, 1, 8), (6, 0, 8), (0, 1, 8), (6, 1, 128)])
def test_every_form_runs_under_autocast_and_routes_in_float32(dtype, read, based, sizes):
    torch.manual_seed(0)
    module = random_(MoME(16, *sizes, 2), 0.3)
    hidden = torch.randn(600, 16).to(read).requires_grad_()
    base = None if based is None else torch.randn(600, 16).to(based)
    assert module._group(hidden) == (sizes[-1] == 128)
    exact, _, routed = module(hidden.float(), None if base is None else base.float())
    with torch.autocast("cpu", dtype):
        output, gates, probs = module(hidden, base)
    assert (output.float() - exact).norm() < 0.03 * exact.norm()
    if sizes[0]:
        assert gates.dtype == probs.dtype == torch.float32
        assert torch.equal(probs, routed)
    output.float().square().sum().backward()
    gradients = [hidden.grad, *(p.grad for p in module.parameters())]
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_balance_losses_are_counted_exactly_under_autocast(dtype):
    """A step on a GPU computes in half precision, in which sums over tokens are cut or overflow."""
    torch.manual_seed(0)
    probs = torch.randn(4, 3001, 7).softmax(-1)
    top = probs.topk(2, -1)
    gates = torch.zeros_like(probs).scatter(-1, top.indices, top.values)
    mask = torch.ones(4, 3001, dtype=torch.bool)
    members = torch.rand(3, 3001) < 0.7
    losses = [
        lambda: sequence_balance_loss([(gates, probs)] * 9, mask, members),
        lambda: balance_loss(gates, probs, mask),
    ]
    for loss in losses:
        exact = loss()
        with torch.autocast("cpu", dtype):
            assert loss() == exact


def test_the_paper_s_balance_loss_is_k_for_uniform_routing_in_one_layer():
    probs = torch.full((2, 3, 4), 0.25)
    gates = torch.zeros(6, 4).scatter(-1, torch.tensor([[0, 1], [2, 3], [0, 1]] * 2), 0.25)
    gates[2:4] = gates[:2]
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert sequence_balance_loss([(gates.view(2, 3, 4), probs)], mask) == pytest.approx(2.0)


def test_balance_loss_of_a_collapsed_router_is_large():
    probs = torch.tensor([[1.0, 0, 0, 0]]).repeat(5, 1)
    assert balance_loss(probs, probs) == pytest.approx(4.0)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_routed": 0, "num_shared": 0},
        {"top_k": 9, "num_routed": 4},
        {"bottleneck": 0},
        {"gate": "hard"},
        {"bottleneck": 12, "reduction": 256},
        {"reduction": 0},
        {"init": "zero"},
    ],
)
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=r"MoME|top_k|gate|reduction|init"):
        MoME(8, **sizes)


MEMBERS = torch.arange(50) < torch.tensor([[30], [50]])  # of two prompts, one within the other


def balances(gates: torch.Tensor, probs: torch.Tensor) -> list[torch.Tensor]:
    """Both losses of utterances (B, S, Nr); the second of two layers and two prompts."""
    layers = [(gates, probs), (gates.roll(1, -1), probs.roll(1, -1))]
    mask = torch.ones(gates.shape[:2], dtype=torch.bool)
    return [balance_loss(gates, probs), sequence_balance_loss(layers, mask, MEMBERS)]


def balance_of_a_half(rank: int, folder: str, gates: torch.Tensor, probs: torch.Tensor) -> None:
    """One of two processes, with its half of the batch."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2
    )
    torch.save(balances(gates[rank, None], probs[rank, None]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_balance_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    # The first half of the batch prefers the first experts, the second half the last.
    logits = torch.randn(2, 50, 8) + torch.linspace(2, -2, 8) * torch.tensor([1, -1])[:, None, None]
    probs = logits.softmax(-1)
    values, index = probs.topk(2)
    gates = torch.zeros_like(probs).scatter(-1, index, values)
    torch.multiprocessing.spawn(balance_of_a_half, (str(tmp_path), gates, probs), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    alone = [balances(gates[half, None], probs[half, None]) for half in (0, 1)]
    for place, whole in enumerate(balances(gates, probs)):
        together = sum(each[place] for each in halves) / 2
        torch.testing.assert_close(together, whole)
        assert sum(each[place] for each in alone) / 2 > together + 0.1
