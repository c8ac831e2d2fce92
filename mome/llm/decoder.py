"""The frozen LLM with its adapter, as an ESPnet decoder."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from mome.adapters import attach
from mome.adapters.base import find_layers
from mome.common.activation_checkpointing import recompute_in_backward
from mome.common.espnet import AbsDecoder, BatchScorerInterface
from mome.common.frozen import Frozen
from mome.common.precision import compute_dtype
from mome.llm.attention import use_matrix_products
from mome.llm.masks import TreeMasks
from mome.llm.prompt_tree import Node, column_pairs, pack_tree, paths
from mome.llm.trial import check_reads_trees
from mome.pretrained.hub import load, load_config, load_lm, load_tokenizer_or_words

MARKERS = ("<audio>", "</audio>", "<video>", "</video>")
IGNORE = -1


class MoMELLMDecoder(AbsDecoder, BatchScorerInterface):
    """Frozen Hugging Face causal LM, adapted by MoME, that reads projected encoder frames.

    As a decoder of ESPnet's own ASR task (:mod:`mome.tasks.asr`) it maps the encoder's frames by a
    linear layer. :class:`mome.models.avsr.AVSRModel` gives it tokens that are projected already
    and calls :meth:`forward_tree`.

    Args:
        vocab_size: size of ESPnet's token list; None takes the LM's own vocabulary.
        encoder_output_size: width of the encoder's frames; None when projected outside.
        lm: hub name or folder of a Transformers LM that reads trees of prompts (docs/llms.md).
        lm_dtype: of the frozen weights: ``float32``, ``bfloat16``, ``float16`` or ``auto``, the
            fastest one here.
        adapter: ``mome``, ``lora``, ``rate_lora``, ``none`` or another that is registered (see
            :func:`mome.adapters.attach`).
        adapter_conf: the adapter's arguments.
        prompt: text between the frames and the transcript, for ESPnet's ASR task.
        load_pretrained: False builds the architecture with random weights (tests, dry runs).
        gradient_checkpointing: recompute the LM's layers in the backward pass to save memory.

    Raises:
        ValueError: for an LM that does not read trees of prompts, an unknown adapter, a
            ``vocab_size`` larger than the LM's vocabulary, or an adapter by rate pair where the
            frames of one encoder are mapped here.
        OSError: if the LM cannot be had; see :func:`mome.pretrained.hub.load`.
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        encoder_output_size: int | None = None,
        lm: str = "meta-llama/Llama-3.2-1B",
        lm_dtype: str = "float32",
        adapter: str = "mome",
        adapter_conf: Mapping[str, Any] | None = None,
        prompt: str = "Transcribe speech to text.",
        load_pretrained: bool = True,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        dtype = compute_dtype(lm_dtype)
        if load_pretrained:
            model = load_lm(lm, dtype)
            tokenizer = load(AutoTokenizer, lm)
        else:
            model = AutoModelForCausalLM.from_config(load_config(lm), dtype=dtype)
            tokenizer = load_tokenizer_or_words(lm)
        use_matrix_products(model)
        self.tokenizer = tokenizer
        self.lm = Frozen(model)
        check_reads_trees(model)
        self.masks = TreeMasks(model, added=True)
        if gradient_checkpointing:
            # Before the adapter is attached: its own wrappers then run once in a pass.
            for layer in find_layers(model):
                recompute_in_backward(layer)
        self.adapter = attach(model, adapter, adapter_conf)
        if encoder_output_size is not None and self.adapter is not None and self.adapter.by_pair:
            raise ValueError(
                f"adapter {adapter!r} differs by rate pair, and this decoder reads one encoder at "
                f"one rate; the `avsr` model reads rate pairs"
            )
        self.vocab_size = model.get_input_embeddings().num_embeddings
        self.output_size = vocab_size or self.vocab_size
        if self.output_size > self.vocab_size:
            raise ValueError(
                f"a token list of {vocab_size} needs an LM with as many tokens; {lm} has "
                f"{self.vocab_size}: make the list from the LM's own tokenizer"
            )
        self.dim = model.get_input_embeddings().embedding_dim
        self.bos_id = tokenizer.bos_token_id
        self.eos_id = tokenizer.eos_token_id
        self.prompt_ids = tokenizer.encode(prompt, add_special_tokens=False)
        # A marker starts as the mean of the LM's embeddings of its spelling.
        device = self.embeddings.weight.device
        spelled = [tokenizer.encode(marker, add_special_tokens=False) for marker in MARKERS]
        with torch.no_grad():
            read = [self.embed(torch.tensor(ids, device=device)).float() for ids in spelled]
        self.markers = nn.Parameter(torch.stack([tokens.mean(0) for tokens in read]))
        self.linear_in = (
            None if encoder_output_size is None else nn.Linear(encoder_output_size, self.dim)
        )

    @property
    def embeddings(self) -> nn.Embedding:
        """The LM's input embeddings of V tokens and width D, frozen.

        What the LM reads of a token is what the module gives, not the row of its table: Gemma's
        scales it. An LM that scales what it is given, such as Granite, does so with frames as well.
        """
        return self.lm.inner.get_input_embeddings()

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """(..., L) token ids -> (..., L, D) embeddings in the LM's dtype."""
        return self.embeddings(ids)

    def vocabulary(self) -> torch.Tensor:
        """What the LM reads of each of its V tokens: (V, D) in the LM's dtype, frozen."""
        if type(self.embeddings) is nn.Embedding:
            return self.embeddings.weight  # to gather all rows would copy the table
        return self.embed(torch.arange(self.vocab_size, device=self.embeddings.weight.device))

    def text_node(self, ids: list[int], batch: int, parent: int | None) -> Node:
        """A node of the same text for the whole batch."""
        device = self.markers.device
        embeds = self.embed(torch.tensor(ids, device=device)).expand(batch, -1, -1)
        return Node(embeds, torch.ones(batch, len(ids), dtype=torch.bool, device=device), parent)

    def root(self, batch: int) -> Node:
        """Beginning of sentence; LMs without such a token start with the end-of-sentence token."""
        return self.text_node([self.eos_id if self.bos_id is None else self.bos_id], batch, None)

    def marked(self, kind: str, tokens: torch.Tensor, lengths: torch.Tensor, parent: int) -> Node:
        """A node ``<kind>`` tokens ``</kind>``.

        Args:
            kind: ``audio`` or ``video``.
            tokens: (B, T, D) projected tokens.
            lengths: (B,) valid tokens.
            parent: index of the node before it.
        """
        opening, closing = (
            self.markers[MARKERS.index(f"<{kind}>")].expand(len(tokens), 1, -1),
            self.markers[MARKERS.index(f"</{kind}>")].expand(len(tokens), 1, -1),
        )
        embeds = torch.cat([opening, tokens.float(), closing], dim=1)
        valid = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        mask = F.pad(valid, (1, 1), value=True)
        return Node(embeds.to(self.lm.inner.dtype), mask, parent)

    def forward_tree(
        self, nodes: list[Node], columns: Iterable[tuple[int, int, int]]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Run a tree of prompts and give logits where they are asked for.

        Args:
            nodes: parents before children.
            columns: (node, first, last + 1) in columns of that node.

        Returns:
            logits (B, last + 1 - first, V) for each request, and the adapter's balance loss (zero
            outside training).
        """
        embeds, mask, positions, attention, offsets = pack_tree(nodes)
        wanted = [torch.arange(offsets[n] + a, offsets[n] + b) for n, a, b in columns]
        recorder = self.adapter if self.adapter is not None and self.training else None
        arguments = {
            "inputs_embeds": embeds,
            "attention_mask": self.masks(attention, positions),
            "position_ids": positions,
            "use_cache": False,
            "logits_to_keep": torch.cat(wanted).to(embeds.device),
        }
        if self.adapter is not None:
            self.adapter.select_pairs(column_pairs(nodes))
        if recorder is None:
            logits = self.lm(**arguments).logits
            balance = self.markers.new_zeros(())
        else:
            with recorder.recording(mask, paths(nodes).to(mask.device)):
                logits = self.lm(**arguments).logits
                balance = recorder.balance_loss()
        return list(logits.split([len(columns) for columns in wanted], dim=1)), balance

    def forward(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        ys_in_pad: torch.Tensor,
        ys_in_lens: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """ESPnet's decoder interface.

        Args:
            hs_pad: (B, T, D) encoder frames.
            hlens: (B,) frames.
            ys_in_pad: (B, L) tokens, the first of them ``<sos>``; its place is taken by the prompt.
            ys_in_lens: (B,) tokens.

        Returns:
            scores before softmax (B, L, vocab_size) and (B,) lengths.
        """
        if self.linear_in is None:
            raise ValueError("MoMELLMDecoder needs encoder_output_size to read encoder frames")
        batch, length = ys_in_pad.shape
        tokens = self.embed(ys_in_pad[:, 1:].clamp(min=0))
        valid = torch.arange(1, length, device=ys_in_pad.device) < ys_in_lens[:, None]
        nodes = [
            self.root(batch),
            self.marked("audio", self.linear_in(hs_pad), hlens, parent=0),
            self.text_node(self.prompt_ids, batch, parent=1),
            Node(tokens, valid, parent=2),
        ]
        last = len(self.prompt_ids) - 1
        (first, rest), _ = self.forward_tree(nodes, [(2, last, last + 1), (3, 0, length - 1)])
        logits = torch.cat([first, rest], dim=1)[..., : self.output_size]
        return logits.float(), ys_in_lens

    def score(self, ys: torch.Tensor, state: Any, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """ESPnet's scorer: log-probabilities (V,) of the token after ``ys`` (L,), given ``x``."""
        scores, _ = self.batch_score(ys[None], [state], x[None])
        return scores[0], None

    def batch_score(
        self, ys: torch.Tensor, states: list[Any], xs: torch.Tensor
    ) -> tuple[torch.Tensor, list[Any]]:
        """ESPnet's batched scorer: log-probabilities (B, V) of the tokens after ``ys`` (B, L)."""
        hlens = torch.full((len(xs),), xs.shape[1], device=xs.device)
        ylens = torch.full((len(ys),), ys.shape[1], device=ys.device)
        logits, _ = self.forward(xs, hlens, ys, ylens)
        return logits[:, -1].log_softmax(-1), [None] * len(ys)
