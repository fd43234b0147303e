"""The engine: takes jobs from their topics, runs them, and writes down what becomes of them."""
