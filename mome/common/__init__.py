"""Helpers that know nothing of speech: PyTorch, processes, files, downloads."""
