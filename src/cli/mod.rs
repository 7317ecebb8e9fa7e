//! Arguments, logging, signals and exit codes.
