//! The accept loop of one worker thread.
