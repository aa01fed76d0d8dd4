"""The torch-free wing that plays a saved model: numpy and recurra._core."""
