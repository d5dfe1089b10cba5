"""Messages in and out: gRPC, and frames on a Unix socket."""
