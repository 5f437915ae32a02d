"""What backend `grouped` computes in: experts in one product, adapters, documents laid end to end, and the kernels."""
