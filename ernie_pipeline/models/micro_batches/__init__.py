"""How a step's documents lie in memory: in micro-batches of padded or packed rows, or one after the other.

None of it changes what is learned: the loss of a step is the sum over its counted tokens, wherever they lie.
"""
