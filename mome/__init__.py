"""MoME: mixture of Matryoshka experts for audio-visual speech recognition with LLMs."""
