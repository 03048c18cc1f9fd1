"""How a version reaches customers: probe, shadow, canary, promotion, rollback."""
