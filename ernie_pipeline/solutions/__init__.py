"""Worked solutions of the training problems: sampled from the model, graded, kept where they are right."""
