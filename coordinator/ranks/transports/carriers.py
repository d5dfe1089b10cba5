"""What may carry rounds to other devices, by the names of `--rounds`."""

AUTO, FRAMES, GRPC = "auto", "frames", "grpc"
ROUNDS = (AUTO, FRAMES, GRPC)
"""Frames where a node takes them and gRPC elsewhere, or one of the two always."""
