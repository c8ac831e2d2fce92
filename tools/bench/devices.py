"""Whether a GPU gives what a CPU gives: a training step and transcripts of a trained model.

Both hold the frozen parts in float32 and multiply without TF32, so that what differs is the order
of additions. The loss and the gradients of one batch are compared, then greedy transcripts at every
rate pair. With --dtype bfloat16 the transcripts that rounding changes are counted.
"""

import argparse
from pathlib import Path

import torch
import yaml
from espnet2.train.collate_fn import CommonCollateFn
from sets import add_set_arguments, open_set
from timing import machine

from mome.llm.beam import beam_search
from mome.models.avsr import AVSRModel
from mome.models.rates import TaskPair
from mome.tasks.avsr import AVSRTask, load_model

Batch = dict[str, torch.Tensor]


def config_in(args: argparse.Namespace) -> Path:
    """The model's configuration with the frozen parts in ``--dtype``, in a file beside it."""
    conf = yaml.safe_load((args.exp / "config.yaml").read_text())
    for part, key in (("decoder", "lm_dtype"), ("audio_encoder", "dtype")):
        conf[f"{part}_conf"] = (conf.get(f"{part}_conf") or {}) | {key: args.dtype}
    conf["video_encoder_conf"]["dtype"] = "float32"
    path = args.exp / f"config_{args.dtype}.yaml"
    path.write_text(yaml.safe_dump(conf))
    return path


def batches(args: argparse.Namespace, training: argparse.Namespace) -> list[Batch]:
    """The first ``--utterances`` of the set, as the model takes them."""
    dataset, names = open_set(args, training)
    collate = CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)
    items = [dataset[name] for name in names]
    size = args.batch_size
    return [collate(items[start : start + size])[1] for start in range(0, len(items), size)]


def gradients(model: AVSRModel, batch: Batch) -> tuple[float, torch.Tensor]:
    """Loss of all rate pairs and its gradient, as one vector on the CPU."""
    model.zero_grad()
    loss = model(**batch)[0]
    loss.backward()
    found = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(found)


@torch.inference_mode()
def transcripts(model: AVSRModel, batch: Batch, task_pairs: list[TaskPair]) -> list[list[int]]:
    """Greedy transcripts, rate pair after rate pair."""
    streams = {name: value for name, value in batch.items() if not name.startswith("text")}
    nodes, leaves = model.prompts(model.encode(**streams), task_pairs)
    found = beam_search(
        model.decoder.lm.inner,
        nodes,
        leaves,
        beam=1,
        max_new_tokens=32,
        eos_id=model.decoder.eos_id,
        adapter=model.decoder.adapter,
    )
    return [best[0].tokens for of_pair in found for best in of_pair]


def main() -> None:
    """Print how far the devices agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exp", type=Path, default=Path("exp/mome"), help="a trained model")
    parser.add_argument("--weights", default="valid.acc.best.pth", help="its checkpoint")
    add_set_arguments(parser, utterances=32)
    parser.add_argument(
        "--dtype",
        default="float32",
        help="of the frozen parts, float32 or bfloat16; default: %(default)s",
    )
    parser.add_argument("--device", default="cuda", help="against the CPU")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config, results = config_in(args), {}
    for device in ("cpu", args.device):
        model, training = load_model(config, args.exp / args.weights, device)
        given = [{k: v.to(device) for k, v in b.items()} for b in batches(args, training)]
        task_pairs = model.task_pairs
        texts = [text for batch in given for text in transcripts(model, batch, task_pairs)]
        # A model in evaluation mode with gradients: nothing is drawn at random.
        model, _ = AVSRTask.build_model_from_file(str(config), str(args.exp / args.weights), device)
        results[f"{device} again" if device in results else device] = (
            *gradients(model.eval(), given[0]),
            texts,
        )
    (loss, gradient, texts), (other_loss, other_gradient, others) = results.values()
    print(f"CPU against {machine()}, {args.dtype}, {args.utterances} clips of {args.data}")
    print(f"loss: {loss:.6f}, {other_loss:.6f}")
    difference = float((gradient - other_gradient).norm() / gradient.norm())
    print(f"gradients differ by {difference:.1e} of their norm")
    differ = sum(a != b for a, b in zip(texts, others, strict=True))
    print(f"{differ} of {len(texts)} transcripts differ")


if __name__ == "__main__":
    main()
