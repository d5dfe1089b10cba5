"""What both sides must agree on; knows neither service."""

import os

# gRPC's core writes a log of its own to stderr, at each handshake that fails; what matters of it comes as a status.
# Here, since it looks once, when it is imported, and whatever of ours imports it has imported this before.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
