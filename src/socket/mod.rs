//! The server side of RFC 6455: frame codec, message assembly, outbox and flush.
