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
        /// A part of what a model thought.
        Reasoning => "reasoning",
        ToolCall => "tool_call",
        ToolResult => "tool_result",
        /// The tokens that a reply took.
        Usage => "usage",
        /// An object of an AI API as it is.
        Native => "native",
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
