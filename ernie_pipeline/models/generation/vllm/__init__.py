"""Answers by vLLM, where it is installed: `[execution] generator = "vllm"`.

vLLM asks for one version of torch and no other (0.23 for 2.11, 0.32 for 2.13), for its own versions of a hundred
packages, and it changes what is imported after it; this project is pinned as well. So it runs in a process of its own,
by the Python of an environment of its own, which `ERNIE_PIPELINE_VLLM_PYTHON` names; no package is shared.

The weights are not written to disk. The model in memory, its 4 bits dequantized and its adapter added and rounded as in
`merged.py`, goes tensor by tensor through a pipe to a model loader of ours, which vLLM lets others register: so what
answers is what was loaded, whatever checkpoint or adapter that came from, nothing of 43 GB has to be kept, cleaned up
or told apart by a hash, and vLLM lays the weights out for its kernels afterwards as it does with its own loaders.

    interpreter    which Python, which version, and the sentence where that cannot be
    weights        the tensors by the names that a checkpoint has
    process        vLLM's process from this side
    worker         the same from its own side: the standard library and vLLM, nothing of this package
    generator      `generate` as the seam has it
"""
