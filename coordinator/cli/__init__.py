"""What a person types: one file a verb, and what verbs share."""
