//! The wire format: close reasons, error codes, ids, channel names, patterns, and the frames that clients send and
//! the gateway writes. Nothing here does I/O.

mod bits128;
mod cancelled_tasks;
mod client_address;
mod client_frame;
mod client_network;
mod close;
mod deflate;
mod dialect;
mod error;
mod event_members;
mod event_name;
mod events;
mod forwarded;
mod header_list;
mod http2_head;
mod identity_headers;
mod ids;
mod json;
mod label;
mod names;
mod origin;
mod own_origin;
mod path;
mod portable_json;
mod position;
mod proxied_headers;
mod proxy_protocol;
mod publication;
mod reply_end;
mod request_head;
mod request_id;
mod sender_key;
mod template;
mod timestamp;
mod trace_context;
mod websocket_accept;

pub use bits128::Bits128;
pub use cancelled_tasks::{
    ANY_NAME_MEMORY, CANCELLED_MEMORY, CancelledTasks, EventNames, INTERNAL_PREFIX, TaskNotice,
};
pub use client_address::ClientAddress;
pub use client_frame::{ClientFrame, InvalidFrame, MAX_TASK_ID_BYTES, Renewal};
pub use client_network::ClientNetwork;
#[cfg(any(test, feature = "internals"))]
pub use close::ClientAction;
pub use close::{CloseReason, is_valid_close_code};
pub use deflate::{DeflateTerms, PERMESSAGE_DEFLATE};
pub use dialect::Dialect;
pub use error::{ErrorCode, ErrorEvent};
pub use event_members::{EventMembers, with_task_id};
pub use event_name::EventName;
pub use events::{
    StartPosition, cancelled, complete, connected, going_away, pong, presence_event,
    processing_started, refreshed, resumed, task_queued, task_queued_before, token_expiring_soon,
};
pub use forwarded::{ForwardingHeader, append_forwarded, unify_forwarding};
pub use header_list::{header_has_token, header_list};
pub use http2_head::translate_http2_head;
pub use identity_headers::{is_identity_header, remove_identity_headers};
pub use ids::{ConnectionId, UserId, random_hex};
pub use json::{has_lone_surrogate, json_members, json_text, pair_surrogates, strip_bom};
pub(crate) use label::label_enum;
pub use names::{ChannelName, ChannelPattern, InvalidChannel, ReservedChannels};
pub use origin::{Origin, OriginPattern, OriginTag};
pub use own_origin::own_origins;
pub use path::{Params, PathPattern, is_path_step};
pub use portable_json::{NotPortable, check_portable};
pub use position::{Epoch, Position, ResumePoint, with_position};
pub use proxied_headers::{
    add_via, clean_trailers, count_forward, is_hop_by_hop, remove_hop_by_hop, set_forwarded,
};
pub use proxy_protocol::{HeaderMistake, HeaderProgress, ProxyHeader, read_proxy_header};
pub use publication::{
    NotJson, PublishedObject, published_bytes, published_object, published_text,
};
pub use reply_end::ReplyEnd;
pub use request_head::{HeadMistake, check_head, is_about_the_server, is_host, max_forwards};
pub use request_id::RequestId;
pub use sender_key::SenderKey;
pub use template::{Template, TemplateContext, UnfitForUrl, UrlValue};
pub use timestamp::with_timestamp;
pub use trace_context::TraceContext;
pub use websocket_accept::websocket_accept;
