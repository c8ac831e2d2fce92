"""The AVSR model around the LLM: rates, projectors, losses, and what warms its parts up."""
