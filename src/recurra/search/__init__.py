"""From scores to sequences, without torch."""
