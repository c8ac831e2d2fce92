"""Helpers without speech in them: PyTorch, processes, files, downloads."""
