"""What a user asks: text, tokens, residual stream, head and sampler stay here; the mesh of shard nodes helps."""
