"""The champion on the Hugging Face hub: its files in the forms that were asked for, its card, one commit."""
