"""What the filters left is divided into training, evaluation and unused rows."""
