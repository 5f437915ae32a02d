"""Reinforcement learning from graded answers: group relative policy optimisation. The formulas: README.md."""
