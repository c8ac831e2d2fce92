"""Fetching pretrained parts and converting them to Transformers folders."""
