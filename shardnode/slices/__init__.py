"""The slices on this device's disk, and which one is served."""
