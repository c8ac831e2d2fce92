"""Mouth regions from face video: landmarks, alignment to a mean face, crops."""
