"""The adapter in MLflow: its run, the servable model, the check after reload, the promotion gate and the model card."""
