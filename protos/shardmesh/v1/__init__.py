"""Generated stubs and their sources; `make protos` remakes the stubs."""
