"""A model as numbers only: its shape, who holds how much of it, how many rows a sweep may have."""
