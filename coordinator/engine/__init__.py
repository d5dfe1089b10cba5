"""One sweep after another: which rows, what enters and leaves them, the next token. Begin with engine.py."""
