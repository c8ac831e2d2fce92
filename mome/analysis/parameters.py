"""Trained, active and total parameters of a model by part."""

from torch import nn

from mome.common.frozen import Frozen
from mome.common.markdown import markdown_table
from mome.models.avsr import AVSRModel


def count(module: nn.Module | None, trained_only: bool = False) -> int:
    """Parameters of a module, with those of the frozen modules inside unless asked not to."""
    if module is None:
        return 0
    total = sum(p.numel() for p in module.parameters())
    if not trained_only:
        total += sum(m.num_parameters() for m in module.modules() if isinstance(m, Frozen))
    return total


def table(model: AVSRModel) -> list[tuple[str, int, int, int]]:
    """Rows (part, trained, active, total); the last row is the sum."""
    adapter = model.decoder.adapter
    adapter_trained = count(adapter, trained_only=True)
    adapter_active = adapter.num_active_parameters() if adapter is not None else 0
    lm_total = model.decoder.lm.num_parameters()
    if adapter is not None and any(p.requires_grad for p in model.decoder.lm.inner.parameters()):
        lm_total -= adapter_trained  # peft keeps LoRA's tensors inside the LM
    rows: list[tuple[str, int, int, int]] = [
        ("LLM", 0, 0, lm_total),
        ("adapter", adapter_trained, adapter_active, adapter_trained),
    ]
    for name in ("audio_encoder", "video_encoder", "projectors", "readout"):
        part = getattr(model, name)
        trained = active = count(part, trained_only=True)
        if name == "projectors":  # a rate pair uses one for each modality
            sizes = {
                kind: [count(p) for n, p in part.items() if n.startswith(kind)]
                for kind in model.rates
            }
            active = sum(max(of_rates) for of_rates in sizes.values())
        rows.append((name.replace("_", " "), trained, active, count(part)))
    markers = model.decoder.markers.numel()
    rows.append(("markers", markers, markers, markers))
    _, trained_sizes, active_sizes, sizes_in_all = zip(*rows, strict=True)
    sums = (sum(trained_sizes), sum(active_sizes), sum(sizes_in_all))
    return [*rows, ("sum", *sums)]


def in_markdown(model: AVSRModel) -> list[str]:
    """The lines of :func:`table` in Markdown."""
    rows = [[name, *(f"{size:,}" for size in sizes)] for name, *sizes in table(model)]
    return markdown_table(["part", "trained", "active", "total"], rows)
