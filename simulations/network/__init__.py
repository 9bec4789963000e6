"""Links and devices that are simulated: what bytes and training would take on them."""
