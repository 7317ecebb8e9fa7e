//! Words of the wire: close reasons, error codes, ids, channel names, patterns and the frames that
//! the gateway itself writes. Nothing here does I/O.

mod client_address;
mod close;
mod envelope;
mod ids;
mod names;
mod origin;
mod path;
mod position;

pub use client_address::ClientAddress;
pub use close::CloseReason;
pub use envelope::{
    Begin, ClientFrame, ErrorCode, ErrorEvent, InvalidFrame, MAX_TASK_ID_BYTES, Renewal,
};
pub use envelope::{
    cancelled, complete, connected, event_name, going_away, pong, presence_event,
    processing_started, refreshed, resumed, task_queued, task_queued_before, token_expiring_soon,
};
pub use ids::{ConnectionId, TraceContext, UserId, random_hex};
pub use names::{ChannelName, ChannelPattern, InvalidChannel, ReservedChannels};
pub use origin::{Origin, OriginPattern, OriginTag};
pub use path::{Params, PathPattern, Template, TemplateContext};
pub use position::{Epoch, InvalidEpoch, Position, ResumePoint, with_position};
