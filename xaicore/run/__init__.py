"""How notebooks run: parameters, records, the store of finished steps, engines, where results come from."""
