"""Class sums and Grams of states, and what is solved from them."""
