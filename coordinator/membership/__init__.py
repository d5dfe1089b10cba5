"""Devices that trust each other: joining, members, tokens, and reaching a node by its name."""
