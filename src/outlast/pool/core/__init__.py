"""What decides in a pool: pure, given the time and the draws."""
