"""What several themes share: compiled kernels."""
