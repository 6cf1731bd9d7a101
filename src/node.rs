//! The composition root: builds the parts, wires them, supervises them, shuts them down.
