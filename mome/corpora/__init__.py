"""Corpora as they are distributed, one file each or for several of one layout."""
