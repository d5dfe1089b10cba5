"""One coordinator's messages, distrusted, and the memory that it shares with a node of its host."""
