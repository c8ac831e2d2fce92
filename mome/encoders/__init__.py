"""Audio and video encoders with ESPnet's encoder interface."""
