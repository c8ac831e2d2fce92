"""From a recording to text: segments, faces, a trained model, transcripts with times."""
