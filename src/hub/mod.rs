//! Channel → sockets, one part a thread.
