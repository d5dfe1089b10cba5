"""A device's ties to its mesh: joining, looking around for the coordinator, heartbeats, renewal."""
