"""From a planned kernel to an object file: the only package that imports TVM."""
