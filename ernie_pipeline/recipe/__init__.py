"""What is built (the recipe and its presets), and where things are kept (the settings)."""
