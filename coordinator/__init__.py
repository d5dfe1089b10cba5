"""The conversation: text, tokens, residual stream, head, sampler, and the mesh of shard nodes."""
