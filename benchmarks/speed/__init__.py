"""Time and memory: the package against a plain forward pass, Captum, SciPy and plain PyTorch."""
