//! Frames of the upstream on their way to the client, as they are.

use std::rc::Rc;

use bytes::Bytes;

use super::relay::Relay;
use crate::protocol::CloseReason;
use crate::socket::frame::{self, Opcode};
use crate::socket::{Place, ScanFault, Scanned, parse_close};
use crate::telemetry;
use crate::telemetry::messages::TooBigFrom;

impl Relay {
    /// Forwards what the upstream sent.
    pub(super) fn upstream_bytes(&mut self, bytes: &mut [u8]) {
        let session = Rc::clone(&self.session);
        let socket = &session.socket;
        let max_message = session.client.route.borrow().max_message_bytes;
        if self.upstream.as_ref().is_some_and(|upstream| !upstream.is_told_to_close) {
            self.await_quiet();
        }
        let mut at = 0;
        loop {
            let Some(upstream) = &mut self.upstream else { return };
            match upstream.scanner.next(&mut bytes[at..], max_message) {
                Ok(Scanned::Control { opcode: Opcode::Close, length, payload }) => {
                    socket.forward(&bytes[..at], upstream.scanner.place());
                    return self.upstream_close(&bytes[at..at + length], payload.as_ref());
                }
                Ok(Scanned::Data { length, .. } | Scanned::Control { length, .. }) => at += length,
                Ok(Scanned::Partial) => {
                    upstream.scanner.keep(&bytes[at..]);
                    return socket.forward(&bytes[..at], upstream.scanner.place());
                }
                Err(fault) => {
                    socket.forward(&bytes[..at], upstream.scanner.place());
                    return self.upstream_fault(fault, max_message);
                }
            }
            let place = upstream.scanner.place();
            if place != Place::InFrame && socket.has_waiting_close() {
                // The close frame of the gateway has its place now.
                return socket.forward(&bytes[..at], place);
            }
        }
    }

    /// The upstream sent a close frame: its first word, or its answer.
    fn upstream_close(&mut self, close: &[u8], payload: &[u8]) {
        let parsed = match parse_close(payload) {
            Ok(parsed) => parsed,
            Err(_) => return self.upstream_fault(ScanFault::Protocol, 0),
        };
        let session = Rc::clone(&self.session);
        let socket = &session.socket;
        if let Some(upstream) = &mut self.upstream {
            upstream.has_closed = true;
        }
        if let Some(fault) = self.fault.take() {
            socket.close_over(fault.reason, &fault.text);
            return self.let_upstream_end();
        }
        let is_answer = !socket.is_open();
        socket.forward_close(close, parsed);
        if is_answer {
            self.let_upstream_end();
        }
    }

    /// The upstream broke the protocol, or sends too large a message. It is closed for it, and with it the client.
    fn upstream_fault(&mut self, fault: ScanFault, max_message: usize) {
        let fields = self.session.log_fields();
        let (reason, text) = match fault {
            ScanFault::Protocol => {
                telemetry::upstreams::upstream_broke_protocol(fields);
                let text = "the upstream broke the WebSocket protocol".to_owned();
                (CloseReason::ProtocolError, text)
            }
            ScanFault::TooBig(bytes) => {
                let from = TooBigFrom::Upstream;
                telemetry::messages::message_too_big(fields, from, bytes, max_message);
                let text = format!("{bytes} bytes are over max_message_bytes ({max_message})");
                (CloseReason::MessageTooBig, text)
            }
        };
        let to_client = match fault {
            ScanFault::Protocol => text.clone(),
            ScanFault::TooBig(_) => format!("of the upstream, {text}"),
        };
        self.end_upstream(frame::masked_close(reason.code(), &text));
        self.after_upstream(|relay| {
            relay.session.socket.close_over(CloseReason::BadGateway, &to_client);
        });
    }

    fn end_upstream(&mut self, close: Bytes) {
        if let Some(upstream) = &mut self.upstream
            && !upstream.is_told_to_close
            && self.from_client.place() != Place::InFrame
        {
            upstream.stream.push(&close);
            upstream.is_told_to_close = true;
        }
        self.let_upstream_end();
    }

    /// The upstream ended the connection without a close frame.
    pub(super) fn upstream_lost(&mut self) {
        self.upstream = None;
        self.after_upstream(|relay| relay.session.socket.cut());
    }

    /// The upstream did not answer in time.
    pub(super) fn upstream_gave_up(&mut self) {
        self.let_upstream_end();
        self.after_upstream(|relay| relay.session.socket.cut());
    }

    /// Ends the client's connection, since nothing more comes from the upstream: with what the client is owed, or as
    /// `otherwise` says.
    fn after_upstream(&mut self, otherwise: impl FnOnce(&mut Self)) {
        let session = Rc::clone(&self.session);
        let socket = &session.socket;
        if let Some(fault) = self.fault.take() {
            socket.close_over(fault.reason, &fault.text);
        } else if socket.is_open() || socket.has_waiting_close() {
            otherwise(self);
        } else if !socket.awaits_close() {
            socket.answer_close();
        }
    }
}
