"""The web page that shows what a packed model reads, hears and says."""
