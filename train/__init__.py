"""Training and few-shot evaluation."""
