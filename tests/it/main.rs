//! End to end: real nodes, real files, real sockets.

mod process;
