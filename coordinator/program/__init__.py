"""The coordinator program's faces: its listeners, and what each lets through."""
