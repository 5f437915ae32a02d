"""Where the trainer's and the evaluation's processes run, and how they talk to the step that started them."""
