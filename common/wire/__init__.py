"""Messages between the programs: statuses, frames, tensors, memory that two processes of one host see."""
