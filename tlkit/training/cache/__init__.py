"""What frozen layers give, computed once for each example and read ever after."""
