"""Many recorded jobs run again, in order and at a speed, and what came of them in all."""
