"""Other people's files in: Hugging Face directories and GGUF files, read with distrust."""
