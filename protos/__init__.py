"""The contract between the programs: protobuf messages and gRPC services. Imports nothing of ours."""
