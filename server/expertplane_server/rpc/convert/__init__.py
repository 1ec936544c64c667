"""Messages to domain nouns and back. Nothing that a peer sends gets past here unchecked."""
