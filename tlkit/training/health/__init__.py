"""Whether gradients, updates and activations are as they should be, in numbers and in words."""
