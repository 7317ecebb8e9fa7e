//! The names of the events that the gateway writes.

use super::label_enum;

label_enum! {
    /// The `event` of an event that the gateway writes. Upstreams and workers write others.
    pub enum EventName {
        Connected => "connected",
        Resumed => "resumed",
        Pong => "pong",
        /// The default; the setting `queued_event` of a Celery upstream replaces it.
        TaskQueued => "task_queued",
        ProcessingStarted => "processing_started",
        /// A part of a reply that its upstream streams without naming an event.
        Chunk => "chunk",
        Complete => "complete",
        Cancelled => "cancelled",
        Error => "error",
        /// A publication that is not a JSON object.
        Message => "message",
        Join => "join",
        Leave => "leave",
        TokenExpiringSoon => "token_expiring_soon",
        Refreshed => "refreshed",
        GoingAway => "going_away",
    }
}
