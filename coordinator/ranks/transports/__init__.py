"""How one rank is reached: over gRPC, or in frames on a socket of this host."""
