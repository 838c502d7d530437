"""In which precision a stage computes, and whether XLA compiles it."""
