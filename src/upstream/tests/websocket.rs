//! Sockets to an independent WebSocket server.
