use super::*;
pub struct UpstreamSocket {
    pub sender: UpstreamSender,
    pub receiver: UpstreamReceiver,
}
pub struct UpstreamSender {}
pub struct UpstreamReceiver {}
/// A whole message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketMessage {
    Text(Bytes),
    Binary(Bytes),
}
/// What an upstream socket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromUpstream {
    Message(SocketMessage),
    /// The close frame's code and reason; `None` = it broke without one.
    Closed(Option<(u16, String)>),
}
impl UpstreamSender {
    pub async fn send(&mut self, message: SocketMessage) -> Result<(), ()> {
        let _ = message;
        todo!()
    }
    pub async fn close(&mut self, code: u16, reason: &str) {
        let _ = (code, reason);
        todo!()
    }
}
impl UpstreamReceiver {
    pub async fn recv(&mut self) -> FromUpstream {
        todo!()
    }
}
