"""Built-in questions whose answers a function can check: what training by reward samples answers to."""
