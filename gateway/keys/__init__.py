"""Who may do what: keys, tokens of an issuer, scopes, quotas, and the doorkeeper that asks all of them."""
