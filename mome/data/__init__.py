"""Audio, video, noise, Kaldi data folders."""
