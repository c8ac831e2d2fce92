"""The frozen LLM: trees of prompts, the decoder, attention and beam search."""
