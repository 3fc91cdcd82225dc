"""What a network can lose: units with every weight of theirs."""
