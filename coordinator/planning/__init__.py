"""Who should hold how much of a model, from what devices and links can do."""
