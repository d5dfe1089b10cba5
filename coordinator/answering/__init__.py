"""One open model that answers many requests."""
