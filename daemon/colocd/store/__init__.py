"""SQL store: history, intents, outcomes, decisions."""
