"""Rankings of other papers, written from them for BERT: one file each. They are compared with the package's methods."""
