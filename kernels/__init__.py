"""Fused Triton kernels, each beside its plain-PyTorch reference of the same signature."""
