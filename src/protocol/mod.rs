//! Words of the wire: close reasons, error codes, ids, channel names, patterns and the frames that
//! the gateway itself writes. Nothing here does I/O.

mod client_address;
mod client_frame;
mod close;
mod error;
mod events;
mod ids;
mod label;
mod names;
mod origin;
mod path;
mod position;
mod request_id;
mod timestamp;
mod trace_context;

pub use client_address::ClientAddress;
pub use client_frame::{ClientFrame, MAX_TASK_ID_BYTES, Renewal};
#[cfg(any(test, feature = "internals"))]
pub use close::ClientAction;
pub use close::CloseReason;
pub use error::{ErrorCode, ErrorEvent};
pub use events::{
    Begin, EventName, cancelled, complete, connected, event_name, going_away, pong, presence_event,
    processing_started, refreshed, resumed, task_queued, task_queued_before, token_expiring_soon,
};
pub use ids::{ConnectionId, UserId, random_hex};
pub(crate) use label::label_enum;
pub use names::{ChannelName, ChannelPattern, InvalidChannel, ReservedChannels};
pub use origin::{Origin, OriginPattern, OriginTag};
pub use path::{Params, PathPattern, Template, TemplateContext};
pub use position::{Epoch, Position, ResumePoint, with_position};
pub use request_id::RequestId;
pub use timestamp::with_timestamp;
pub use trace_context::TraceContext;
