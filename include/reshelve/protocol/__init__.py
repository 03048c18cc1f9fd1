"""What the serving programs share: messages, model configurations, agents' and callers' reports."""
