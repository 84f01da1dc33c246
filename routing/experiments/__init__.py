"""What the evidence says, however often one looks: tests whose error bound holds at every moment, and who may enter them."""
