"""`invoke bench`: our kernels beside the libraries that they replace, measured in turn."""
