"""What differs between systems and machines: processes, memory, disks, files that survive a power cut."""
