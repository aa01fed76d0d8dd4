"""Readers by the shape of the data, not by task: what is on disk or in a frame becomes the batches that tasks eat."""
