//! The formats in which upstreams stream their replies.

use super::label_enum;

label_enum! {
    /// The format of a streamed reply.
    pub enum Dialect {
        /// The gateway's own: events are published as they are.
        Events => "events",
        /// OpenAI's Chat Completions, and what is compatible with it.
        OpenaiChat => "openai-chat",
        /// OpenAI's Responses.
        OpenaiResponses => "openai-responses",
        /// Anthropic's Messages.
        Anthropic => "anthropic",
        /// Google's `streamGenerateContent`.
        Gemini => "gemini",
        Ollama => "ollama",
        /// The UI message stream of the AI SDK.
        AiSdk => "ai-sdk",
        AgUi => "ag-ui",
        Langgraph => "langgraph",
        /// Decided anew for each reply.
        Auto => "auto",
    }
}
