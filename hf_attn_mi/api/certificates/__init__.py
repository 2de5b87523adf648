"""Other rows in the place of attention while the model runs, and what that changed."""
