"""The pages made of executed notebooks, records and judgements, and the book that Sphinx builds of them."""
