"""ESPnet's own ASR task with the frozen LLM as a decoder: import this module before its ``main``.

It enters ``mome_llm`` in the decoder registry of that task, for ``decoder: mome_llm`` in its
configuration; see :class:`mome.llm.decoder.MoMELLMDecoder`.
"""

from mome.common.extras import extra
from mome.llm.decoder import MoMELLMDecoder

with extra():
    from espnet2.tasks.asr import decoder_choices

decoder_choices.classes["mome_llm"] = MoMELLMDecoder
