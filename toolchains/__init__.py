"""Where kernels are built and run: targets, images, engines, linking, emulation."""
